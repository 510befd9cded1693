"""Masks for NV-Generate: mapping of vocabularies, and exact round trips of grids."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from grids import oblique
from maisis import manifest_of, small_package

from MedGenLib import cli
from MedGenLib.checks.input import check_mask
from MedGenLib.errors import InputError
from MedGenLib.generate import generate
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.recorded import read_beside
from MedGenLib.labels.body import fill_rest
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.vocabulary import Vocabulary, table
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.hub.nv_generate_labels import package_labels, regions
from MedGenLib.packages.hub.nv_generate_limits import BODY
from MedGenLib.pipelines.maisi.legal import find_grid
from MedGenLib.pipelines.maisi.masks import prepare, prepare_grid

MAISI = Vocabulary.from_dict(package_labels())
SMALL = {"grids": [[32, 32, 32], [64, 64, 32], [64, 64, 64]], "least_view_mm": 0.0}


@pytest.fixture
def ct(tmp_path):
    return manifest_of("nv-generate-ct", tmp_path)


@pytest.fixture
def small(tmp_path):
    """The same package with small grids."""
    return manifest_of("nv-generate-ct", tmp_path, **SMALL)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


def mask(values, names=None):
    return LabelMap(np.reshape(np.array(values, np.int32), (-1, 1, 1)), np.eye(4), names or {})


def scattered(shape, affine=None, seed=0, values=(0, 1, 5, 28, 200)):
    """Asymmetric labels that touch the borders."""
    generator = np.random.default_rng(seed)
    array = generator.choice(np.array(values, np.uint8), shape)
    return LabelMap(array, oblique((1.5, 1.5, 1.5)) if affine is None else affine)


def tilted(spacing, degrees=20.0):
    """An affine rotated about the left-right axis, as for an oblique axial scan."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) * spacing
    affine[:3, 3] = (-40.0, 12.5, 300.0)
    return affine


def as_values(labels):
    """Network values that finish() converts to ten times the labels, minus 1000."""
    return labels.astype(np.float32) * 10 / 2000


# --- Vocabulary -----------------------------------------------------------------------------------


def test_the_vocabulary_equals_that_of_the_published_model():
    names = MAISI.names
    assert len(names) == 125 and max(names) == BODY
    assert not {2, 16, 18, 20, 21, 129, 130, 131} & set(names)
    named = [names[value] for value in (1, 14, 32, 57, 127, 132, 200)]
    assert named == ["liver", "left kidney", "right lung lower lobe", "trachea", "vertebrae S1", "airway", "body"]


def test_every_structure_of_totalsegmentator_has_its_own_label():
    source = table("totalsegmentator")
    labels, report = map_labels(mask(list(source.names)), MAISI, "totalsegmentator")
    assert len(set(report.mapped.values())) == 117 and report.unmapped == []
    for value, target in report.mapped.items():
        words = set(re.split(r"[ _]", source.names[value].lower()))
        assert words - {"urinary"} == set(MAISI.names[target].lower().split()), source.names[value]
    assert labels.array.dtype == np.uint8


def test_every_label_of_freesurfer_and_synthseg_is_mapped_to_a_ct():
    names = table("freesurfer").names
    _, report = map_labels(mask(list(names)), MAISI, "freesurfer")
    assert {report.mapped[v] for v in (2, 3, 17, 42, 251, 1024, 2035, 24, 77)} == {22}
    assert {report.mapped[v] for v in (165, 515, 516)} == {120}
    assert report.mapped[512] == 121
    assert {report.mapped[v] for v in (501, 506, 507, 511)} == {200}
    assert set(report.mapped.values()) == {22, 120, 121, 200}


def test_vista3d_has_the_same_numbers_and_more_structures():
    own = [value for value in MAISI.names if value < 200]
    _, report = map_labels(mask(own), MAISI, "vista3d")
    assert report.mapped == {value: value for value in own}
    _, report = map_labels(mask([151, 157, 220, 245, 149]), MAISI, "vista3d")
    assert report.mapped == {151: 115, 157: 200, 220: 22, 245: 22, 149: 115}
    with pytest.raises(InputError, match="2 .kidney., 20 .lung., 200 .left mandible"):
        map_labels(mask([2, 20, 200]), MAISI, "vista3d")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Kidney, left", 14),
        ("left_kidney", 14),
        ("Liver", 1),
        ("SPINAL-CORD", 121),
        ("IVC", 7),
        ("subcutaneous fat", 200),
        ("vertebra L3", 35),
        ("L3 vertebra", 35),
        ("Left-Thalamus", 22),
        ("rib left 4", 66),
        ("clavicle right", 92),
    ],
)
def test_free_names(name, value):
    assert map_labels(mask([7], {7: name}), MAISI)[1].mapped == {7: value}


