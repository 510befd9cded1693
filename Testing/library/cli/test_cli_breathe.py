"""`medgen breathe`: all files or none, each readable, and one sentence for what cannot be done."""

import csv
import json

import numpy as np
import pydicom
import pytest
import SimpleITK
from chests import chest
from dicoms import judge
from PIL import Image

from MedGenLib import cli
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.dicom import read_series
from MedGenLib.io.files import read_volume, write_volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    image, labels = chest((4.0, 4.0, 4.0))
    write_volume(image, folder / "ct.nii.gz")
    write_volume(labels, folder / "organs.nrrd")
    write_volume(Volume(np.abs(image.array) // 3, image.affine), folder / "mr.nii.gz")
    return folder


def run(*words) -> int:
    return cli.main(["breathe", *map(str, words), "--phases", "3", "-q"])


def test_all_files(folder, tmp_path):
    files = {name: tmp_path / name for name in ("t.csv", "p.png", "r.json", "m.seq.nrrd", "dvf", "dicom")}
    flags = dict(
        zip(files, ("--tracks", "--preview", "--report", "--moved-labels", "--displacements", "--dicom"), strict=True)
    )
    words = [word for name, path in files.items() for word in (flags[name], path)]
    output = tmp_path / "s.seq.nrrd"
    place = ("--point", "tumor=188,126,520", "--projections", "--labels", folder / "organs.nrrd")
    assert run(folder / "ct.nii.gz", "-o", output, *words, *place) == 0
    ct = read_volume(folder / "ct.nii.gz")
    frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(output)).transpose(3, 2, 1, 0)
    assert np.array_equal(frames[0], ct.array) and frames.dtype == np.int16 and len(frames) == 3
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(files["m.seq.nrrd"]))
    assert set(np.unique(labels)) == {0, 1, 2}
    average, most = (read_volume(tmp_path / f"s_{name}.nrrd") for name in ("average", "maximum"))
    assert np.allclose(average.array, frames.mean(axis=0), atol=0.51) and np.array_equal(most.array, frames.max(axis=0))
    assert np.allclose(most.affine, ct.affine, atol=1e-5)
    with files["t.csv"].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["phase_percent"] for row in rows[:3]] == ["0", "33.3333", "66.6667"]
    assert {row["name"] for row in rows} == {"lungs", "lesion", "tumor"}
    assert max(float(row["distance_mm"]) for row in rows if row["name"] == "tumor") > 4
    facts = json.loads(files["r.json"].read_text())
    assert facts["task"] == "breathe" and len(facts["phases"]) == 3 and facts["inputs"][0]["name"] == "ct.nii.gz"
    assert json.loads((tmp_path / "s.seq.medgen.json").read_text())["parameters"]["amplitude_mm"] == 15
    fields = sorted(files["dvf"].iterdir())
    moved = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(fields[1]))
    assert len(fields) == 3 and moved.shape == (*ct.shape[::-1], 3) and moved.min() < -8
    assert np.asarray(Image.open(files["p.png"])).std() > 20


def test_a_folder_is_a_4d_dicom_series(folder, tmp_path):
    """One study and frame of reference, a series and a time for each phase; pixels as in the series of volumes."""
    assert run(folder / "ct.nii.gz", "-o", tmp_path / "study") == 0
    assert run(folder / "ct.nii.gz", "-o", tmp_path / "s.seq.nrrd") == 0
    frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "s.seq.nrrd")).transpose(3, 2, 1, 0)
    series = sorted((tmp_path / "study").iterdir())
    assert judge(*(next(path.iterdir()) for path in series)) == []
    headers = [pydicom.dcmread(next(path.iterdir())) for path in series]
    assert len({header.SeriesInstanceUID for header in headers}) == len(headers) == 3
    for shared in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({header[shared].value for header in headers}) == 1
    assert [header.TemporalPositionIdentifier for header in headers] == [1, 2, 3]
    assert [header.SeriesNumber for header in headers] == [1, 2, 3]
    assert "breathing 33.3333%" in headers[1].SeriesDescription
    assert headers[0].DerivationCodeSequence[0].CodeMeaning == "Spatial resampling"
    read = read_series(series[1])
    assert np.array_equal(np.sort(read.array.ravel()), np.sort(frames[1].ravel()))


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("mr.nii.gz",), "is made from a CT"),
        (("ct.nii.gz", "--modality", "MR"), "is MR, but"),
        (("ct.nii.gz", "--amplitude", "-1"), "more than 0"),
        (("ct.nii.gz", "--trace", "none.csv"), "cannot be read"),
        (("ct.nii.gz", "--point", "tumor=1,2"), "is no place"),
        (("ct.nii.gz", "--point", "origin=0,0,0"), "lies outside of the CT"),
        (("ct.nii.gz", "--deidentify"), "add --dicom"),
        (("missing.nii.gz",), "There is no file"),
    ],
)
def test_bad_input_writes_nothing(folder, tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run(*words, "-o", tmp_path / "s.seq.nrrd", "--displacements", tmp_path / "dvf") == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and said.count("\n") == 0
    assert list(tmp_path.iterdir()) == [] and sorted(folder.rglob("*")) == before


def test_the_name_of_a_series_ends_in_seq_nrrd(folder, tmp_path, capsys):
    assert run(folder / "ct.nii.gz", "-o", tmp_path / "s.nii.gz") == 2
    assert ".seq.nrrd" in capsys.readouterr().err
    (tmp_path / "s.seq.nrrd").write_text("kept")
    assert run(folder / "ct.nii.gz", "-o", tmp_path / "s.seq.nrrd") == 2
    assert (tmp_path / "s.seq.nrrd").read_text() == "kept"
