"""Provenance in the file and beside it, reading it back, and detection of disagreement."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK

import MedGenLib
from MedGenLib import cli, generate
from MedGenLib.cli import run
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io import recorded
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.nifti import read_nifti_comments
from MedGenLib.io.nifti_layout import LAYOUTS
from MedGenLib.io.nifti_writing import write_nifti
from MedGenLib.io.provenance import Provenance, Source, content_hash, sidecar
from MedGenLib.io.samples import sample
from MedGenLib.io.system import decimal_point
from MedGenLib.packages.catalogue import find, package_hash
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result

FORMATS = ("ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha")
OBLIQUE = np.array([[0.8, -0.6, 0, -31.5], [0.6, 0.8, 0, 12.25], [0, 0, 2.5, 7], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    array = rng.normal(scale=300, size=(7, 6, 5)).astype(np.float32)
    return Volume(array, OBLIQUE, "CT", "HU")


def facts(volume, **changed):
    known = {
        "modality": "CT",
        "unit": "HU",
        "model": "ct-tissue",
        "version": "1.0.0",
        "seed": 7,
        "package_sha256": package_hash(find("ct-tissue")),
        "task": "generate",
        "parameters": {"text": 'line\nbreak, "quotes" and ü', "spacing": [1.0, 2.5]},
        "inputs": (Source.of("mask", volume, "/secret/folder/mask.nii.gz"),),
        "output_sha256": content_hash(volume),
        "created": "2026-01-02T03:04:05+00:00",
    }
    return Provenance(**{**known, **changed})


def read_by_sitk(path):
    """Read by the library itself, which cannot read every number in a locale with a decimal comma."""
    with decimal_point():
        return SimpleITK.ReadImage(str(path))


@pytest.mark.parametrize("name", FORMATS)
def test_the_header_holds_the_provenance_and_the_image_is_unchanged(name, volume, tmp_path):
    made, path = facts(volume), tmp_path / name
    write_volume(volume, path, made)
    assert [p.name for p in tmp_path.iterdir()] == [name], "temporary files remain"
    assert recorded.read(path) == recorded.read_inside(path) == made
    again = read_volume(path)
    assert np.array_equal(again.array, volume.array) and again.geometry.is_close(volume.geometry)
    picture = read_by_sitk(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(picture).T, volume.array)
    write_volume(volume, tmp_path / f"plain_{name}")
    plain = read_by_sitk(tmp_path / f"plain_{name}")
    assert picture.GetOrigin() == plain.GetOrigin() and picture.GetSpacing() == plain.GetSpacing()
    assert picture.GetDirection() == plain.GetDirection()
    assert recorded.read(tmp_path / f"plain_{name}") is None


def test_the_reader_of_slicer_reads_the_files(volume, tmp_path):
    """With vtkITK's archetype reader, which Slicer uses for volumes."""
    slicer_core = pytest.importorskip("slicer_core")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    def read(path):
        reader = slicer_core.vtkITK.vtkITKArchetypeImageSeriesScalarReader()
        reader.SetArchetype(str(path))
        reader.SetOutputScalarTypeToNative()
        reader.SetDesiredCoordinateOrientationToNative()
        with decimal_point():
            reader.Update()
        image, matrix = reader.GetOutput(), reader.GetRasToIjkMatrix()
        values = vtk_to_numpy(image.GetPointData().GetScalars())
        corners = [matrix.GetElement(i, j) for i in range(4) for j in range(4)]
        return values.reshape(image.GetDimensions()[::-1]).T, np.reshape(corners, (4, 4))

    for name in FORMATS:
        values, ras_to_ijk = read(write_volume(volume, tmp_path / name, facts(volume)))
        plain, ras_to_ijk_plain = read(write_volume(volume, tmp_path / f"plain_{name}"))
        assert np.array_equal(values, plain) and values.size == volume.array.size
        assert np.allclose(ras_to_ijk, ras_to_ijk_plain, atol=1e-9)