def test_a_name_without_its_side_is_refused_and_the_sides_are_offered():
    with pytest.raises(InputError) as error:
        map_labels(mask([7], {7: "lung"}), MAISI)
    sentence = str(error.value)
    assert "7 (lung)" in sentence and "125 structures" in sentence and "\n" not in sentence
    assert "left lung upper lobe" in sentence and "vista3d" in sentence
    assert len(sentence) < 500


def test_names_of_maisi_are_mapped_to_the_embedded_model():
    labels = find("ct-tissue").input.labels
    tissue = Vocabulary.from_dict({str(v): {"name": x.name, "aliases": x.aliases} for v, x in labels.items()})
    _, report = map_labels(mask([1, 33, 28, 200]), tissue, "maisi")
    assert report.mapped == {1: 2, 33: 3, 28: 4, 200: 2}


@pytest.mark.parametrize(
    ("values", "shown"), [([22, 28, 200], (0, 1)), ([1, 93], (2, 3)), ([28], (1, 1)), ([63, 200], None)]
)
def test_regions(values, shown):
    assert regions(values) == shown


# --- Round trip to a legal grid -------------------------------------------------------------

GRIDS = [
    ((40, 40, 20), None),
    ((33, 21, 40), oblique((1.4, 1.4, 1.4), left_handed=True, seed=3)),
    ((27, 40, 22), None),
    ((20, 45, 61), np.diag([-0.9, -0.9, 4.0, 1.0])),
    ((64, 64, 64), np.eye(4)),
    ((50, 30, 28), np.array([[0, 0, 1.5, 7], [-1.5, 0, 0, 3], [0, 2.5, 0, -4], [0, 0, 0, 1.0]])),
]


@pytest.mark.parametrize(("shape", "affine"), GRIDS)
@pytest.mark.parametrize("any_grid", [False, True])
def test_the_round_trip_is_exact(shape, affine, any_grid, small):
    labels = scattered(shape, tilted((1.4, 1.4, 3.0)) if affine is None else affine)
    scene = prepare(labels, small, any_grid=any_grid)
    assert scene.own_grid and scene.labels.dtype == np.uint8
    assert scene.labels.shape == scene.shape and all(n % 32 == 0 for n in scene.shape)
    if not any_grid:
        assert list(scene.shape) in SMALL["grids"]
    trained = list(scene.shape) in SMALL["grids"]
    assert [f.code for f in scene.findings] == ([] if trained else ["untrained-grid"])
    volume = scene.finish(as_values(scene.labels))
    expected = np.where(labels.array > 0, labels.array.astype(int) * 10 - 1000, -1000)
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.geometry.is_close(labels.geometry, 1e-9)
    assert (volume.modality, volume.unit) == ("CT", "HU")


