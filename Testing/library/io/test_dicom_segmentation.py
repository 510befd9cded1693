"""Writing DICOM Segmentation objects, and the codes of label names."""

import json
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicoms import FOREIGN, FRAME, PRIVATE, SERIES, STUDY, judge, patient_series, rotation

import MedGenLib
from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom import read_facts, read_series, write_segmentation, write_series
from MedGenLib.io.dicom.terms import sentence_on, term_of
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.labels.vocabulary import TABLES, table
from MedGenLib.packages.catalogue import catalogue

POSITIONS = [0.0, 2.0, 4.0, 6.0]
NAMES = {2: "kidney_left", 7: "anterior hippocampus", 300: "ctx-lh-precentral"}


@pytest.fixture(params=["upright", "oblique"])
def source(tmp_path, request):
    orientation = rotation() if request.param == "oblique" else (1.0, 0, 0, 0, 1, 0)
    return patient_series(tmp_path / "s", POSITIONS, orientation)


def labels_on(volume, names=NAMES):
    array = np.zeros(volume.shape, np.uint16)
    array[2:5, 3:6, 1:3] = 2
    array[6:9, 2:4, 0:2] = 7
    array[1, 8, 3] = 300
    return LabelMap(array, volume.affine, dict(names))


def labels_in(path):
    """Label value -> sorted positions (LPS mm) of its voxels, as read by highdicom."""
    read = highdicom.seg.segread(path)
    volume = read.get_volume(combine_segments=True)
    values = {s.SegmentNumber: int(s.SegmentDescription.split()[1]) for s in read.SegmentSequence}
    return {value: positions(volume.array == number, volume.affine) for number, value in values.items()}


def positions(mask, affine):
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return points[np.lexsort(np.round(points, 4).T)]


def check_same(labels, path):
    found = labels_in(path)
    assert sorted(found) == labels.values()
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    for value, points in found.items():
        np.testing.assert_allclose(points, positions(labels.array == value, to_lps @ labels.affine), atol=1e-3)


def test_labels_survive_a_round_trip(source, tmp_path):
    labels = labels_on(read_volume(source))
    (path,) = write_segmentation(labels, tmp_path / "seg", source=source)
    check_same(labels, path)
    assert judge(path) == []


def test_labels_on_another_grid(source, tmp_path):
    image = read_volume(source)
    geometry = image.geometry.with_spacing((0.5, 0.7, 1.1))
    labels = labels_on(Volume(np.zeros(geometry.shape, np.float32), geometry.affine))
    flipped = LabelMap(np.flip(labels.array, 0).copy(), _flipped(labels), labels.names)
    (path,) = write_segmentation(flipped, tmp_path / "seg", source=source)
    check_same(labels, path)
    assert judge(path) == []


def _flipped(image):
    """Affine of the same voxels after flipping the first axis."""
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (image.shape[0] - 1)
    affine[:3, 0] *= -1
    return affine


def test_it_refers_to_its_images_and_copies_no_other_attribute(source, tmp_path):
    labels = labels_on(read_volume(source))
    (path,) = write_segmentation(labels, tmp_path / "seg", source=source, description="Nieren")
    data = pydicom.dcmread(path)
    assert (data.StudyInstanceUID, data.FrameOfReferenceUID) == (STUDY, FRAME)
    assert str(data.PatientName) == "Muster^Erika" and data.Modality == "SEG"
    referenced = data.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == SERIES
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        f"{SERIES}.{number}" for number in range(1, 5)
    }
    assert "ContentQualification" not in data and data.SeriesDescription == "MedGen labels: Nieren"
    content = path.read_bytes()
    assert not any(text.encode() in content for text in (*FOREIGN.values(), PRIVATE, "GEHEIM"))


