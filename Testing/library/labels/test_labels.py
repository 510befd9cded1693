"""Labels: every way to name a structure ends at the model's number, or in a sentence."""

import numpy as np
import pytest
from grids import oblique

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image, close_body
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.labels.body import fill_body
from MedGenLib.labels.mapping import map_labels, parse_mapping
from MedGenLib.labels.vocabulary import Vocabulary, table

TISSUE = Vocabulary.from_dict(
    {
        "1": {"name": "fat", "aliases": ["adipose"]},
        "2": {"name": "soft tissue"},
        "3": {"name": "bone"},
        "4": {"name": "lung or gas", "aliases": ["lung", "gas"]},
    }
)
BRAIN = Vocabulary.from_dict({"3": {"name": "Left-Cerebral-Cortex"}, "10": {"name": "Left-Thalamus"}})


def mask(*values, names=None):
    """One row of voxels for each value."""
    array = np.zeros((len(values), 2, 2), np.int32)
    array[:] = np.reshape(values, (-1, 1, 1))
    return LabelMap(array, oblique(), names or {})


def mapped(label_map, vocabulary, mapping=None):
    return map_labels(label_map, vocabulary, mapping)[0].array[:, 0, 0].tolist()


# --- Vocabulary and tables ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        (3, 3),
        ("3", 3),
        ("bone", 3),
        ("Soft_Tissue", 2),
        ("LUNG-or-gas", 4),
        ("Adipose", 1),
        ("background", 0),
        (0, 0),
        ("heart", None),
        (9, None),
    ],
)
def test_a_label_is_found_by_number_name_or_alias(key, value):
    assert TISSUE.value_of(key) == value


def test_totalsegmentator_table():
    labels = table("totalsegmentator").labels
    assert [label.value for label in labels] == list(range(1, 118))
    assert len({label.name for label in labels}) == 117
    names = table("totalsegmentator").names
    assert (names[1], names[5], names[50], names[117]) == ("spleen", "liver", "vertebrae_C1", "costal_cartilages")
    assert {label.part_of for label in labels} == {"soft tissue", "bone", "lung or gas"}
    assert all(label.part_of == "bone" for label in labels if "vertebrae" in label.name)
    assert all(label.part_of == "lung or gas" for label in labels if "lung" in label.name)


def test_freesurfer_table():
    names = table("FreeSurfer").names
    assert (names[2], names[42], names[53]) == (
        "Left-Cerebral-White-Matter",
        "Right-Cerebral-Cortex",
        "Right-Hippocampus",
    )
    assert (names[1035], names[2001]) == ("ctx-lh-insula", "ctx-rh-bankssts")
    assert (names[11101], names[14175]) == ("ctx_lh_G_and_S_frontomargin", "wm_rh_S_temporal_transverse")
    assert (names[511], names[515], names[530]) == ("Skin", "Bone-Cortical", "Optic-Nerve")
    assert names[136] == "Left-Lateral-Ventricle-choroid-plexus"  # SynthSeg's own
    assert table("freesurfer").value_of("left thalamus proper") == 10
    left = {label.name[5:] for label in table("freesurfer").labels if label.name[:5] == "Left-"}
    right = {label.name[6:] for label in table("freesurfer").labels if label.name[:6] == "Right-"}
    assert left == right


def test_unknown_table():
    with pytest.raises(InputError, match="no label table"):
        table("atlas")


# --- Mapping --------------------------------------------------------------------------------------


def test_numbers_of_the_model_are_taken_as_they_are():
    result, report = map_labels(mask(0, 1, 4), TISSUE)
    assert result.array[:, 0, 0].tolist() == [0, 1, 4]
    assert result.names == TISSUE.names and result.array.dtype == np.uint8
    assert report.mapped == {1: 1, 4: 4} and report.unmapped == []


def test_names_win_over_numbers():
    names = {1: "bone", 2: "Adipose", 30: "Segment_1"}
    assert mapped(mask(1, 2, names=names), TISSUE) == [3, 1]
    with pytest.raises(InputError, match="30"):  # a name that says nothing, an unknown number
        map_labels(mask(30, names=names), TISSUE)
    assert mapped(mask(2, names={2: "Segment_2"}), TISSUE) == [2]


def test_totalsegmentator_by_name_and_by_number():
    named = mask(5, 12, 27, names={5: "liver", 12: "lung_upper_lobe_right", 27: "vertebrae_L5"})
    assert mapped(named, TISSUE) == [2, 4, 3]
    assert mapped(mask(5, 12, 27), TISSUE, "totalsegmentator") == [2, 4, 3]


def test_freesurfer_parcels_fall_back_to_what_they_are_part_of():
    assert mapped(mask(1024, 10), BRAIN, "freesurfer") == [3, 10]
    assert mapped(mask(11146), BRAIN, "freesurfer") == [3]  # Destrieux
    white = Vocabulary.from_dict({"1": {"name": "Left-Cerebral-White-Matter"}, "2": {"name": "brain"}})
    assert mapped(mask(1004, 3025, 13146), white, "freesurfer") == [2, 1, 1]
    assert mapped(mask(7, names={7: "ctx-lh-precentral"}), BRAIN) == [3]
    assert mapped(mask(7, names={7: "Left-Thalamus-Proper"}), BRAIN) == [10]