def test_the_network_sees_ras(small):
    labels = scattered((20, 24, 22), np.diag([-1.0, 1.0, -2.0, 1.0]))
    scene = prepare(labels, small)
    np.testing.assert_array_equal(scene.labels[scene.grid.inside], labels.array[::-1, :, ::-1])
    assert scene.spacing == (1.0, 1.0, 2.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_repeated_to_a_slab_and_extracted(axis, small):
    shape = [40, 40, 40]
    shape[axis] = 1
    labels = scattered(tuple(shape), np.diag([1.0, 1.0, 1.0, 1.0]))
    scene = prepare(labels, small)
    planes = np.moveaxis(scene.labels, axis, 0)
    assert (planes == planes[:1]).all()
    volume = scene.finish(as_values(scene.labels))
    np.testing.assert_array_equal(volume.array, labels.array.astype(int) * 10 - 1000)


def test_padding_is_air_beside_the_body_and_repeated_slices_along_it(small):
    labels = LabelMap(np.full((40, 40, 20), 5, np.uint8), np.eye(4))
    scene = prepare(labels, small)
    inside = scene.grid.inside
    assert scene.shape == (64, 64, 32)
    assert (scene.labels[inside[0], inside[1]] == 5).all()
    assert np.count_nonzero(scene.labels) == 40 * 40 * 32


def test_a_published_size_is_not_changed(ct):
    array = np.zeros((256, 256, 128), np.uint8)
    array[60:200, 80:180, 2:] = 200
    array[100:130, 100:130, 40:70] = 28
    scene = prepare(LabelMap(array, np.diag([1.5, 1.5, 2.0, 1.0])), ct)
    assert scene.shape == (256, 256, 128) and scene.grid.before[:2] == (0, 0)
    assert scene.findings == [] and scene.regions == (1, 1)


@pytest.mark.parametrize(
    ("shape", "spacing", "legal"),
    [
        ((200, 200, 60), (0.7, 0.7, 3.0), (384, 384, 128)),  # 256 voxels would cover 179 mm only
        ((200, 160, 130), (1.5, 1.5, 1.5), (256, 256, 256)),
        ((300, 300, 128), (1.0, 1.0, 1.0), (384, 384, 128)),
        ((512, 512, 700), (0.8, 0.8, 1.0), (512, 512, 768)),
        ((120, 100, 60), (0.5, 0.5, 0.5), (512, 512, 128)),
    ],
)
def test_the_smallest_legal_grid_that_shows_enough(shape, spacing, legal, ct):
    grid = find_grid(Geometry(shape, np.diag([*spacing, 1.0])), ct)
    assert grid.shape == legal and grid.own and not grid.findings


def test_a_mask_larger_than_any_grid_is_cut_to_its_labels(small):
    array = np.zeros((90, 80, 100), np.uint8)
    array[20:60, 30:70, 50:90] = 28
    labels = LabelMap(array, oblique((1.0, 1.0, 1.0)))
    scene = prepare(labels, small)
    assert scene.own_grid and scene.shape == (64, 64, 64)
    volume = scene.finish(as_values(scene.labels))
    np.testing.assert_array_equal(volume.array == -720, array == 28)
    assert (volume.array[array == 0] == -1000).all()


def test_a_spacing_outside_the_trained_range_is_resampled_with_a_finding(small):
    array = np.zeros((12, 30, 40), np.uint8)
    array[3:9, 8:22, 10:30] = 28
    labels = LabelMap(array, np.diag([4.0, 1.0, 1.0, 1.0]))  # a sagittal series
    scene = prepare(labels, small)
    assert scene.spacing == (1.0, 1.0, 1.0) and not scene.own_grid
    codes = [finding.code for finding in scene.findings]
    assert codes == ["resampled"] and "4 x 1 x 1 to 1 x 1 x 1 mm" in scene.findings[0].sentence
    volume = scene.finish(as_values(scene.labels))
    assert volume.shape == labels.shape
    inner = np.zeros_like(array, bool)
    inner[4:8, 9:21, 11:29] = True
    assert (volume.array[inner] == -720).all() and (volume.array[array == 0] == -1000).all()
    assert scene.seams([(0, 4)]) == []


def test_a_header_in_single_precision_is_no_other_spacing(ct):
    spacing = float(np.float32(0.5)) - 1e-8
    assert find_grid(Geometry((512, 512, 128), np.diag([spacing, 0.5, 2.0, 1.0])), ct).own


def test_what_no_grid_holds_is_refused_with_a_spacing_that_works(ct):
    geometry = Geometry((700, 600, 300), np.diag([0.6, 0.6, 1.0, 1.0]))
    with pytest.raises(InputError) as error:
        find_grid(geometry, ct)
    sentence = str(error.value)
    assert "700 x 600 x 300 voxels of 0.6 x 0.6 x 1 mm" in sentence and "--any-grid" in sentence
    advice = [float(s) for s in re.search(r"voxels of ([\d. x]+) mm, or", sentence)[1].split(" x ")]
    grid = find_grid(geometry.with_spacing(advice), ct)
    assert grid.own and grid.shape == (512, 512, 384)
    large = find_grid(geometry, ct, any_grid=True)
    assert large.shape == (704, 608, 320) and large.findings[0].code == "untrained-grid"


def test_what_is_too_large_whatever_the_spacing_is_said(ct):
    with pytest.raises(InputError, match="1800 x 400 x 400 mm exceed"):
        find_grid(Geometry((600, 400, 400), np.diag([3.0, 1.0, 1.0, 1.0])), ct)


def test_fine_voxels_are_resampled_no_more_than_needed(ct):
    grid = find_grid(Geometry((1600, 1600, 100), np.diag([0.2, 0.2, 1.0, 1.0])), ct)
    assert grid.shape == (512, 512, 128) and not grid.own
    assert grid.spacing == pytest.approx((0.625, 0.625, 1.0), abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 30), (1, 1, 1)])
def test_a_line_is_refused(shape, ct):
    with pytest.raises(InputError, match="a line or a single voxel"):
        find_grid(Geometry(shape, np.eye(4)), ct)


def test_an_empty_mask_is_refused(ct):
    with pytest.raises(InputError, match="empty"):
        prepare(LabelMap(np.zeros((8, 8, 8), np.uint8), np.eye(4)), ct)


