"""De-identification: identifiers are removed, and references between objects are preserved."""

import json

import numpy as np
import pydicom
import pytest
from dicoms import MARKS, judge, patient_series, rotation

from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.dicom import read_facts, read_series, write_segmentation, write_series
from MedGenLib.io.files import read_volume, write_volume

FACTS = {
    "model": "head-mr-to-ct",
    "version": "1.0.0",
    "seed": 1,
    "created": "2024-02-29T11:22:33Z",
    "inputs": [{"name": "Muster_Erika.nii.gz", "sha256": "4711" * 16, "role": "image"}],
    "checks": ["Muster_Erika.nii.gz does not state its orientation."],
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path):
    return patient_series(tmp_path / "s", [0, 2, 4], rotation())


def written(tmp_path, source, name="out", **options):
    return write_series(
        read_volume(source),
        tmp_path / name,
        source=source,
        facts=FACTS,
        description="Erika Muster",
        deidentify=True,
        **options,
    )


def test_all_identifiers_are_removed(tmp_path, source):
    files = written(tmp_path, source)
    mask = LabelMap(read_volume(source).array > 15, read_volume(source).affine, {1: "bone"})
    files += write_segmentation(
        mask, tmp_path / "seg", source=source, facts=FACTS, description="Erika Muster", deidentify=True
    )
    for path in files:
        content = path.read_bytes()
        assert [mark for mark in MARKS if mark in content] == []
        data = pydicom.dcmread(path)
        assert not any(element.tag.is_private for element in data.iterall())
        assert (data.PatientIdentityRemoved, data.StudyDate, data.PatientSex) == ("YES", "", "")
        assert data.LongitudinalTemporalInformationModified == "REMOVED"
        codes = [item.CodeValue for item in data.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113105"]
    assert judge(files[0], files[-1]) == []


def test_provenance_is_kept_without_names_hashes_and_dates(tmp_path, source):
    facts = read_facts(written(tmp_path, source)[0])
    assert facts == {"model": "head-mr-to-ct", "version": "1.0.0", "seed": 1, "inputs": [{"role": "image"}]}
    data = pydicom.dcmread(tmp_path / "out" / "CT0001.dcm")
    assert data.SeriesDescription == "SYNTHETIC CT head-mr-to-ct 1.0.0"
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeMeaning for item in data.ContributingEquipmentSequence]
    assert purposes == ["Acquisition Equipment", "Synthesizing Equipment", "De-identifying Equipment"]


def test_geometry_and_values_are_unchanged(tmp_path, source):
    written(tmp_path, source)
    original, copy = read_series(source), read_series(tmp_path / "out")
    np.testing.assert_array_equal(copy.array, original.array)
    assert copy.geometry.is_close(original.geometry, 1e-3)


def test_pseudonyms_are_consistent_between_separate_exports(tmp_path, source):
    image = read_volume(source)
    one = pydicom.dcmread(written(tmp_path, source, "one")[0])
    two = pydicom.dcmread(written(tmp_path, source, "two")[0])
    mask = LabelMap(image.array > 15, image.affine)
    (path,) = write_segmentation(mask, tmp_path / "seg", source=source, deidentify=True)
    labels = pydicom.dcmread(path)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert one[keyword].value == two[keyword].value == labels[keyword].value
    assert one.PatientID.startswith("ANON-")
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    referenced = {
        item.ReferencedSOPInstanceUID for item in labels.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert one.SourceImageSequence[0].ReferencedSOPInstanceUID in referenced
    assert len(referenced) == 3


def test_pseudonyms_depend_on_the_secret_key(tmp_path, source, home):
    first = pydicom.dcmread(written(tmp_path, source, "one")[0])
    key = json.loads((home / "config.json").read_text())["pseudonym_key"]
    assert len(bytes.fromhex(key)) == 32
    (home / "config.json").unlink()
    second = pydicom.dcmread(written(tmp_path, source, "two")[0])
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.PatientID != second.PatientID
    (home / "config.json").write_text('{"pseudonym_key": "no key"}')
    with pytest.raises(InputError, match="not hexadecimal text"):
        written(tmp_path, source, "three")


def test_a_synthetic_patient_can_be_deidentified(tmp_path, source):
    files = write_series(read_volume(source), tmp_path / "out", facts=FACTS, deidentify=True)
    data = pydicom.dcmread(files[0])
    assert data.PatientIdentityRemoved == "YES" and data.StudyDate == "" and judge(files[0]) == []
    assert [mark for mark in MARKS if mark in files[0].read_bytes()] == []


def test_the_command_warns_about_faces(tmp_path, source, capsys):
    path = write_volume(read_volume(source), tmp_path / "ct.nrrd")
    assert (
        main(
            ["dicom", str(path), "--like", str(source), "--modality", "CT", "--deidentify", "-o", str(tmp_path / "out")]
        )
        == 0
    )
    assert "a face can still be recognized" in capsys.readouterr().err
    assert pydicom.dcmread(tmp_path / "out" / "CT0001.dcm").PatientIdentityRemoved == "YES"


def test_a_missing_library_is_an_input_error(tmp_path, source, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("dicomanonymizer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dicomanonymizer", None)
    with pytest.raises(InputError, match="needs the Python package dicom-anonymizer"):
        written(tmp_path, source)
    assert not (tmp_path / "out").exists()