@pytest.mark.parametrize(
    "mapping",
    [
        {"liver": "soft tissue", 5: 3, 7: "background"},
        {"Liver": 2, "5": "bone", "7": 0},
        parse_mapping(["liver=2", "5=bone", "7=0"]),
    ],
)
def test_the_users_mapping(mapping):
    assert mapped(mask(1, 5, 7, 4, names={1: "liver"}), TISSUE, mapping) == [2, 3, 0, 4]


def test_the_users_mapping_wins_over_the_table():
    mapping = parse_mapping(["totalsegmentator", "liver=bone", "1=fat"])
    assert mapped(mask(1, 5, 6), TISSUE, mapping) == [1, 3, 2]


def test_unknown_labels_are_named_with_the_way_out():
    with pytest.raises(InputError) as error:
        map_labels(mask(1, 9, 77, names={77: "tumor"}), TISSUE)
    sentence = str(error.value)
    assert "9, 77 (tumor)" in sentence and "--map 9=" in sentence
    assert "2 soft tissue" in sentence and "\n" not in sentence


def test_unknown_labels_are_reported_when_they_may_be():
    result, report = map_labels(mask(1, 9), TISSUE, strict=False)
    assert result.array[:, 0, 0].tolist() == [1, 0]
    assert report.unmapped == [9]


def test_a_mapping_to_nowhere():
    with pytest.raises(InputError, match="does not have"):
        map_labels(mask(1), TISSUE, {5: "muscle"})


@pytest.mark.parametrize("word", ["=2", "5=", ""])
def test_a_mapping_that_is_not_understood(word):
    with pytest.raises(InputError, match="not understood"):
        parse_mapping([word])


# --- The body -------------------------------------------------------------------------------------


def phantom(inside, outside, hole, spacing=2.0, shape=(40, 40, 24)):
    """A cylinder with an empty hole that runs through both ends, and a thin table below it."""
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    distance = np.hypot(i - 20, j - 22)
    plane = np.where(distance < 13, inside, outside).astype(np.float32)
    plane[distance < 5] = hole
    plane[:, 4] = inside
    array = np.repeat(plane[..., None], shape[2], axis=2)
    body = np.repeat((distance < 13)[..., None], shape[2], axis=2)
    return Volume(array, np.diag([spacing, spacing, spacing, 1.0])), body


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("modality", ["CT", None])
def test_envelope_fills_air_inside_and_leaves_the_table_out(modality):
    volume, body = phantom(40.0, -1000.0, -1000.0)
    volume = volume.with_array(volume.array, modality)
    envelope = body_envelope_from_image(volume)
    assert dice(envelope.array > 0, body) > 0.97
    assert not envelope.array[:, 4].any()
    assert envelope.array[20, 22].all()


def test_envelope_of_a_noisy_mr():
    volume, body = phantom(300.0, 0.0, 0.0)
    noise = np.random.default_rng(0).normal(0, 10, (2, *volume.shape))
    noisy = np.hypot(volume.array + noise[0], noise[1])  # Rician, as the magnitude of MR is
    assert dice(body_envelope_from_image(volume.with_array(noisy)).array > 0, body) > 0.96


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_envelope_of_a_single_slice(axis):
    volume, body = phantom(40.0, -1000.0, -1000.0)
    move = {0: (2, 0, 1), 1: (0, 2, 1), 2: (0, 1, 2)}[axis]
    part = Volume(volume.array[..., :1].transpose(move), volume.affine, "CT", "HU")
    envelope = body_envelope_from_image(part)
    assert envelope.shape == part.shape
    assert dice(envelope.array > 0, body[..., :1].transpose(move)) > 0.97


def test_no_body():
    with pytest.raises(InputError, match="no body"):
        body_envelope_from_image(Volume(np.full((8, 8, 8), -1000.0), np.eye(4), "CT", "HU"))


def test_closing_bridges_gaps_and_keeps_every_label():
    array = np.zeros((40, 40, 24), np.uint8)
    array[10:18, 10:30], array[23:31, 10:30] = 3, 4  # two organs, 10 mm apart
    labels = LabelMap(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    body = close_body(labels)
    assert body.array[array > 0].all()
    assert body.array[20, 14:26].all()
    assert not body.array[:6].any() and not body.array[:, 36:].any()
    filled = fill_body(labels, body, 2)
    assert filled.values() == [2, 3, 4] and filled.array[20, 20, 12] == 2
    np.testing.assert_array_equal(filled.array[array > 0], array[array > 0])


def test_an_empty_mask_has_no_body():
    with pytest.raises(InputError, match="empty"):
        close_body(LabelMap(np.zeros((4, 4, 4), np.uint8), np.eye(4)))
