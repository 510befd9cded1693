"""Lesions in real and generated images: the rest unchanged, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, maximum_filter
from workers import QUICK, left_handed_oblique, trunk

from MedGenLib import generate
from MedGenLib.editing.blending import FAR
from MedGenLib.editing.lesions import Insertion, insert_lesion
from MedGenLib.editing.lesions.inputs import as_stored
from MedGenLib.errors import Cancelled, InputError, PackageError
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.io.samples import sample

FAST = {"preset": "draft", "device": "cpu", "seed": 1}
CHANGE = {"contrast": 60.0, **FAST}
"""Only another level: nothing is generated, so that it takes next to no time."""


@pytest.fixture(scope="module")
def abdomen() -> Volume:
    """Part of the real CT of the sample data, at 3 mm: liver, spine, fat, gas."""
    whole = read_volume(sample("ct_tissue_real.nii.gz"), modality="CT")
    return as_stored(crop(whole, (30, 30, 40), (94, 86, 88)))


@pytest.fixture(scope="module")
def tissues() -> LabelMap:
    return crop(read_label_map(sample("ct_tissue_mask.nii.gz")), (30, 30, 40), (94, 86, 88))


@pytest.fixture(scope="module")
def hippocampus() -> Volume:
    return read_volume(sample("hippocampus_real.nii.gz"), modality="T1w")


def inside_of(tissues: LabelMap, value: int) -> np.ndarray:
    """RAS mm of a voxel of a label, far from all others."""
    index = np.unravel_index(
        distance_transform_edt(np.pad(tissues.array == value, 1)).argmax(), [n + 2 for n in tissues.shape]
    )
    return tissues.affine[:3, :3] @ (np.array(index) - 1) + tissues.affine[:3, 3]


def unchanged_outside(made: Insertion) -> bool:
    """Whether every voxel farther than the halo is the same, and some within differ."""
    reach = [2 * n + 1 for n in made.halo_voxels]
    near = maximum_filter(made.lesion.array, reach, mode="constant") > 0
    away = distance_transform_edt(made.lesion.array == 0, made.volume.spacing) > made.halo_mm + 1e-6
    same = made.volume.array == made.source.array
    return bool(same[~near].all() and same[away].all()) and not same.all()


# In a real CT


def test_masks_cropped_to_their_segments_are_extended(abdomen, tissues):
    ball = np.zeros(tissues.shape, np.uint8)
    ball[30:36, 26:32, 20:26] = 1
    lesion = LabelMap(ball, tissues.affine)
    expected = insert_lesion(abdomen, lesion=lesion, labels=tissues, **CHANGE)
    cropped = crop(lesion, (30, 26, 20), (36, 32, 26))
    part = crop(tissues, (10, 8, 4), (56, 50, 44))
    made = insert_lesion(abdomen, lesion=cropped, labels=part, **CHANGE)
    assert np.array_equal(made.lesion.array, ball)
    assert np.array_equal(made.volume.array, expected.volume.array)
    assert any("taken as unlabeled" in finding.sentence for finding in made.report.input_findings)


@pytest.fixture(scope="module")
def calcified(abdomen, tissues) -> Insertion:
    at = inside_of(tissues, 2)
    return insert_lesion(abdomen, at=at, shape="lobulated", size_mm=24, label="bone", labels=tissues, **FAST)


def test_only_the_place_of_the_lesion_changes(abdomen, calcified):
    assert unchanged_outside(calcified)
    assert calcified.volume.geometry.is_close(abdomen.geometry, 0)
    assert calcified.volume.array.dtype == abdomen.array.dtype == np.int16
    figures = calcified.report.output_checks[0].figures
    assert figures["outside_difference"] == 0
    assert calcified.report.parameters["halo_voxels"] == list(calcified.halo_voxels)
    assert calcified.halo_mm == 3 * FAR == 9


def test_the_lesion_is_of_its_tissue(calcified):
    lesion = calcified.lesion.array > 0
    before, after = (v.array[lesion].mean() for v in (calcified.source, calcified.volume))
    assert before < 150 and after > 200
    assert calcified.report.passed
    recorded = calcified.report.parameters
    assert recorded["label"] == "bone" and recorded["shape"] == "lobulated" and recorded["size_mm"] == 24
    assert recorded["volume_ml"] == pytest.approx(lesion.sum() * 27 / 1000)


def test_the_same_seed_makes_the_same_lesion(abdomen, tissues, calcified):
    again = insert_lesion(
        abdomen,
        at=calcified.report.parameters["at_ras_mm"],
        shape="lobulated",
        size_mm=24,
        label="bone",
        labels=tissues,
        **FAST,
    )
    assert np.array_equal(again.lesion.array, calcified.lesion.array)
    assert np.array_equal(again.volume.array, calcified.volume.array)


def test_a_lesion_can_be_taken_out_again(calcified):
    """Its mask with the label of the surroundings: the tissue closes over it."""
    out = insert_lesion(calcified.volume, lesion=calcified.lesion, label="soft tissue", **FAST)
    assert unchanged_outside(out)
    lesion = calcified.lesion.array > 0
    assert abs(out.volume.array[lesion].mean() - calcified.source.array[lesion].mean()) < 60
    assert out.report.parameters["shape"] == "painted"
    assert out.report.parameters["tissues"] == "found by ct-tissue"


def test_a_contrast_keeps_the_texture(abdomen, tissues):
    at = inside_of(tissues, 2)
    made = insert_lesion(abdomen, at=at, size_mm=27, labels=tissues, **CHANGE)
    assert unchanged_outside(made)
    lesion = made.lesion.array > 0
    shift = made.volume.array[lesion].astype(int) - made.source.array[lesion]
    assert shift.max() == 60 and shift.min() >= 15
    assert made.halo_voxels == (2, 2, 2) and made.report.preset is None
    core = maximum_filter(~lesion, 3) == 0
    assert core.sum() > 20
    assert made.volume.array[core].std() == pytest.approx(made.source.array[core].std(), rel=0.3)


def test_fractions_change_no_farther_than_whole_numbers(abdomen, tissues):
    """Where nothing is rounded, the least that a filter spreads shows."""
    noise = np.random.default_rng(0).normal(0, 1, abdomen.shape)
    image = abdomen.with_array((0.01 * abdomen.array + noise).astype(np.float32))
    at = inside_of(tissues, 2)
    assert unchanged_outside(insert_lesion(image, at=at, size_mm=27, labels=tissues, **CHANGE))


def test_an_organ_may_have_the_models_name():
    """Labels of FreeSurfer, which the model merges: the names of both say where."""
    left = np.zeros((30, 30, 30), np.uint8)
    left[3:-3, 3:-3, 3:-3] = 3
    left[6:-6, 6:-6, 6:-6] = 2
    names = {2: "Left-Cerebral-White-Matter", 3: "Left-Cerebral-Cortex"}
    brain = LabelMap(left, np.eye(4), names)
    image = Volume(np.where(left == 2, 110.0, np.where(left == 3, 70.0, 0.0)), np.eye(4), "T1w")
    options = dict(model="mr-brain", size_mm=6, **CHANGE)
    made = [
        insert_lesion(image, organ=organ, labels=brain, **options)
        for organ in ("white matter", "left cerebral white matter", 2)
    ]
    assert all(np.array_equal(other.volume.array, made[0].volume.array) for other in made)
    assert (left[made[0].lesion.array > 0] == 2).all()
    for organ, labels, words in (
        ("hippocampus", brain, "no organ 'hippocampus'"),
        ("white matter", None, "'brain-segmenter' reads images of .* give a larger one"),
    ):
        with pytest.raises(InputError, match=words):
            insert_lesion(image, organ=organ, labels=labels, **options)


def test_label_and_contrast_go_together(abdomen, tissues):
    at = inside_of(tissues, 1)
    options = dict(at=at, size_mm=15, label="soft tissue", labels=tissues, **FAST)
    plain = insert_lesion(abdomen, **options)
    brighter = insert_lesion(abdomen, contrast=50, **options)
    where = plain.lesion.array > 0
    shift = brighter.volume.array[where].astype(int) - plain.volume.array[where]
    assert 30 < shift.mean() <= 50 and unchanged_outside(brighter)


def test_an_organ_gets_its_lesion_where_the_seed_says(abdomen, tissues):
    first, again, other = (
        insert_lesion(abdomen, organ="lung or gas", size_mm=9, labels=tissues, **{**CHANGE, "seed": seed})
        for seed in (1, 1, 2)
    )
    for made in (first, other):
        assert (tissues.array[made.lesion.array > 0] == 4).all() and unchanged_outside(made)
    assert np.array_equal(first.lesion.array, again.lesion.array)
    assert not np.array_equal(first.lesion.array, other.lesion.array)


def test_without_labels_the_model_finds_them(abdomen, tissues):
    at = inside_of(tissues, 2)
    made = insert_lesion(abdomen, at=at, size_mm=12, organ="soft tissue", **CHANGE)
    assert unchanged_outside(made)
    assert made.report.parameters["tissues"] == "found by ct-tissue"


def test_a_segmentation_of_organs_can_tell_the_place(abdomen, tissues):
    """Numbers of TotalSegmentator; the model gets them through the mapping."""
    array = np.where(tissues.array == 2, 5, 0).astype(np.uint8)
    organs = LabelMap(array, tissues.affine)
    made = insert_lesion(
        abdomen, organ="liver", size_mm=9, labels=organs, mapping="totalsegmentator", fill="fat", **CHANGE
    )
    assert (array[made.lesion.array > 0] == 5).all()
    assert made.report.parameters["host"] == "'liver'"


# On other grids, in other images


@pytest.mark.parametrize("affine", [left_handed_oblique((2.0, 2.0, 3.0)), np.diag([-2.5, 2.5, 5, 1])])
def test_oblique_and_thick_grids_are_kept(affine):
    mask = trunk((24, 22, 12), affine)
    image = generate(mask, **QUICK).volume
    at = affine[:3, :3] @ [6, 11, 6] + affine[:3, 3]
    made = insert_lesion(image, at=at, size_mm=14, label="bone", labels=mask, **FAST)
    assert made.volume.geometry.is_close(image.geometry, 0) and unchanged_outside(made)
    center = np.argwhere(made.lesion.array).mean(0)
    assert np.abs(center - [6, 11, 6]).max() < 1.5


def test_a_single_slice_is_kept(abdomen, tissues):
    low, high = (0, 0, 20), (*abdomen.shape[:2], 21)
    image, mask = crop(abdomen, low, high), crop(tissues, low, high)
    at = inside_of(mask, 2)
    made = insert_lesion(image, at=at, size_mm=15, label="bone", labels=mask, **FAST)
    assert made.volume.shape == image.shape and unchanged_outside(made)
    assert made.halo_voxels[2] == 0
    assert made.volume.array[made.lesion.array > 0].mean() > 150


def test_a_lesion_in_an_mr_image_keeps_its_scale(hippocampus):
    """A tenth of the values: generated voxels have to fit them."""
    image = hippocampus.with_array((hippocampus.array / 10).astype(np.float32))
    labels = read_label_map(sample("hippocampus_mask.nii.gz"))
    at = inside_of(labels, 1)
    made = insert_lesion(image, at=at, size_mm=8, label="background", labels=labels, model="mr-hippocampus", **FAST)
    assert made.volume.modality == "T1w" and made.volume.array.dtype == np.float32
    assert unchanged_outside(made)
    lesion = made.lesion.array > 0
    assert 0.5 < made.volume.array[lesion].mean() / image.array[lesion].mean() < 2


def test_a_sclerosis_is_a_darker_hippocampus(hippocampus):
    labels = read_label_map(sample("hippocampus_mask.nii.gz"))
    level = hippocampus.array[labels.array == 1].mean()
    made = insert_lesion(
        hippocampus,
        organ="anterior hippocampus",
        size_mm=5,
        labels=labels,
        model="mr-hippocampus",
        contrast=-0.3 * level,
        seed=3,
        device="cpu",
    )
    lesion = made.lesion.array > 0
    assert (labels.array[lesion] == 1).all() and made.volume.array.min() >= 0
    assert made.volume.array[lesion].mean() < 0.85 * hippocampus.array[lesion].mean()


# What cannot be done


def test_the_input_is_never_written_into(abdomen, tissues):
    before = abdomen.array.copy(), tissues.array.copy()
    made = insert_lesion(abdomen, at=inside_of(tissues, 2), labels=tissues, **CHANGE)
    made.volume.array[made.lesion.array > 0]  # readable after the canvas was closed
    assert np.array_equal(abdomen.array, before[0]) and np.array_equal(tissues.array, before[1])


def test_a_stopped_insertion_raises_what_stopped_it(abdomen, tissues):
    def stop(progress):
        if progress.stage != "finding the place":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        insert_lesion(
            abdomen, at=inside_of(tissues, 2), size_mm=12, label="bone", labels=tissues, progress=stop, **FAST
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at": None}, "not said where"),
        ({"contrast": None}, "not said what"),
        ({"contrast": 0.0}, "not said what"),
        ({"contrast": np.nan}, "The contrast is nan"),
        ({"size_mm": -1}, "size of the lesion is -1 mm"),
        ({"seed": -1}, "The seed is -1"),
        ({"at": (1, 2)}, "not three numbers"),
        ({"at": (1, 2, np.inf)}, "not three numbers"),
        ({"at": (0, 0, 9999)}, "outside of the image"),
        ({"label": "liver"}, "no label 'liver'; choose from 1 fat"),
        ({"shape": "banana"}, "no shape 'banana'"),
        ({"organ": "spleen"}, "no organ 'spleen' in the labels"),
        ({"organ": "lung or gas", "at": None, "size_mm": 200}, "200 mm is larger than 'lung or"),
        ({"size_mm": 5000}, "larger than the body"),
    ],
)
def test_what_cannot_be_done_ends_in_a_sentence(abdomen, tissues, change, words):
    options = {"at": inside_of(tissues, 2), "labels": tissues, **CHANGE, **change}
    with pytest.raises(InputError, match=words) as caught:
        insert_lesion(abdomen, **options)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_places_and_masks_that_do_not_fit_end_in_a_sentence(abdomen, tissues):
    at, grid = inside_of(tissues, 2), abdomen.geometry
    air = np.argwhere(tissues.array == 0)[0]
    outside = grid.affine[:3, :3] @ air + grid.affine[:3, 3]
    with pytest.raises(InputError, match="does not lie inside the body"):
        insert_lesion(abdomen, at=outside, labels=tissues, **CHANGE)
    empty = LabelMap(np.zeros(grid.shape, np.uint8), grid.affine)
    with pytest.raises(InputError, match="mask of the lesion is empty"):
        insert_lesion(abdomen, lesion=empty, labels=tissues, **CHANGE)
    affine = tissues.affine @ [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    small = crop(LabelMap(tissues.array, affine), (0, 0, 0), (9, 9, 9))
    with pytest.raises(InputError, match="mask of the lesion .* another grid"):
        insert_lesion(abdomen, lesion=small, labels=tissues, **CHANGE)
    with pytest.raises(InputError, match="label volume .* another grid"):
        insert_lesion(abdomen, at=at, labels=small, **CHANGE)
    with pytest.raises(InputError, match="leave out the place"):
        insert_lesion(abdomen, at=at, lesion=tissues, labels=tissues, **CHANGE)
    with pytest.raises(InputError, match="has that label already"):
        insert_lesion(abdomen, at=at, size_mm=9, label="soft tissue", labels=tissues, **FAST)


def test_models_that_do_not_fit_end_in_a_sentence(abdomen, hippocampus):
    at = abdomen.affine[:3, 3]
    with pytest.raises(InputError, match="is CT, but the model 'mr-hippocampus' makes T1w"):
        insert_lesion(abdomen, at=at, model="mr-hippocampus", **CHANGE)
    with pytest.raises(InputError, match="is T1w, but the model 'ct-tissue' makes CT"):
        insert_lesion(hippocampus, at=at, **CHANGE)
    with pytest.raises(PackageError, match="no model named 'nothing'"):
        insert_lesion(abdomen, at=at, model="nothing", **CHANGE)
    with pytest.raises((InputError, PackageError), match="medgen-features|hippocampus-segmenter"):
        insert_lesion(hippocampus, at=at, model="hippocampus-segmenter", **CHANGE)


def test_a_lesion_that_cannot_be_seen_is_reported(abdomen, tissues):
    at = inside_of(tissues, 2)
    made = insert_lesion(abdomen, at=at, size_mm=18, labels=tissues, **{**CHANGE, "contrast": 1.0})
    assert any("hardly differs" in sentence for sentence in made.report.sentences)
    clear = insert_lesion(abdomen, at=at, size_mm=18, labels=tissues, **{**CHANGE, "contrast": 300})
    assert not any("hardly differs" in sentence for sentence in clear.report.sentences)