@pytest.mark.parametrize("affine", [np.eye(4), oblique((1.0, 1.0, 1.0), seed=5)])
def test_a_seam_is_the_same_plane_in_both(affine, small):
    labels = LabelMap(np.full((44, 60, 30), 5, np.uint8), affine)
    scene = prepare(labels, small)
    borders = [(0, 5), (1, 9), (2, 4)]
    planes = scene.seams(borders)
    assert len(planes) == 3
    for (axis, index), (stored, plane) in zip(borders, planes, strict=True):
        ramp = np.zeros(scene.shape, np.float32)
        np.moveaxis(ramp, axis, 0)[4 * index :] = 1
        step = np.abs(np.diff(scene.finish(ramp).array.astype(int), axis=stored))
        assert np.unique(np.nonzero(step)[stored]).tolist() == [plane - 1]
    assert scene.seams([(0, 0), (0, 16)]) == []  # in the padding


def test_values_that_are_not_finite_are_kept_for_the_check(small):
    scene = prepare(scattered((32, 32, 32), np.eye(4), values=(1,)), small)
    values = np.zeros(scene.shape, np.float32)
    values[scene.grid.inside] = np.nan
    assert not np.isfinite(scene.finish(values).array).any()


def test_intensities_are_clipped_to_the_output_range(small):
    scene = prepare(scattered((32, 32, 32), np.eye(4), values=(1,)), small)
    assert (scene.finish(np.full(scene.shape, 1.7, np.float32)).array == 1000).all()
    with pytest.raises(ValueError, match="legal grid"):
        scene.finish(np.zeros((8, 8, 8), np.float32))


# --- Packages without a mask ----------------------------------------------------------------------


def test_an_mr_image_has_the_requested_grid(tmp_path):
    manifest = manifest_of("nv-generate-mr-brain", tmp_path)
    geometry = Geometry((240, 250, 120), tilted((0.94, 0.94, 1.36)))
    scene = prepare_grid(geometry, manifest)
    assert scene.labels is None and scene.shape == (256, 256, 128) and scene.regions is None
    volume = scene.finish(np.full(scene.shape, 0.5, np.float32))
    assert volume.geometry.is_close(geometry) and (volume.array == 500).all()
    assert volume.modality == "MR"


def test_an_mr_image_of_an_impossible_size_gets_a_possible_spacing(tmp_path):
    manifest = manifest_of("nv-generate-mr-brain", tmp_path)
    with pytest.raises(InputError, match="no grid of the model 'nv-generate-mr-brain'"):
        prepare_grid(Geometry((600, 600, 300), np.diag([1.0, 1.0, 1.0, 1.0])), manifest)


# --- Findings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([22, 120, 200], "only head and neck"),
        ([93, 94, 200], "only pelvis and legs"),
        ([200], "no organ that identifies"),
    ],
)
def test_parts_of_the_body_rare_in_training_are_noted(values, words, small):
    findings = prepare(scattered((32, 32, 32), np.eye(4), values=values), small).findings
    assert [f.code for f in findings] == ["rare-region"] and words in findings[0].sentence


def test_missing_structures_are_not_noted(ct):
    labels = scattered((256, 256, 40), np.diag([1.5, 1.5, 4.0, 1.0]), values=(1, 28, 200))
    assert [finding.code for finding in check_mask(labels, ct)] == []


def test_a_small_field_of_view_is_noted(ct):
    labels = scattered((100, 100, 100), np.eye(4), values=(28, 200))
    codes = [finding.code for finding in check_mask(labels, ct)]
    assert codes == ["small-field-of-view"]


# --- The body -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample():
    """Slices of the sample CT of a torso, and their gas and lung."""
    folder = cli.__path__[0] + "/../../Resources/SampleData/"
    image = read_volume(folder + "ct_tissue_real.nii.gz", modality="CT")
    tissue = read_label_map(folder + "ct_tissue_mask.nii.gz")
    image, tissue = (crop(x, (0, 0, 90), (*x.shape[:2], 112)) for x in (image, tissue))
    lungs = np.where(tissue.array == 4, 28, 0).astype(np.uint8)
    return image, LabelMap(lungs, tissue.affine, {28: "left lung upper lobe"}), tissue


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_the_body_comes_from_an_image(sample):
    image, lungs, tissue = sample
    filled, findings = fill_rest(lungs, 200, image)
    assert findings == [] and filled.values() == [28, 200]
    assert dice(filled.array > 0, tissue.array > 0) > 0.97
    np.testing.assert_array_equal(filled.array == 28, lungs.array == 28)


