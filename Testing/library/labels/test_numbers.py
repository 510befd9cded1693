"""Labels without names: what their numbers were read as is said, and labels that do not look like it are refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, crop, occupied
from MedGenLib.io.files import read_label_map
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.numbers import check_numbers, shapes_of
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.model_labels import model_labels

SAMPLES = Path(__file__).resolve().parents[3] / "Resources" / "SampleData"
MESHNET = dict(zip(range(1, 18), (1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 3, 3, 10, 11, 12, 13, 14), strict=True))
"""Numbers of MeshNet's 17 classes in those of mr-brain."""


def unnamed(labels, numbers=None):
    """Only these labels, with these numbers, without names."""
    numbers = numbers or {value: value for value in labels.values()}
    array = np.zeros(labels.shape, np.uint8)
    for value, number in numbers.items():
        array[labels.array == value] = number
    return replace(labels, array=array, names={})


def in_numbers_of(model, labels, mapping):
    return unnamed(map_labels(labels, find(model).input.vocabulary, mapping, strict=False)[0])


def balls(*centers, radius=8, spacing=3.0):
    """Organs that touch nothing, numbered from 1, as in a subset of TotalSegmentator."""
    array = np.zeros((48, 48, 40), np.uint8)
    for number, center in enumerate(centers, 1):
        distance = np.linalg.norm(np.indices(array.shape).T - center, axis=-1).T
        array[distance < radius] = number
    return LabelMap(array, np.diag([spacing] * 3 + [1.0]))