def test_segments_have_names_and_codes(source, tmp_path):
    labels = labels_on(read_volume(source))
    facts = {"model": "hippocampus-segmenter", "version": "1.0.0"}
    (path,) = write_segmentation(labels, tmp_path / "seg", source=source, facts=facts)
    kidney, hippocampus, cortex = pydicom.dcmread(path).SegmentSequence
    code = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert kidney.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    code = hippocampus.SegmentedPropertyTypeCodeSequence[0]
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Anterior"
    assert cortex.SegmentLabel == "ctx-lh-precentral"
    assert cortex.SegmentDescription == "Label 300 of the mask"
    assert {s.SegmentAlgorithmType for s in (kidney, hippocampus, cortex)} == {"AUTOMATIC"}
    assert kidney.SegmentAlgorithmName == "hippocampus-segmenter"
    assert read_facts(path) == facts and judge(path) == []


def test_labels_of_a_synthetic_image_are_marked(source, tmp_path):
    image = read_volume(source)
    write_series(image, tmp_path / "ct", source=source, facts={"model": "m"})
    (path,) = write_segmentation(labels_on(image), tmp_path / "seg", source=tmp_path / "ct")
    data = pydicom.dcmread(path)
    assert data.SeriesDescription.startswith("SYNTHETIC MedGen labels")
    assert data.ContentQualification == "RESEARCH"
    assert data.StudyInstanceUID == STUDY and judge(path) == []


def test_a_segmentation_in_the_folder_is_skipped_when_reading(source, tmp_path):
    image = read_volume(source)
    write_segmentation(labels_on(image), source / "seg", source=source)
    np.testing.assert_array_equal(read_series(source).array, image.array)


def test_invalid_input_is_refused(source, tmp_path, monkeypatch):
    image = read_volume(source)
    empty = LabelMap(np.zeros(image.shape, np.uint8), image.affine)
    with pytest.raises(InputError, match="label volume is empty"):
        write_segmentation(empty, tmp_path / "seg", source=source)
    with pytest.raises(InputError, match="belongs to an image series"):
        write_segmentation(labels_on(image), tmp_path / "seg", source=None)
    far = LabelMap(labels_on(image).array, image.affine + 500 * np.eye(4, k=3))
    with pytest.raises(InputError, match="outside the images"):
        write_segmentation(far, tmp_path / "seg", source=source)
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg" / "old").touch()
    with pytest.raises(InputError, match="holds files already"):
        write_segmentation(labels_on(image), tmp_path / "seg", source=source)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(InputError, match="needs the Python package highdicom"):
        write_segmentation(labels_on(image), tmp_path / "other", source=source)
    assert not (tmp_path / "other").exists()


def test_the_command_lists_labels_without_a_code(source, tmp_path, capsys):
    labels = labels_on(read_volume(source), {2: "liver", 7: "gizmo"})
    path = write_volume(labels, tmp_path / "labels.nrrd")
    words = ["dicom", str(path), "--labels", "-o", str(tmp_path / "seg")]
    assert main(words) == 2
    assert "belongs to an image series" in capsys.readouterr().err
    assert main([*words, "--like", str(source)]) == 0
    printed = capsys.readouterr()
    assert "Wrote 1 DICOM file into" in printed.out
    assert "gizmo (Tissue), label 300 (Tissue)" in printed.err and "liver" not in printed.err
    assert "give the origin of the numbers" in printed.err
    check_same(labels, tmp_path / "seg" / "segmentation.dcm")


@pytest.mark.parametrize(("whose", "named"), [("ct-tissue", "soft tissue"), ("totalsegmentator", "kidney_right")])
def test_the_command_names_labels_without_names(tmp_path, capsys, whose, named):
    source = patient_series(tmp_path / "s", POSITIONS, (1.0, 0, 0, 0, 1, 0))
    labels = labels_on(read_volume(source), {})
    labels = labels.with_array(np.where(labels.array == 300, 0, labels.array))
    path = write_volume(labels, tmp_path / "labels.nii.gz")
    words = ["dicom", str(path), "--like", str(source), "-o", str(tmp_path / "seg"), "--names"]
    assert main([*words, whose]) == 2
    assert "--names is for label volumes" in capsys.readouterr().err
    assert main([*words, "gizmo", "--labels"]) == 2
    assert 'names of "gizmo" are unknown; choose one of' in capsys.readouterr().err
    assert main([*words, whose, "--labels"]) == 0
    assert "--names" not in capsys.readouterr().err
    file = tmp_path / "seg" / "segmentation.dcm"
    assert pydicom.dcmread(file).SegmentSequence[0].SegmentLabel == named
    assert judge(file) == []


