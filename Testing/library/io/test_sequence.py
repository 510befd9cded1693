"""An MR image has the contrast that its DICOM header, its NIfTI header or the JSON beside it states."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicoms import patient_series

from MedGenLib.checks.input import check_image
from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.nifti_writing import write_nifti
from MedGenLib.packages.catalogue import find
from MedGenLib.translate import translate

SAMPLES = Path(__file__).resolve().parents[3] / "Resources" / "SampleData"
HEAD = SAMPLES / "head_t1.nii.gz"
GRID = np.diag([2.0, 2.0, 2.0, 1.0])
VALUES = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def series(folder, **tags):
    for path in patient_series(folder, [0.0, 2.0, 4.0]).iterdir():
        data = pydicom.dcmread(path)
        data.Modality, data.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        data.save_as(path)
    return folder


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"SeriesDescription": "Ax T2", "EchoTime": "92"}, "T2w"),
        ({"SeriesDescription": "Ax", "EchoTime": "92", "RepetitionTime": "4000"}, "T2w"),
        ({"SeriesDescription": "Ax", "ProtocolName": "t1_mprage"}, "T1w"),
        ({"SeriesDescription": "FLAIR", "EchoTime": "120", "InversionTime": "2500"}, "FLAIR"),
        ({"SeriesDescription": "Ax"}, "MR"),
    ],
)
def test_dicom(tmp_path, tags, expected):
    folder = series(tmp_path / "s", **tags)
    assert read_volume(folder).modality == expected
    assert read_volume(folder, modality="MR").modality == "MR"


def test_a_ct_has_no_contrast(tmp_path):
    folder = patient_series(tmp_path / "s", [0.0, 2.0])
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.SeriesDescription = "T2 vertebra"
        data.save_as(path)
    assert read_volume(folder).modality == "CT"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_json_of_bids(tmp_path, suffix):
    path = write_volume(Volume(VALUES, GRID), tmp_path / f"scan{suffix}")
    beside = tmp_path / "scan.json"
    for facts, expected in (
        ({"Modality": "MR", "EchoTime": 0.092, "RepetitionTime": 4}, "T2w"),
        ({"EchoTime": 0.0029, "RepetitionTime": 2.3, "InversionTime": 0.9}, "T1w"),
        ({"ProtocolName": "AX FLAIR"}, "FLAIR"),
        ({"Modality": "CT", "SeriesDescription": "T2"}, None),
        ({"EchoTime": "long"}, None),
        ([1, 2], None),
    ):
        beside.write_text(json.dumps(facts))
        assert read_volume(path).modality == expected
    beside.write_bytes(b"\xff{")
    assert read_volume(path).modality is None


def test_description_of_dcm2niix(tmp_path):
    path = tmp_path / "scan.nii"
    write_nifti(Volume(VALUES, GRID), path, description="TE=92;Time=101112.000")
    assert read_volume(path).modality == "T2w"
    write_nifti(Volume(VALUES, GRID), path, description="FSL5.0")
    assert read_volume(path).modality is None


def test_another_contrast_is_refused_before_the_work(tmp_path):
    folder = series(tmp_path / "s", SeriesDescription="Ax T2", EchoTime="92")
    with pytest.raises(InputError, match="stated to be T2w.* needs T1w MR"):
        translate(folder, "CT", model="head-mr-to-ct", accept_license=True)
    with pytest.raises(PackageError, match="T2w.*--modality MR"):
        translate(folder, "CT", accept_license=True)
    stated = read_volume(folder, modality="MR")
    assert "other-contrast" not in {f.code for f in check_image(stated, find("head-mr-to-ct"))}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sub-01_T2w", "T2w"),
        ("flair", "FLAIR"),
        ("sub-01_ses-2_PDw", "PDw"),
        ("t2_tse_tra", "T2w"),
        ("sub-T2_head", "T2w"),
    ],
)
def test_the_contrast_in_the_name_of_a_file_is_doubted_in_words(tmp_path, name, expected):
    head = read_volume(HEAD)
    path = write_volume(head, tmp_path / f"{name}.nii.gz")
    image = read_volume(path)
    assert image.modality is None and image.named == expected
    (finding,) = (f for f in check_image(image, find("head-mr-to-ct")) if f.code == "doubtful-contrast")
    assert finding.level == "warning"
    assert (
        f"By the name of its file the image is {expected}" in finding.sentence and "--modality T1w" in finding.sentence
    )
    # Who states the contrast is not doubted, nor is a header.
    assert doubts(read_volume(path, modality="T1w")) == doubts(read_volume(path, modality="MR")) == []
    (tmp_path / f"{name}.json").write_text(json.dumps({"ProtocolName": "t1_mprage"}))
    assert read_volume(path).modality == "T1w" and doubts(read_volume(path)) == []


@pytest.mark.parametrize("name", ["sub-01_T1w", "head", "patient_07", "t1t2"])
def test_other_names_are_not_doubted(tmp_path, name):
    assert doubts(read_volume(write_volume(read_volume(HEAD), tmp_path / f"{name}.nii.gz"))) == []


def doubts(image):
    return [f for f in check_image(image, find("head-mr-to-ct")) if f.code == "doubtful-contrast"]


def test_an_edit_doubts_the_contrast_in_the_name(tmp_path):
    """And CT has none."""
    from MedGenLib.editing.session import Canvas

    mask = read_label_map(SAMPLES / "brain_labels.seg.nrrd")
    values = np.where(mask.array > 0, 90 + 5 * (mask.array % 7), 0).astype(np.float32)
    path = write_volume(Volume(values, mask.affine), tmp_path / "sub-01_FLAIR.nii.gz")
    with Canvas.of_image(path, mask, "mr-brain", device="cpu") as canvas:
        assert "By the name of its file the image is FLAIR" in " ".join(f.sentence for f in canvas.findings)
    ct = read_volume(write_volume(Volume(VALUES, GRID), tmp_path / "t2.nii.gz"))
    assert not [f for f in check_image(ct, find("head-ct-to-mr")) if f.code == "doubtful-contrast"]