def test_the_image_may_have_another_grid_and_no_modality(sample):
    image, lungs, tissue = sample
    other = resample(replace(image, modality=None), (6, 6, 5))
    filled, _ = fill_rest(lungs, 200, other)
    assert dice(filled.array > 0, tissue.array > 0) > 0.95


def test_the_body_is_closed_from_the_mask_with_a_finding(sample):
    _, lungs, tissue = sample
    filled, findings = fill_rest(lungs, 200)
    assert [f.code for f in findings] == ["body-closed"] and "--body-from" in findings[0].sentence
    inside = (filled.array > 0) & (tissue.array > 0)
    assert np.count_nonzero(inside) > 0.99 * np.count_nonzero(filled.array)
    assert np.count_nonzero(filled.array == 200) > 0
    assert fill_rest(filled, 200)[1] == []  # nothing is left to close


def moved(image, offset_mm):
    affine = image.affine.copy()
    affine[:3, 3] += offset_mm
    return replace(image, affine=affine)


def test_a_mask_outside_the_image_is_refused(sample):
    image, lungs, _ = sample
    with pytest.raises(InputError, match="outside of the image"):
        fill_rest(lungs, 200, moved(image, (5000, 0, 0)))
    with pytest.raises(InputError, match="do not belong together"):
        fill_rest(lungs, 200, moved(image, (0, 290, 0)))
    _, findings = fill_rest(lungs, 200, moved(image, (0, 90, 0)))
    assert [finding.code for finding in findings] == ["body-apart"]


def test_an_image_without_body_is_refused(sample):
    image, lungs, _ = sample
    with pytest.raises(InputError, match="shows no body"):
        fill_rest(lungs, 200, image.with_array(np.full(image.shape, -1000.0)))
    with pytest.raises(InputError, match="empty"):
        fill_rest(lungs.with_array(np.zeros_like(lungs.array)), 200)


def test_generate_refuses_a_body_without_a_label_for_it(sample, tmp_path):
    image, _, tissue = sample
    with pytest.raises(InputError, match="in addition to --body-from"):
        generate(tissue, "ct-tissue", body_from=image)


def test_the_command_line_fills_the_body_of_an_image(sample, tmp_path, capsys):
    image, lungs, tissue = (crop(x, (0, 0, 4), (122, 101, 12)) for x in sample)
    gas = LabelMap(np.where(lungs.array > 0, 4, 0).astype(np.uint8), lungs.affine)
    write_volume(gas, tmp_path / "lungs.nii.gz")
    write_volume(image, tmp_path / "ct.nii.gz")
    words = [
        "generate",
        tmp_path / "lungs.nii.gz",
        "-o",
        tmp_path / "out.nii.gz",
        "--body-from",
        tmp_path / "ct.nii.gz",
        "--fill",
        "soft tissue",
        "--preset",
        "draft",
        "--seed",
        "1",
        "--device",
        "cpu",
    ]
    assert cli.main([str(word) for word in words]) == 0, capsys.readouterr().err
    made = read_volume(tmp_path / "out.nii.gz")
    assert dice(made.array > -900, tissue.array > 0) > 0.9
    facts = read_beside(tmp_path / "out.nii.gz").to_dict()
    assert "ct.nii.gz" in json.dumps(facts, default=str)


@pytest.mark.parametrize("planes", [24, 1])
def test_a_segmentation_of_another_tool_becomes_a_ct(planes, tmp_path):
    """TotalSegmentator's labels without a body, in a complete run with small random networks."""
    small_package("nv-generate-ct", tmp_path / "home" / "models")
    array = np.zeros((40, 36, planes), np.uint8)
    array[6:18, 8:28], array[22:34, 8:28] = 5, 10
    labels = LabelMap(array, tilted((1.5, 1.5, 3.0)))
    result = generate(
        labels,
        "nv-generate-ct",
        mapping="totalsegmentator",
        seed=1,
        steps=1,
        retries=0,
        device="cpu",
        any_grid=True,
        accept_license=True,
    )
    assert result.source.values() == [1, 28, 200]
    assert (result.source.array[19:21, 12:24] == 200).all()
    codes = {finding.code for finding in result.report.input_findings}
    assert {"body-closed", "small-field-of-view", "untrained-grid"} <= codes
    assert "absent-labels" not in codes
    assert result.volume.geometry.is_close(labels.geometry, 1e-9)
    outside = result.source.array == 0
    assert outside.any() and (result.volume.array[outside] == -1000).all()
    assert np.ptp(result.volume.array[~outside]) > 0


def test_volumes_without_a_unit_are_accepted():
    image = Volume(np.zeros((8, 8, 8)), np.eye(4))
    with pytest.raises(InputError, match="no body"):
        fill_rest(mask([1]), 200, image)
