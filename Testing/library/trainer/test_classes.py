"""Readers of images with classes, on look-alikes with the published layouts."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from MedGenLib.errors import InputError
from MedGenLib.io.pictures import read_image
from MedGenLib.trainer.classes import read_classes

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}\n"


def picture(path: Path) -> Path:
    """A picture that depends on its name and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-4:]).encode())
    array = np.random.default_rng(seed).integers(0, 255, (12, 10)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def chexpert(folder: Path) -> Path:
    """As CheXpert-v1.0-small is published: paths that start with the name of the data set, and one table per split."""
    rows = {
        "train": [
            ("patient00001/study1/view1_frontal.jpg", "Female,68,Frontal,AP", "1.0,,,,,,,,,0.0,,,,1.0"),
            ("patient00002/study2/view1_frontal.jpg", "Male,87,Frontal,AP", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
            ("patient00002/study2/view2_lateral.jpg", "Male,87,Lateral,", ",,,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
        ],
        "valid": [("patient64541/study1/view1_frontal.jpg", "Male,73,Frontal,AP", "0.0,1.0,1.0,1.0" + ",0.0" * 10)],
    }
    for name, lines in rows.items():
        for path, _, _ in lines:
            picture(folder / name / path)
        text = [f"CheXpert-v1.0-small/{name}/{path},{person},{findings}\n" for path, person, findings in lines]
        (folder / f"{name}.csv").write_text(CHEXPERT + "".join(text), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("policy", "edema"), [("ones", 1), ("zeros", 0), ("ignore", None)])
def test_chexpert(tmp_path, policy, edema):
    found = read_classes(chexpert(tmp_path / "renamed"), policy)
    assert found.layout == "CheXpert" and found.several
    assert found.classes == tuple(FINDINGS.split(",")[1:])
    cases = {case.name: case for case in found.cases}
    assert set(cases) == {
        "patient00001-study1-view1_frontal",
        "patient00002-study2-view1_frontal",
        "patient00002-study2-view2_lateral",
        "patient64541-study1-view1_frontal",
    }
    frontal, lateral = (cases[f"patient00002-study2-{view}"] for view in ("view1_frontal", "view2_lateral"))
    assert frontal.subject == lateral.subject == "patient00002"
    of = dict(zip(found.classes, frontal.targets, strict=True))
    assert (of["Edema"], of["Lung Opacity"], of["Pneumonia"]) == (edema, 1, 0)  # blank is absent
    assert cases["patient64541-study1-view1_frontal"].split == "validation" and frontal.split == "train"
    assert read_image(frontal.image).shape == (10, 12, 1)


def test_chestxray8(tmp_path):
    heads = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    rows = [
        ("00000001_000.png", "Cardiomegaly", 0, 1),
        ("00000001_001.png", "Cardiomegaly|Emphysema", 1, 1),
        ("00000002_000.png", "No Finding", 0, 2),
        ("00000003_000.png", "Hernia", 0, 3),
    ]
    lines = [f"{name},{labels},{n},{person},58,M,PA,2682,2749,0.143,0.143,\n" for name, labels, n, person in rows]
    (tmp_path / "Data_Entry_2017.csv").write_text(heads + "\n" + "".join(lines), encoding="utf-8")
    (tmp_path / "test_list.txt").write_text("00000003_000.png\n", encoding="utf-8")
    for number, (name, *_) in enumerate(rows[:3]):
        picture(tmp_path / f"images_00{number + 1}" / "images" / name)
    found = read_classes(tmp_path)
    assert found.classes == ("Cardiomegaly", "Emphysema") and found.several
    assert [(case.subject, case.targets) for case in found.cases] == [("1", (1, 0)), ("1", (1, 1)), ("2", (0, 0))]
    assert [problem.case for problem in found.problems] == ["00000003_000"]
    picture(tmp_path / "images_012" / "images" / "00000003_000.png")
    assert [case.split for case in read_classes(tmp_path).cases] == ["train", "train", "train", "test"]


def test_covid_ct_keeps_the_slices_of_a_paper_together(tmp_path):
    for name in ("CT_COVID/2020.01.24.919183-p27-132.png", "CT_COVID/2020.01.24.919183-p27-133.png"):
        picture(tmp_path / "Images-processed" / name)
    for name in ("12%0.jpg", "12%1.jpg", "1037.png"):
        picture(tmp_path / "Images-processed" / "CT_NonCOVID" / name)
    found = read_classes(tmp_path)
    assert found.layout == "COVID-CT" and found.classes == ("COVID", "no COVID") and not found.several
    assert len(found.cases) == 5 and len({case.subject for case in found.cases}) == 3
    assert [case.targets for case in found.cases] == [(1, 0)] * 2 + [(0, 1)] * 3


def test_folders_of_classes_with_images_persons_and_series(tmp_path):
    for name in ("cat/a.png", "cat/p1/one.png", "cat/p1/two.png", "dog/a.png", "dog/b.jpg", "dog/b.png"):
        picture(tmp_path / name)
    series = tmp_path / "dog" / "scan"
    series.mkdir()
    for number in range(2):
        (series / f"{number}.dcm").write_bytes(bytes(132))
    found = read_classes(tmp_path)
    named = {case.name: (case.subject, case.targets) for case in found.cases}
    assert named["cat-p1-one"] == ("p1", (1, 0)) and named["cat-p1-two"][0] == "p1"
    assert named["dog-scan"] == ("scan", (0, 1))
    assert {"dog-b.jpg", "dog-b.png", "cat-a", "dog-a"} < set(named)


def test_folders_of_splits(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("normal", "ill"):
            picture(tmp_path / split / name / f"{split}-{name}.jpeg")
    splits = {case.name: case.split for case in read_classes(tmp_path).cases}
    assert splits["train-ill-train-ill"] == "train" and splits["validation-ill-val-ill"] == "validation"
    assert len(splits) == 6


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_table(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    rows = [
        {"image": f"{n}.png", "class": c, "subject": "p", "split": s}
        for n, c, s in (("a", "yes", "train"), ("b", "no", "test"), ("d", "no", ""), ("c", "", ""))
    ]
    found = read_classes(table(tmp_path / "t.csv", rows))
    assert [(c.name, c.subject, c.targets, c.split) for c in found.cases] == [
        ("a", "p", (0, 1), "train"),
        ("b", "p", (1, 0), "test"),
    ]
    assert [problem.case for problem in found.problems] == ["d", "c"] and not found.several
    rows[0]["class"] = "one|two"
    assert read_classes(table(tmp_path / "t.csv", rows)).several


def test_one_class_and_unknown_layouts_are_refused(tmp_path):
    picture(tmp_path / "set" / "only" / "a.png")
    with pytest.raises(InputError, match="All images of .* have the class 'only'"):
        read_classes(tmp_path / "set")
    with pytest.raises(InputError, match="layout of .* is not known"):
        read_classes(tmp_path / "set" / "only")
    for name in ("imagesTr", "labelsTr"):
        picture(tmp_path / "labeled" / name / "a.png")
    with pytest.raises(InputError, match="images and their labels, not a folder for each class"):
        read_classes(tmp_path / "labeled")
    with pytest.raises(InputError, match="no column 'class'"):
        read_classes(table(tmp_path / "t.csv", [{"image": "a.png"}]))


def test_pictures(tmp_path):
    gray = np.arange(48, dtype=np.uint8).reshape(8, 6)
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([gray] * 3, -1), isVector=True), str(tmp_path / "color.png"))
    found = read_image(tmp_path / "color.png")
    assert found.shape == (6, 8, 1) and found.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(found.array[..., 0].T, gray, atol=1e-3)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="damaged or truncated"):
        read_image(tmp_path / "bad.png")


def single(path: Path, gray: np.ndarray, **tags) -> Path:
    """A DICOM image without a place in the patient, as radiographs are."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Rows, data.Columns, data.SamplesPerPixel, data.PixelRepresentation = *gray.shape, 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = gray.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_single_dicom_images(tmp_path):
    """A CT is rescaled to HU; a radiograph stored with white as 0 is inverted, with the spacing of its imager."""
    gray = np.arange(48).reshape(8, 6)
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PixelSpacing": [0.5, 0.25]}
    found = read_image(
        single(tmp_path / "ct.dcm", gray, Modality="CT", PhotometricInterpretation="MONOCHROME2", **scale)
    )
    assert (found.modality, found.unit, found.shape, found.spacing) == ("CT", "HU", (6, 8, 1), (0.25, 0.5, 1.0))
    np.testing.assert_array_equal(found.array[..., 0].T, gray - 1024)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "ImagerPixelSpacing": [0.2, 0.1]}
    found = read_image(single(tmp_path / "cr.dcm", gray, Modality="CR", **tags))
    assert found.modality is None and found.spacing == pytest.approx((0.1, 0.2, 1.0))
    np.testing.assert_array_equal(found.array[..., 0].T, 4095 - gray)  # of 12 bits