def test_names_in_the_file_take_precedence(tmp_path):
    source = patient_series(tmp_path / "s", POSITIONS, (1.0, 0, 0, 0, 1, 0))
    path = write_volume(labels_on(read_volume(source), {2: "liver"}), tmp_path / "labels.nrrd")
    assert (
        main(
            ["dicom", str(path), "--labels", "--names", "ct-tissue", "--like", str(source), "-o", str(tmp_path / "seg")]
        )
        == 0
    )
    segments = pydicom.dcmread(tmp_path / "seg" / "segmentation.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["liver", "label 7", "label 300"]


# --- Terms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, meaning, modifiers",
    [
        ("Left-Hippocampus", "Hippocampus", ["Left"]),
        ("rib_right_12", "Twelfth rib", ["Right"]),
        ("vertebrae_L5", "L5 vertebra", []),
        ("lung or gas", "Gas", []),
        ("Fat", "Fat", []),
        ("lung_upper_lobe_left", "Upper lobe of lung", ["Left"]),
        ("posterior hippocampus", "Hippocampus", ["Posterior"]),
        ("Skull", "Skull", []),
        ("Right-Cerebral-White-Matter", "Cerebral White Matter", ["Right"]),
        ("atrial_appendage_left", "Left auricular appendage", []),
    ],
)
def test_names_have_codes(name, meaning, modifiers):
    term = term_of(name)
    assert term.is_own and term.type.meaning == meaning
    assert [modifier.meaning for modifier in term.modifiers] == modifiers


def test_parts_have_the_code_of_the_whole_and_unknown_names_that_of_tissue():
    term = term_of("ctx-rh-precuneus")
    assert (term.type.meaning, term.modifiers[0].meaning, term.is_own) == ("Cerebral Gray Matter", "Right", False)
    assert term_of("gizmo").type.meaning == "Tissue" and not term_of("gizmo").is_own
    many = LabelMap(np.arange(24).reshape(2, 3, 4), np.eye(4))
    (sentence,) = sentence_on(many)
    assert "label 1 (Tissue)" in sentence and "and 15 more" in sentence
    assert sentence_on(LabelMap(np.ones((2, 2, 2), int), np.eye(4), {1: "bone"})) == []


def test_all_labels_of_our_models_and_of_totalsegmentator_have_codes():
    names = [
        label.name for model in catalogue() if model.input.kind == "labels" for label in model.input.labels.values()
    ]
    assert len(names) >= 6
    names += table("totalsegmentator").names.values()
    assert [name for name in names if not term_of(name).is_own] == []


def test_most_labels_of_freesurfer_have_a_code():
    names = list(table("freesurfer").names.values())
    nothing = [name for name in names if term_of(name).type.meaning == "Tissue"]
    assert len(nothing) <= 20, nothing


def test_codes_agree_with_the_standard():
    """Codes in pydicom's copy of PS3.16 have the same meaning there."""
    from pydicom.sr._concepts_dict import concepts

    path = Path(MedGenLib.__path__[0]) / "labels" / "tables" / "dicom_terms.json"
    rows = json.loads(path.read_text("utf-8"))["terms"]
    meanings = {}
    for scheme in ("SCT", "DCM"):
        for entry in concepts[scheme].values():
            for value, (meaning, _) in entry.items():
                meanings.setdefault((scheme, value), set()).add(_plain(meaning))
    known = [row for row in rows if (row.get("scheme", "SCT"), row["code"]) in meanings]
    assert len(known) >= len(rows) - 18
    for row in known:
        assert _plain(row["meaning"]) in meanings[row.get("scheme", "SCT"), row["code"]], row
    names = [name for row in rows for name in row["names"]]
    assert len(TABLES) == 4 and len(names) == len(set(names))


def _plain(meaning):
    for frame in ("structure of ", " structure", " (body)", " (body structure)"):
        meaning = meaning.lower().replace(frame, "")
    return meaning
