"""An MR image has the contrast that its DICOM header, its NIfTI header or the JSON beside it states."""

import json

import numpy as np
import pydicom
import pytest
from dicoms import patient_series

from MedGenLib.checks.input import check_image
from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.nifti_writing import write_nifti
from MedGenLib.packages.catalogue import find
from MedGenLib.translate import translate

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