def tumor(numbers):
    """A core in an enhancing rim in edema, inside of a head's field of view."""
    array = np.zeros((80, 90, 80), np.uint8)
    distance = np.linalg.norm(np.indices(array.shape).T - (25, 40, 45), axis=-1).T
    for radius, number in zip((16, 10, 7), numbers, strict=True):
        array[distance < radius] = number
    return LabelMap(array, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def brain():
    return read_label_map(SAMPLES / "brain_labels.seg.nrrd")


@pytest.fixture(scope="module")
def torso():
    return read_label_map(SAMPLES / "ct_tissue_mask.nii.gz")


def found(mask, model, mapping=None):
    return model_labels(mask, find(model), mapping)[2]


def refusal(mask, model, mapping=None):
    with pytest.raises(InputError) as caught:
        model_labels(mask, find(model), mapping)
    assert "\n" not in str(caught.value) and "--map" in str(caught.value)
    return str(caught.value)


def test_numbers_of_a_torso_are_stated(torso):
    (finding,) = found(torso, "ct-tissue")
    assert (finding.level, finding.code) == ("warning", "read-by-number")
    assert "1 = fat, 2 = soft tissue, 3 = bone, 4 = lung or gas" in finding.sentence and "--map" in finding.sentence


def test_numbers_of_a_brain_and_a_hippocampus_are_accepted(brain):
    assert [f.code for f in found(in_numbers_of("mr-brain", brain, None), "mr-brain")] == ["read-by-number"]
    hippocampus = read_label_map(SAMPLES / "hippocampus_mask.nii.gz")
    assert [f.code for f in found(hippocampus, "mr-hippocampus")] == ["read-by-number"]


def test_a_slice_or_a_corner_of_a_body_is_accepted(torso):
    middle = [n // 2 for n in torso.shape]
    for axis in range(3):
        low, high = [0, 0, 0], list(torso.shape)
        low[axis], high[axis] = middle[axis], middle[axis] + 1
        assert [f.level for f in found(crop(torso, low, high), "ct-tissue")] == ["warning"]
    assert [f.level for f in found(crop(torso, (0, 0, 0), middle), "ct-tissue")] == ["warning"]


def test_what_a_small_field_of_view_leaves_of_a_bone_may_be_thin(torso):
    part = crop(torso, (76, 10, 28), (102, 26, 47))
    assert 0 < shapes_of(part)[3].volume_ml < 5 and shapes_of(part)[3].thickness_mm < 2.7 / 1.6
    assert [f.code for f in found(part, "ct-tissue")] == ["read-by-number"]


@pytest.mark.parametrize(
    "rules", [{1: 1, 2: 2, 3: 3, 4: 4}, "model", {"table": "model"}], ids=["rules", "table", "entry"]
)
def test_stated_numbers_are_not_doubted(torso, rules):
    assert found(torso, "ct-tissue", rules) == []
    organs = balls((12, 14, 20), (34, 14, 20), (12, 34, 20), (34, 34, 20))
    labels, report, findings = model_labels(organs, find("ct-tissue"), rules)
    assert findings == [] and report.by_number == []
    assert np.array_equal(labels.array, organs.array)


def test_names_are_not_doubted(brain):
    assert found(brain, "mr-brain") == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_organs_are_no_tissues(count):
    organs = balls(*((12, 14, 20), (34, 14, 20), (12, 34, 20), (34, 34, 20))[:count])
    assert "1 = fat" in refusal(organs, "ct-tissue") and "totalsegmentator" in refusal(organs, "ct-tissue")


@pytest.mark.parametrize("numbers", [(2, 1, 4), (2, 4, 1), (2, 3, 1), (1, 2, 3)])
@pytest.mark.parametrize("model", ["mr-brain", "ct-tissue", "mr-hippocampus"])
def test_a_tumor_is_neither_brain_nor_body(model, numbers):
    mask = tumor(numbers)
    if model == "mr-hippocampus":
        mask = unnamed(mask, {1: 1, 2: 2})
    assert "they do not look like that" in refusal(mask, model)


def test_a_tumor_names_the_data_set_that_numbers_so():
    assert "BraTS (1 = necrotic tumor core)" in refusal(tumor((2, 4, 1)), "mr-brain")


@pytest.mark.parametrize("values", [(2, 3), (2, 3, 4), (2, 3, 17, 18), (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 16, 17, 18)])
def test_half_a_brain_of_freesurfer_is_refused(brain, values):
    assert "they do not look like that" in refusal(unnamed(brain, dict(zip(values, values, strict=True))), "mr-brain")


@pytest.mark.parametrize("values", [(2, 3), (2, 3, 4), (3,), (2, 4)])
def test_half_a_brain_of_freesurfer_is_no_torso(brain, values):
    assert "they do not look like that" in refusal(unnamed(brain, dict(zip(values, values, strict=True))), "ct-tissue")


@pytest.mark.parametrize("values", [(4,), (3,), (2,), (17,), (18,), (17, 18), (10, 11, 12, 13), (11, 12)])
@pytest.mark.parametrize("is_cropped", [False, True], ids=["whole field of view", "cropped to the labels"])
def test_structures_of_freesurfer_are_no_brain(brain, values, is_cropped):
    """Each has the number of a structure of mr-brain whose usual volume it may have."""
    mask = unnamed(brain, dict(zip(values, values, strict=True)))
    if is_cropped:
        mask = crop(mask, *zip(*occupied(mask.array), strict=True))
    assert "they do not look like that" in refusal(mask, "mr-brain")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_organ_that_the_border_cuts_is_no_body(number):
    organ = balls((24, 24, 20), radius=12)
    half = crop(unnamed(organ, {1: number}), (0, 0, 20), organ.shape)
    assert "a body has more labels than one" in refusal(half, "ct-tissue")


@pytest.mark.parametrize("cut", [2, 6, 10])
def test_touching_organs_that_the_border_cuts_deeply_are_no_body(cut):
    organs = balls((14, 24, 20), (34, 24, 20), radius=12)
    near = crop(organs, (2 + cut, 12 + cut // 2, 8 + cut), (46 - cut, 36 - cut // 2, 32 - cut // 2))
    assert "they do not look like that" in refusal(near, "ct-tissue")


def test_a_mask_of_the_whole_body_is_no_fat():
    body = unnamed(balls((24, 24, 20), radius=18, spacing=5.0), {1: 1})
    assert "a body has more labels than one" in refusal(body, "ct-tissue")
    assert [f.code for f in found(unnamed(body, {1: 2}), "ct-tissue")] == ["read-by-number"]  # homogeneous


@pytest.mark.parametrize("order", [("csf", "gm", "wm"), ("gm", "wm", "csf")], ids=["FAST", "SPM"])
def test_tissue_maps_in_another_order_are_refused(brain, order):
    tissues = {"wm": (2, 41), "gm": (3, 42), "csf": (4, 43, 14, 15, 24)}
    numbers = {value: n for n, name in enumerate(order, 1) for value in tissues[name]}
    assert "they do not look like that" in refusal(unnamed(brain, numbers), "mr-brain")


def test_classes_of_meshnet_are_refused(brain):
    """Its first three numbers are those of mr-brain, the others are not."""
    mine = in_numbers_of("mr-brain", brain, None)
    back = {number: value for value, number in sorted(MESHNET.items(), reverse=True)}
    mask = unnamed(mine, {number: back[number] for number in mine.values() if number in back})
    assert "brainchop (MeshNet)" in refusal(mask, "mr-brain")


def test_measures_of_shapes():
    array = np.zeros((20, 20, 20), np.uint8)
    array[2:12, 2:12, 2:12] = 1
    array[12:14, 2:12, 2:12] = 2
    one = shapes_of(LabelMap(array, np.diag([1.0, 1.0, 2.0, 1.0])))[1]
    # A block of 10 x 10 x 20 mm; one face of 200 mm2 of 1000 touches label 2.
    assert one.volume_ml == pytest.approx(2) and one.thickness_mm == pytest.approx(2 * 2000 / 1000)
    assert one.beside[2] == pytest.approx(0.2) and one.beside[0] == pytest.approx(0.8) and not one.border_mm2
    assert shapes_of(LabelMap(array[:, :10], np.eye(4)))[1].border_mm2 == 100
    assert shapes_of(LabelMap(np.zeros((3, 3, 3), int), np.eye(4))) == {}


@pytest.mark.skipif("MEDGEN_DATA" not in os.environ, reason="real masks lie in MEDGEN_DATA")
@pytest.mark.parametrize(
    "model, pattern, mapping, count",
    [
        ("ct-tissue", "pairs_ct_mr/sts_sarcoma/*/labels.nii.gz", {5: 4, 6: 2}, 41),
        ("ct-tissue", "ct_torso_*/*/tissue.nii.gz", {5: 4}, 9),
        ("mr-brain", "mr_t1_brain/*_seg18.nii.gz", MESHNET, 58),
        ("mr-brain", "label_maps/synth*/*.nii.gz", "freesurfer", 17),
        ("mr-brain", "mr_brain_labels/*/a*seg.nii.gz", "freesurfer", 2),
        ("mr-hippocampus", "mr_hippocampus_msd/**/labels/*.nii.gz", None, 208),
    ],
)
def test_real_masks_in_the_numbers_of_the_model_are_accepted(model, pattern, mapping, count):
    paths = sorted(Path(os.environ["MEDGEN_DATA"]).glob(pattern))
    refused = []
    for path in paths:
        mask = in_numbers_of(model, read_label_map(path), mapping)
        labels, report = map_labels(mask, find(model).input.vocabulary)
        findings = check_numbers(labels, report, find(model).input.vocabulary)
        refused += [f"{path}: {f.sentence}" for f in findings if f.level == "error"]
    assert len(paths) == count and refused == []


@pytest.mark.skipif("MEDGEN_DATA" not in os.environ, reason="real masks lie in MEDGEN_DATA")
def test_real_masks_in_other_numbers_are_refused():
    data = Path(os.environ["MEDGEN_DATA"])
    brains = sorted(data.glob("mr_t1_brain/*_seg18.nii.gz"))
    assert len(brains) == 58
    for path in brains:
        refusal(read_label_map(path), "mr-brain")
    organs = read_label_map(data / "ct_torso_with_masks/totalseg_abdomen/seg.nii.gz")
    for values in ((1, 2), (2, 3), (1, 2, 3), (1, 2, 3, 4), (2, 4)):
        refusal(unnamed(organs, dict(zip(values, values, strict=True))), "ct-tissue")