@pytest.mark.parametrize("name", FORMATS)
def test_entries_too_long_for_a_header_are_left_out_and_listed(name, volume, tmp_path, capsys):
    """A MetaImage file with an entry of 32,768 characters is unreadable."""
    long = facts(volume, parameters={str(n): "label" for n in range(5000)}, checks=("x" * 40000,))
    path = tmp_path / name
    written(volume, path, long)
    inside = recorded.read_inside(path)
    assert set(inside.left_out) == {"parameters", "checks"} and inside.model == "ct-tissue"
    assert np.array_equal(read_volume(path).array, volume.array)
    assert read_by_sitk(path).GetSize() == volume.shape
    assert recorded.read_beside(path) == long
    code, shown, warned = info(capsys, path, "--json")
    assert (code, warned) == (0, "") and json.loads(shown)["parameters"]["4999"] == "label"


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
@pytest.mark.parametrize("name, limit", [("a.nii", 60_000), ("a.nii.gz", 60_000), ("a.nii", 256_400)])
def test_a_full_disk_leaves_no_file(name, limit, tmp_path):
    """Full while SimpleITK writes or, in the last case, while the header is extended."""
    code = f"""
import resource, numpy as np
from MedGenLib.errors import InputError
from MedGenLib.io.files import write_volume
from MedGenLib.io.provenance import Provenance
from MedGenLib.imaging.volume import Volume
volume = Volume(np.random.default_rng(0).random((40, 40, 40), np.float32), np.eye(4))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write_volume(volume, {str(tmp_path / name)!r}, Provenance())
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(MedGenLib.__file__).parents[1]
    )
    assert "full" in done.stdout and done.stdout.count("\n") == 1 and done.stderr == "", done
    assert not list(tmp_path.iterdir())


def test_the_description_of_a_nifti_marks_it_as_synthetic(volume, tmp_path):
    path = write_volume(volume, tmp_path / "ct.nii", facts(volume, version="1.0.0-" + "x" * 90))
    field = path.read_bytes()[148:228]
    assert field.startswith(b"synthetic - not for diagnosis; ct-tissue 1.0.0-x")
    assert field.endswith(b"x\0") and SimpleITK.ReadImage(str(path)).GetMetaData("descrip")


def test_folder_names_are_not_stored(volume):
    text = facts(volume).line()
    assert "mask.nii.gz" in text and "secret" not in text


def test_the_hash_depends_on_shape_and_values_but_not_on_the_type(volume):
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    mask = LabelMap(labels, np.eye(4))
    assert content_hash(mask) == content_hash(Volume(labels.astype(np.float64), np.eye(4)))
    assert content_hash(mask) == content_hash(mask.with_array(np.asfortranarray(labels)))
    assert content_hash(mask) != content_hash(LabelMap(labels.reshape(3, 2, 4), np.eye(4)))
    changed = volume.array.copy()
    changed[3, 2, 1] += 1
    assert content_hash(volume) != content_hash(volume.with_array(changed))


def test_unknown_keys_of_a_later_version_are_ignored(volume):
    made = facts(volume)
    later = {**made.to_dict(), "new": 1}
    assert Provenance.from_dict(json.loads(json.dumps(later))) == made


@pytest.mark.parametrize("dtype", [">i4", "<i4"])
def test_comments_of_either_byte_order(dtype, volume, tmp_path):
    path, text = tmp_path / "comment.nii", '{"MedGen":1}'
    write_nifti(volume, path, text)
    if dtype == ">i4":
        raw = path.read_bytes()
        values = np.frombuffer(raw[384:], "<f4").astype(">f4").tobytes()
        extension = np.frombuffer(raw[352:360], "<i4").astype(">i4").tobytes() + raw[360:384]
        path.write_bytes(_swapped(raw[:348]) + raw[348:352] + extension + values)
    assert read_nifti_comments(path) == [text]
    assert np.array_equal(read_volume(path).array, volume.array)
    write_nifti(volume, path)
    assert read_nifti_comments(path) == []


def _swapped(header):
    layout = LAYOUTS[348]
    swapped = np.frombuffer(header, layout).astype(layout.newbyteorder(">"))
    return (348).to_bytes(4, "big") + swapped.tobytes()[4:]


# `medgen info`


def info(capsys, *argv):
    code = cli.main(["info", *map(str, argv)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_run_records_its_provenance(tmp_path, capsys):
    mask = sample("hippocampus_mask.nii.gz")
    out = tmp_path / "t1.nrrd"
    argv = [
        "generate",
        mask,
        "-o",
        out,
        "--model",
        "mr-hippocampus",
        "--seed",
        5,
        "--preset",
        "draft",
        "--samples",
        2,
        "--uncertainty",
        tmp_path / "u.nii.gz",
        "--dicom",
        tmp_path / "dicom",
    ]
    assert cli.main(["-q", *map(str, argv)]) == 0
    first, second = tmp_path / "t1_1.nrrd", tmp_path / "t1_2.nrrd"
    made = recorded.read(second)
    assert (made.model, made.preset, made.task) == ("mr-hippocampus", "draft", "generate")
    assert made.inputs == (Source.of("mask", read_label_map(mask), mask),)
    assert made.package_sha256 == package_hash(find("mr-hippocampus"))
    assert made.software["torch"] and recorded.read_beside(second) == made
    # The recorded seed reproduces this image.
    again = generate(mask, "mr-hippocampus", seed=made.seed, preset="draft", retries=0)
    again.report.version = "0.0.1"  # as of an engine with another version
    assert again.provenance().package_sha256 == ""
    assert content_hash(again.volume) == made.output_sha256
    capsys.readouterr()
    assert recorded.read(first).seed != made.seed
    code, shown, warned = info(capsys, second)
    assert code == 0 and warned == ""
    for words in ("synthetic", "mr-hippocampus", "not for diagnosis", mask.name, str(made.seed)):
        assert words in shown
    uncertainty = recorded.read(tmp_path / "u.nii.gz")
    assert uncertainty.content == "uncertainty" and uncertainty.passed is None
    assert info(capsys, tmp_path / "u.nii.gz")[0] == 0
    code, shown, _ = info(capsys, tmp_path / "dicom_2")
    assert code == 0 and "mr-hippocampus" in shown and f"seed      {made.seed}" in shown
    series = pydicom.dcmread(next((tmp_path / "dicom_2").iterdir()))
    assert series.PatientName != "" and "SYNTHETIC" in series.SeriesDescription


def test_json_has_all_entries(volume, tmp_path, capsys):
    made = facts(volume)
    write_volume(volume, tmp_path / "ct.mha", made)
    code, shown, _ = info(capsys, tmp_path / "ct.mha", "--json")
    assert code == 0 and json.loads(shown) == {**made.to_dict(), "findings": []}


def written(volume, path, made):
    write_volume(volume, path, made)
    made.write_beside(path)


def test_changed_voxels_are_detected(volume, tmp_path, capsys):
    path = tmp_path / "ct.nrrd"
    written(volume, path, facts(volume))
    brighter = volume.with_array(volume.array + 1)
    write_volume(brighter, path, facts(volume))
    code, _, warned = info(capsys, path)
    assert code == 1 and "The voxels of ct.nrrd differ from those written" in warned


def test_provenance_that_disagrees_or_is_only_beside_the_image_is_reported(volume, tmp_path, capsys):
    path = tmp_path / "ct.nii.gz"
    written(volume, path, facts(volume))
    facts(volume, seed=8).write_beside(path)
    code, shown, warned = info(capsys, path)
    assert code == 1 and "ct.medgen.json and ct.nii.gz have different records" in warned and "seed      7" in shown
    write_volume(volume, path)
    code, shown, warned = info(capsys, path)
    assert code == 0 and "has no record of its own" in warned and "seed      8" in shown
    write_volume(volume.with_array(volume.array + 1), path)
    assert info(capsys, path)[0] == 1
    code, shown, warned = info(capsys, sidecar(path))
    assert (code, warned) == (0, "") and "seed      8" in shown


def test_the_file_beside_an_image_does_not_apply_to_a_folder_of_the_same_name(volume, tmp_path, capsys):
    written(volume, tmp_path / "ct.nii.gz", facts(volume))
    (tmp_path / "ct").mkdir()
    assert sidecar("ct.nii.gz") == sidecar("ct.nrrd") == sidecar("ct.medgen.json")
    assert recorded.read(tmp_path / "ct") is None
    code, _, warned = info(capsys, tmp_path / "ct")
    assert code == 2 and "has no record of how it was made" in warned


def test_another_or_a_missing_package_is_reported(volume, tmp_path, capsys):
    path = tmp_path / "ct.nrrd"
    write_volume(volume, path, facts(volume, package_sha256="0" * 64))
    code, _, warned = info(capsys, path)
    assert code == 0 and "has other weights" in warned
    write_volume(volume, path, facts(volume, model="gone"))
    code, _, warned = info(capsys, path)
    assert code == 0 and "gone is not installed" in warned


def test_the_package_hash_does_not_depend_on_the_card():
    installed = find("ct-tissue")

    def altered(name):
        return replace(installed, checksums={**installed.checksums, name: "0" * 64})

    assert package_hash(altered("docs/README.md")) == package_hash(installed)
    assert package_hash(altered("LICENSE")) == package_hash(installed)
    assert package_hash(altered("models/flow.safetensors")) != package_hash(installed)
    assert package_hash(altered("configs/inference.json")) != package_hash(installed)


def test_control_characters_of_a_file_do_not_reach_the_terminal(volume, tmp_path, capsys):
    made = facts(volume, model="\x1b[31mred", checks=("one\ntwo",))
    _, shown, _ = info(capsys, write_volume(volume, tmp_path / "ct.nrrd", made))
    assert "\x1b" not in shown and "one two" in shown


def test_several_series_are_described_but_not_compared(volume, tmp_path, capsys):
    (tmp_path / "study").mkdir()
    for number in (1, 2):
        write_series(volume, tmp_path / "study" / str(number), facts=facts(volume))
    code, shown, warned = info(capsys, tmp_path / "study")
    assert code == 0 and "ct-tissue" in shown and "The voxels were not compared" in warned


def test_changed_voxels_of_a_series_are_detected(volume, tmp_path, capsys):
    folder = tmp_path / "series"
    path = write_series(volume, folder, facts=facts(volume))[0]
    assert info(capsys, folder)[0] == 0
    header = pydicom.dcmread(path)
    header.PixelData = bytes(len(header.PixelData))
    header.save_as(path)
    code, _, warned = info(capsys, folder)
    assert code == 1 and "voxels" in warned
    assert info(capsys, path)[0] == 0  # a single file is not the whole image


def test_provenance_without_a_model_is_described(volume, tmp_path, capsys):
    """For an error map, as written by `medgen evaluate`."""
    made = Provenance(content="error map", unit="HU", inputs=(Source("image", "ct.nrrd", "12"),))
    code, shown, warned = info(capsys, write_volume(volume, tmp_path / "error.nrrd", made))
    assert (code, warned) == (0, "") and "error map, image minus reference in HU" in shown
    assert "image     ct.nrrd, sha256 12" in shown and "model   " not in shown


@pytest.mark.parametrize(
    "damage", [{"inputs": ["x"]}, {"seed": "seven"}, {"software": []}, {"passed": "yes"}, {"created": 5}]
)
def test_invalid_provenance_is_not_read(damage, volume, tmp_path, capsys):
    path = write_volume(volume, tmp_path / "ct.nii")
    damaged = json.dumps({**facts(volume).to_dict(), **damage})
    sidecar(path).write_text(damaged)
    code, _, warned = info(capsys, path)
    assert code == 2 and "is not a provenance file of MedGen; delete it" in warned
    sidecar(path).unlink()
    write_nifti(volume, tmp_path / "comment.nii", damaged)
    assert recorded.read(tmp_path / "comment.nii") is None


def test_null_entries_are_unknown(volume):
    made = facts(volume)
    data = {**made.to_dict(), "software": None, "checks": None, "note": None}
    assert Provenance.from_dict(data) == made


def test_each_sample_has_its_seed_and_findings(volume):
    soft, fine = OutputCheck(), OutputCheck()
    soft.fail("bone", "The bone is soft.")
    report = Report("stub", "1", "generate", seed=5)
    report.input_findings = [Finding("warning", "note", "The slices are tilted.")]
    report.attempts = [Attempt(0, 5, soft), Attempt(0, 1005, fine), Attempt(1, 6, soft)]
    report.output_checks = [fine, soft]
    result = Result([volume, volume], report, volume)
    first, second = (result.provenance((), n) for n in range(2))
    assert (first.seed, first.passed, first.checks) == (1005, True, ("The slices are tilted.",))
    assert (second.seed, second.passed) == (6, False)
    assert second.checks == ("The slices are tilted.", "The bone is soft.")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: shutil.copy(sample("head_t1.nii.gz"), path), "has no record of how it was made"),
        (lambda path: path.write_bytes(b"no image"), "is not a NIfTI file"),
        (
            lambda path: sidecar(path).write_text("{}") and path.write_bytes(sample("head_t1.nii.gz").read_bytes()),
            "delete it",
        ),
    ],
)
def test_missing_provenance_is_one_sentence(make, sentence, tmp_path, capsys):
    path = tmp_path / "image.nii.gz"
    make(path)
    code, shown, warned = info(capsys, path)
    assert code == 2 and shown == "" and sentence in warned and warned.count("\n") == 1


def test_the_file_beside_needs_an_existing_folder(volume, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        facts(volume).write_beside(tmp_path / "nowhere" / "ct.nii.gz")


# DICOM series in addition to the volume


@pytest.fixture
def translator(monkeypatch):
    """`medgen translate` with a substitute for the networks."""

    def work(image, to, seed, **_):
        report = Report("stub", "1.0.0", "translate", seed=seed, peak_memory_mib=1.0)
        return Result([image.with_array(np.round(image.array) + 1, to, "HU")], report, image)

    stub = SimpleNamespace(name="stub", task="translate", settings=None)
    monkeypatch.setattr("MedGenLib.packages.catalogue.for_translation", lambda source, target: stub)
    monkeypatch.setattr(run, "is_accepted", lambda manifest: True)
    monkeypatch.setitem(vars(MedGenLib), "translate", work)


@pytest.fixture
def patient(volume, tmp_path):
    """A DICOM series of a named patient."""
    image = volume.with_array(np.round(volume.array), "T1w", "a.u.")
    folder = tmp_path / "patient"
    for path in write_series(image, folder):
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID = "Doe^Jane", "4711"
        header.save_as(path)
    return folder


def translated(patient, out, *options):
    out.mkdir()
    argv = ["translate", patient, "-o", out / "ct.nrrd", "--to", "CT", "--dicom", out / "series"]
    code = cli.main([*map(str, argv), *options])
    return code, sorted(path.name for path in out.iterdir())


def test_a_series_joins_the_study_it_was_made_from(patient, translator, tmp_path, capsys):
    code, names = translated(patient, tmp_path / "out")
    assert code == 0 and names == ["ct.medgen.json", "ct.nrrd", "series"]
    source = pydicom.dcmread(next(patient.iterdir()))
    series = pydicom.dcmread(next((tmp_path / "out" / "series").iterdir()))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert series[keyword].value == source[keyword].value
    assert series.SeriesInstanceUID != source.SeriesInstanceUID
    again, volume = (read_volume(tmp_path / "out" / name) for name in ("series", "ct.nrrd"))
    assert np.array_equal(np.sort(again.array, axis=None), np.sort(volume.array, axis=None))
    code, shown, _ = info(capsys, tmp_path / "out" / "series")
    assert code == 0 and "image     patient, sha256" in shown
    text = (tmp_path / "out" / "ct.medgen.json").read_text()
    assert "Doe" not in text and "4711" not in text and str(tmp_path) not in text


def test_a_deidentified_series_names_neither_patient_nor_input(patient, translator, tmp_path, capsys):
    assert translated(patient, tmp_path / "out", "--deidentify")[0] == 0
    warned = capsys.readouterr().err
    assert "a face can still be recognized" in warned
    assert "ct.nrrd and the file beside it still name the input" in warned
    folder = tmp_path / "out" / "series"
    series = pydicom.dcmread(next(folder.iterdir()))
    assert "Doe" not in str(series) and "4711" not in str(series.PatientID)
    made = recorded.read(folder)
    assert made.inputs == (Source("image", "", ""),) and made.model == "stub"
    code, shown, _ = info(capsys, folder)
    assert code == 0 and "image     unnamed, sha256 left out" in shown


def test_a_failed_series_leaves_no_volume(patient, translator, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise InputError("The slices do not fit.")

    monkeypatch.setattr("MedGenLib.io.dicom.write_series", fail)
    assert translated(patient, tmp_path / "out") == (2, [])
    assert "The slices do not fit." in capsys.readouterr().err


def test_deidentify_without_dicom_is_refused(tmp_path, capsys):
    argv = ["generate", sample("hippocampus_mask.nii.gz"), "-o", tmp_path / "a.nrrd"]
    assert cli.main([*map(str, argv), "--model", "mr-hippocampus", "--deidentify"]) == 2
    assert "--dicom" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dicom_folder_with_files_is_refused_before_the_run(tmp_path, capsys):
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "old.dcm").write_bytes(b"someone's series")
    argv = ["generate", sample("hippocampus_mask.nii.gz"), "-o", tmp_path / "a.nrrd", "--dicom"]
    assert cli.main([*map(str, argv), str(folder), "--model", "mr-hippocampus"]) == 2
    assert "holds files already" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["old.dcm"]
