"""Writing DICOM series: validated by dciodvfy, read back by SimpleITK and by MedGen."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicoms import FOREIGN, FRAME, PRIVATE, SECRETS, SERIES, STUDY, judge, patient_series, rotation

from MedGenLib import __version__
from MedGenLib.cli import main
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.volume import LabelMap, Volume, affine_from_lps
from MedGenLib.io import provenance, recorded
from MedGenLib.io.dicom import check_folder, read_facts, read_series, write_series
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.provenance import Provenance, content_hash

FACTS = {
    "model": "head-mr-to-ct",
    "version": "1.2.0",
    "task": "translate",
    "seed": 7,
    "preset": "normal",
    "passed": True,
    "created": "2026-01-02T03:04:05Z",
    "inputs": [{"name": "t1.nii.gz", "sha256": "ab" * 32, "role": "image"}],
}


def volume(shape=(7, 6, 5), affine=None, modality="CT", seed=0, whole=True):
    array = np.random.default_rng(seed).uniform(-1000, 2000, shape).astype(np.float32)
    affine = np.diag([1.5, 0.75, 3.0, 1.0]) if affine is None else affine
    return Volume(np.round(array) if whole else array, affine, modality, "HU" if modality == "CT" else "a.u.")


def oblique(seed=1, hand=1.0):
    rotation_matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    rotation_matrix *= np.sign(np.linalg.det(rotation_matrix)) * hand
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix * (0.9, 1.4, 2.2)
    affine[:3, 3] = (-31.4, 15.9, 265.35)
    return affine


def with_axes(letters):
    """Affine with axes in the directions of the letters."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([directions[letter] for letter in letters]).T * (1.0, 1.5, 2.0)
    affine[:3, 3] = (12, -34, 56)
    return affine


def largest_difference(first, second):
    """Largest difference of values at the same position, and largest distance to a voxel center in mm."""
    index = np.indices(first.shape).reshape(3, -1)
    position = first.affine[:3, :3] @ index + first.affine[:3, 3:]
    found = np.linalg.solve(second.affine[:3, :3], position - second.affine[:3, 3:])
    nearest = np.round(found).astype(int)
    assert (nearest.min(axis=1) >= 0).all() and (nearest.max(axis=1) < second.shape).all()
    away = np.linalg.norm(second.affine[:3, :3] @ (found - nearest), axis=0).max()
    values = second.array[tuple(nearest)] - first.array[tuple(index)]
    return float(np.abs(values).max()), float(away)


def by_simpleitk(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = affine_from_lps(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Volume(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32), affine)


GRIDS = {
    "upright": np.diag([1.5, 0.75, 3.0, 1.0]),
    "left-handed": np.diag([-1.0, 1.2, 2.0, 1.0]),
    "oblique": oblique(),
    "oblique left-handed": oblique(2, -1.0),
    "LIA": with_axes("LIA"),
    "PSR": with_axes("PSR"),
    "LPI": with_axes("LPI"),
}


@pytest.mark.parametrize("modality", ["CT", "T1w"])
@pytest.mark.parametrize("grid", GRIDS)
def test_geometry_and_values_survive_a_round_trip(tmp_path, grid, modality):
    original = volume(affine=GRIDS[grid], modality=modality)
    files = write_series(original, tmp_path / "out", facts=FACTS)
    for copy in (read_series(tmp_path / "out"), by_simpleitk(tmp_path / "out")):
        values, mm = largest_difference(original, copy)
        assert values == 0 and mm < 1e-3
    assert read_series(tmp_path / "out").modality == modality
    assert judge(files[0], files[-1]) == []


def test_small_in_plane_shifts_are_preserved(tmp_path):
    """Slice positions may deviate from the normal within the tolerance of `Geometry`."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 0.0015
    original = volume((6, 5, 200), affine)
    write_series(original, tmp_path / "out", facts=FACTS)
    assert largest_difference(original, read_series(tmp_path / "out")) == (0, pytest.approx(0, abs=1e-3))


@pytest.mark.parametrize("shape", [(9, 8, 1), (9, 1, 8), (1, 9, 8)])
def test_a_single_slice_has_its_thickness(tmp_path, shape):
    original = volume(shape, oblique(3))
    files = write_series(original, tmp_path / "out", facts=FACTS)
    assert len(files) == 1 and judge(*files) == []
    copy = read_series(tmp_path / "out")
    assert largest_difference(original, copy) == (0, pytest.approx(0, abs=1e-3))
    assert copy.spacing[2] == pytest.approx(original.spacing[shape.index(1)])


@pytest.mark.parametrize(
    "letters, shape, expected",
    [
        ("RAS", (5, 6, 7), "LPS"),
        ("LIA", (5, 6, 7), "LPS"),
        ("PIR", (5, 6, 7), "LPS"),
        ("RAS", (5, 1, 7), "LIP"),
        ("RAS", (1, 6, 7), "PIR"),
    ],
)
def test_slices_have_the_radiological_orientation(tmp_path, letters, shape, expected):
    """Axial: columns to the left, rows to posterior; coronal and sagittal: superior is up."""
    write_series(volume(shape, with_axes(letters)), tmp_path / "out")
    assert read_series(tmp_path / "out").orientation[:2] == expected[:2]


def header(path):
    return pydicom.dcmread(path)


def test_a_synthetic_image_is_marked(tmp_path):
    files = write_series(volume(), tmp_path / "out", facts=FACTS, description="für die Übung")
    first = header(files[0])
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.ContentQualification == "RESEARCH"
    assert first.SeriesDescription.startswith("SYNTHETIC")
    assert (first.BurnedInAnnotation, first.LossyImageCompression) == ("NO", "00")
    assert first.SeriesDescription == "SYNTHETIC CT head-mr-to-ct 1.2.0: für die Übung"
    assert "Synthetic CT" in first.DerivationDescription
    assert "quality checks passed" in first.DerivationDescription
    assert first.DerivationCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    (model,) = first.ContributingEquipmentSequence
    assert model.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
    assert (model.Manufacturer, model.ManufacturerModelName) == ("MedGen", "head-mr-to-ct")
    assert list(model.SoftwareVersions) == ["1.2.0", f"MedGen {__version__}"]
    assert first.RescaleType == "HU" and (first.RescaleSlope, first.RescaleIntercept) == (1, 0)
    assert read_facts(files[0]) == read_facts(tmp_path / "out") == FACTS


def test_a_failed_check_is_stated(tmp_path):
    files = write_series(volume(), tmp_path / "out", facts={**FACTS, "passed": False})
    assert "did NOT pass" in header(files[0]).DerivationDescription


def test_an_image_without_provenance_is_not_marked_as_synthetic(tmp_path):
    files = write_series(volume(), tmp_path / "out")
    first = header(files[0])
    assert "ContentQualification" not in first and "ImageComments" not in first
    assert "SYNTHETIC" not in first.SeriesDescription + str(first.PatientName)
    assert "not known" in first.DerivationDescription
    assert judge(files[0]) == [] and read_facts(tmp_path / "out") is None


def test_long_facts_are_shortened_and_listed(tmp_path):
    facts = {**FACTS, "parameters": {"x": "y" * 20000}, "software": {"torch": "2"}}
    files = write_series(volume(), tmp_path / "out", facts=facts)
    assert judge(files[0]) == []
    kept = read_facts(files[0])
    assert kept["left_out"] == ["parameters"] and kept["software"] == {"torch": "2"}


def test_provenance_objects_are_accepted(tmp_path):
    class Made:
        def to_dict(self):
            return FACTS

    files = write_series(volume(), tmp_path / "out", facts=Made())
    assert read_facts(files[0]) == FACTS


def test_the_output_hash_is_that_of_the_volume_read_back(tmp_path):
    """Slices are reoriented and values rounded, so the hash of the original volume differs."""
    original = volume(affine=GRIDS["PSR"], whole=False)
    made = Provenance(model="m", modality="CT", output_sha256=content_hash(original))
    write_series(original, tmp_path / "out", facts=made)
    read = recorded.read(tmp_path / "out")
    assert read.output_sha256 == content_hash(read_series(tmp_path / "out"))
    assert read == replace(made, output_sha256=read.output_sha256)


def test_an_uncertainty_map_is_refused(tmp_path):
    made = Provenance(content="uncertainty", model="m")
    with pytest.raises(InputError, match="the uncertainty of an image, which is neither"):
        write_series(volume(), tmp_path / "out", facts=made)


# --- Patient and study ------------------------------------------------------------------------


def test_samples_of_one_input_share_a_synthetic_patient(tmp_path):
    one, two = (header(write_series(volume(seed=n), tmp_path / f"{n}", facts=FACTS)[0]) for n in range(2))
    other = {**FACTS, "inputs": [{"sha256": "cd" * 32}]}
    third = header(write_series(volume(), tmp_path / "3", facts=other)[0])
    same = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
    assert all(one[k].value == two[k].value != third[k].value for k in same)
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert str(one.PatientName) == "MEDGEN^SYNTHETIC" and one.PatientID.startswith("MEDGEN-")
    assert one.QualityControlSubject == one.QualityControlImage == "YES"


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_series_joins_the_study_of_its_source_without_other_attributes(tmp_path, modality):
    source = patient_series(tmp_path / "s", [0, 2, 4, 6], rotation(), modality=modality)
    image = read_volume(source)
    made = Volume(image.array, image.affine, "CT" if modality == "MR" else "T1w")
    files = write_series(made, tmp_path / "out", source=source, facts=FACTS)
    first = header(files[0])
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == (STUDY, FRAME)
    assert first.SeriesInstanceUID != SERIES and first.SeriesNumber == 9003
    assert (first.PatientPosition, first.BodyPartExamined) == ("HFS", "HEAD")
    assert first.QualityControlImage == "NO" and "QualityControlSubject" not in first
    for keyword, value in SECRETS.items():
        assert str(first[keyword].value) == value
    for path in files:
        content = path.read_bytes()
        assert not any(text.encode() in content for text in (*FOREIGN.values(), PRIVATE, "GEHEIM"))
        assert not any(element.tag.is_private for element in header(path).iterall())
    assert judge(files[0], files[-1]) == []
    scanner, model = first.ContributingEquipmentSequence
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("ACME", "Scanner 1")
    assert model.ManufacturerModelName == "head-mr-to-ct"


def test_source_images_are_referenced_by_plane(tmp_path):
    source = patient_series(tmp_path / "s", [0, 2, 4, 6])
    image = read_volume(source)
    files = write_series(image, tmp_path / "same", source=source, facts=FACTS)
    for number, path in enumerate(files, start=1):
        (of_source,) = header(path).SourceImageSequence
        assert of_source.ReferencedSOPInstanceUID == f"{SERIES}.{number}"
        assert of_source.SpatialLocationsPreserved == "YES"
    finer = Volume(np.zeros((24, 20, 7), np.float32), image.geometry.with_spacing((0.4, 0.6, 1.0)).affine, "CT", "HU")
    files = write_series(finer, tmp_path / "finer", source=source, facts=FACTS)
    assert {header(p).SourceImageSequence[0].SpatialLocationsPreserved for p in files} == {"NO"}
    tilted = Volume(np.zeros((9, 9, 9), np.float32), oblique(5), "CT", "HU")
    tilted = Volume(tilted.array, _centered(tilted, image), "CT", "HU")
    files = write_series(tilted, tmp_path / "tilted", source=source, facts=FACTS)
    assert "SourceImageSequence" not in header(files[4])
    assert judge(*files[:1]) == []


def _centered(image, on):
    affine = image.affine.copy()
    middle = on.affine @ [*((np.array(on.shape) - 1) / 2), 1]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(image.shape) - 1) / 2)
    return affine


def test_a_list_of_files_is_accepted_as_source(tmp_path):
    source = patient_series(tmp_path / "s", [0, 2])
    image = read_volume(source)
    files = write_series(image, tmp_path / "out", source=sorted(source.iterdir()), facts=FACTS)
    assert header(files[0]).StudyInstanceUID == STUDY


def test_one_of_two_series_is_chosen(tmp_path):
    patient_series(tmp_path / "s", [0, 2])
    source = patient_series(tmp_path / "s" / "b", [0, 2], series="1.2.3.4.301", SeriesNumber=8)
    image = read_volume(source)
    with pytest.raises(InputError, match="2 series"):
        write_series(image, tmp_path / "out", source=tmp_path / "s", facts=FACTS)
    files = write_series(image, tmp_path / "out", source=tmp_path / "s", series="2", facts=FACTS)
    assert header(files[0]).SeriesNumber == 9008


def test_images_derived_from_synthetic_ones_are_marked(tmp_path):
    write_series(volume(), tmp_path / "first", facts=FACTS)
    files = write_series(volume(), tmp_path / "second", source=tmp_path / "first")
    second = header(files[0])
    assert second.ContentQualification == "RESEARCH"
    assert second.SeriesDescription.startswith("SYNTHETIC")
    assert str(second.PatientName) == "MEDGEN^SYNTHETIC" and second.QualityControlImage == "YES"


def test_invalid_attributes_of_the_source_are_not_copied(tmp_path):
    source = patient_series(
        tmp_path / "s", [0, 2], PatientSex="X", BodyPartExamined="KNEE", PatientWeight="62.5", PatientSize="1.70"
    )
    for path in source.iterdir():
        data = pydicom.dcmread(path)
        data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", ""
        del data.FrameOfReferenceUID, data.PositionReferenceIndicator
        data["StudyDate"]._value = "29.2.2024"
        data.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"62.5", b"6Z.5"))
    image = read_volume(source)
    files = write_series(image, tmp_path / "out", source=source, facts=FACTS)
    first = header(files[0])
    assert judge(files[0]) == []
    assert first.StudyDate == "" and "PatientIdentityRemoved" not in first
    assert "PatientWeight" not in first and float(first.PatientSize) == 1.7
    again = header(write_series(image, tmp_path / "two", source=source, facts=FACTS)[0])
    assert first.FrameOfReferenceUID == again.FrameOfReferenceUID


def test_a_source_that_does_not_overlap_is_refused(tmp_path):
    source = patient_series(tmp_path / "s", [0, 2])
    with pytest.raises(InputError, match="outside the images of the DICOM series"):
        write_series(volume(affine=oblique()), tmp_path / "out", source=source, facts=FACTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("MEDGEN_DATA" not in os.environ, reason="real series lie in MEDGEN_DATA")
@pytest.mark.parametrize("modality", ["CT", "T1w"])
@pytest.mark.parametrize(
    "name", ["ct_head_ge_tilt", "ct_head_slicer", "mr_brain_pgbm_study3_t1post", "mr_brain_pgbm_study3_t2reg"]
)
def test_series_of_scanners_as_sources(tmp_path, name, modality):
    source = Path(os.environ["MEDGEN_DATA"]) / "dicom_series" / name
    image = read_volume(source)
    made = Volume(image.array, image.affine, modality)
    files = write_series(made, tmp_path / "out", source=source, facts=FACTS)
    values, mm = largest_difference(made, read_series(tmp_path / "out"))
    assert values <= 0.5 and mm < 1e-3 and judge(files[0], files[-1]) == []
    assert header(files[0]).StudyInstanceUID == header(min(source.iterdir())).StudyInstanceUID


# --- Values -----------------------------------------------------------------------------------


def test_fractions_of_hu_are_rounded(tmp_path):
    original = volume(whole=False)
    write_series(original, tmp_path / "out", facts=FACTS)
    values, _ = largest_difference(original, read_series(tmp_path / "out"))
    assert 0.4 < values <= 0.5


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 5.0), (0.0, 1e-6), (1e5, 9e6)])
def test_mr_of_any_range_keeps_16_bits(tmp_path, low, high):
    array = np.random.default_rng(0).uniform(low, high, (9, 8, 4)).astype(np.float32)
    original = Volume(array, np.diag([1.0, 1.0, 2.0, 1.0]), "T1w")
    files = write_series(original, tmp_path / "out", facts=FACTS)
    step = (high - low) / 65534
    for copy in (read_series(tmp_path / "out"), by_simpleitk(tmp_path / "out")):
        assert largest_difference(original, copy)[0] <= 0.51 * step + np.spacing(np.float32(high))
    assert judge(files[0]) == []


@pytest.mark.parametrize("dtype, top", [(np.uint16, 65535), (np.int16, 32767), (np.uint8, 255)])
def test_integers_in_mr_are_stored_unchanged(tmp_path, dtype, top):
    array = np.arange(60).reshape(5, 4, 3).astype(dtype)
    array[0, 0, 0] = top
    files = write_series(Volume(array, np.eye(4), "MR"), tmp_path / "out", facts=FACTS)
    assert "RescaleSlope" not in header(files[0])
    assert largest_difference(Volume(array.astype(np.float32), np.eye(4)), read_series(tmp_path / "out"))[0] == 0


def test_hu_beyond_16_bits_use_a_slope(tmp_path):
    original = volume()
    original.array[0, 0, 0] = 60000
    files = write_series(original, tmp_path / "out", facts=FACTS)
    assert header(files[0]).RescaleSlope != 1 and judge(files[0]) == []
    assert largest_difference(original, read_series(tmp_path / "out"))[0] <= 0.5


def test_a_constant_image(tmp_path):
    for modality, value in (("CT", 0.0), ("MR", 0.25)):
        original = Volume(np.full((4, 4, 2), value, np.float32), np.eye(4), modality)
        write_series(original, tmp_path / modality, facts=FACTS)
        assert largest_difference(original, read_series(tmp_path / modality))[0] == 0


# --- Invalid input leaves no files ------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"modality": None}, "the modality of this image is not known"),
        ({"modality": "PET"}, '"PET" is neither'),
        ({"value": np.nan}, "NaN or infinite"),
    ],
)
def test_invalid_images_are_refused(tmp_path, change, words):
    image = volume()
    image.array[1, 2, 3] = change.get("value", 0)
    image = Volume(image.array, image.affine, change.get("modality", "CT"))
    with pytest.raises(InputError, match=words):
        write_series(image, tmp_path / "out", facts=FACTS)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_changed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files already"):
        write_series(volume(), tmp_path, facts=FACTS)
    files = write_series(volume(), tmp_path / "out", facts=FACTS)
    before = [path.read_bytes() for path in files]
    with pytest.raises(InputError, match="holds files already"):
        write_series(volume(seed=1), tmp_path / "out", facts=FACTS)
    assert [path.read_bytes() for path in files] == before
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "notes.txt")
    assert len(write_series(volume(), tmp_path / "new" / "series", facts=FACTS)) == 5
    (tmp_path / "empty").mkdir()
    assert len(write_series(volume(), tmp_path / "empty", facts=FACTS)) == 5


def test_no_permission_is_an_input_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")  # tests may run as root, which has all permissions

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Nothing can be written into .*Permission denied; choose another"):
        write_series(volume(), tmp_path / "out", facts=FACTS)


def test_a_full_disk_leaves_no_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written into .*out"):
            write_series(volume((64, 64, 3)), tmp_path / "out", facts=FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_canceled_run_leaves_no_file(tmp_path):
    def stop(progress):
        if progress.step == 3:
            raise Cancelled("Stopped.")

    (tmp_path / "empty").mkdir()
    for folder in ("new", "empty"):
        with pytest.raises(Cancelled):
            write_series(volume(), tmp_path / folder, facts=FACTS, progress=stop)
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
    assert list((tmp_path / "empty").iterdir()) == []


# --- The command and the worker -------------------------------------------------------------------


def test_the_command_writes_a_series_into_the_study(tmp_path, capsys):
    source = patient_series(tmp_path / "s", [0, 2, 4])
    image = read_volume(source)
    path = write_volume(image, tmp_path / "ct.nii.gz")
    words = ["dicom", str(path), "-o", str(tmp_path / "out"), "--like", str(source)]
    assert main(words) == 2
    assert "give it with --modality CT or --modality MR" in capsys.readouterr().err
    assert main([*words, "--modality", "PET"]) == 2
    assert "give CT or MR" in capsys.readouterr().err
    assert main([*words, "--modality", "ct"]) == 0
    printed = capsys.readouterr()
    assert "Wrote 3 DICOM files" in printed.out and "not marked as synthetic" in printed.err
    copy = read_series(tmp_path / "out")
    assert largest_difference(image, copy)[0] == 0
    assert header(tmp_path / "out" / "CT0001.dcm").StudyInstanceUID == STUDY
    assert main([*words, "--modality", "ct"]) == 2
    assert "holds files already" in capsys.readouterr().err


def test_the_command_selects_one_of_several_series(tmp_path, capsys):
    patient_series(tmp_path / "s", [0, 2])
    source = patient_series(tmp_path / "s" / "b", [0, 2], series="1.2.3.4.301", SeriesNumber=8)
    path = write_volume(read_volume(source), tmp_path / "ct.nrrd")
    words = ["dicom", str(path), "-o", str(tmp_path / "out"), "--like", str(tmp_path / "s")]
    assert main([*words, "--modality", "CT"]) == 2
    assert "choose one with --series" in capsys.readouterr().err
    assert main([*words, "--modality", "CT", "--series", "301"]) == 0
    assert header(tmp_path / "out" / "CT0002.dcm").SeriesNumber == 9008


def test_the_command_reads_the_provenance(tmp_path, capsys):
    made = Provenance(model="mr-hippocampus", version="1.0.0", modality="T1w", seed=3)
    path = write_volume(volume(modality="T1w"), tmp_path / "mr.nii.gz")
    made.write_beside(path)
    assert main(["dicom", str(path), "-o", str(tmp_path / "out")]) == 0
    assert "not marked" not in capsys.readouterr().err
    first = header(tmp_path / "out" / "MR0001.dcm")
    assert first.SeriesDescription == "SYNTHETIC T1w mr-hippocampus 1.0.0"
    assert recorded.read(tmp_path / "out").seed == 3


def test_the_command_warns_before_it_writes(tmp_path, capsys):
    meters = replace(volume(), affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ volume().affine)
    labels = LabelMap((meters.array > meters.array.mean()).astype(np.uint8), meters.affine)
    image, mask = write_volume(meters, tmp_path / "ct.nrrd"), write_volume(labels, tmp_path / "mask.nrrd")
    main(["dicom", str(image), "-o", str(tmp_path / "a"), "--modality", "CT"])
    shown = capsys.readouterr().err
    assert shown.index("warning: The voxels measure") < shown.index("writing DICOM: ")
    assert shown.index("is not marked as synthetic") < shown.index("writing DICOM: ")
    main(["dicom", str(mask), "-o", str(tmp_path / "b"), "--labels", "--like", str(tmp_path / "a")])
    shown = capsys.readouterr().err
    assert shown.index("warning: The voxels measure") < shown.index("writing DICOM: ")
    assert shown.index("Not all labels have a name") < shown.index("writing DICOM: ")


def test_a_dicom_folder_stays_in_its_study(tmp_path):
    source = patient_series(tmp_path / "s", [0, 2, 4])
    assert main(["dicom", str(source), "-o", str(tmp_path / "out")]) == 0
    first = header(tmp_path / "out" / "CT0001.dcm")
    assert first.StudyInstanceUID == STUDY and "ContentQualification" not in first


def test_the_command_warns_about_another_source(tmp_path, capsys):
    own = patient_series(tmp_path / "own", [0, 2, 4])
    scan = read_volume(own)
    other = scan.with_array(scan.array + 1)
    for name, made_from, warned in (("same", scan, False), ("other", other, True)):
        facts = provenance.Provenance(
            modality="CT", unit="HU", inputs=(provenance.Source.of("image", made_from, "t1.nrrd"),)
        )
        write_volume(scan, tmp_path / f"{name}.nrrd", facts)
        argv = ["dicom", tmp_path / f"{name}.nrrd", "--like", own, "-o", tmp_path / name]
        assert main([str(word) for word in argv]) == 0
        assert ("made from t1.nrrd" in capsys.readouterr().err) == warned


def test_the_worker_writes_series_and_segmentations(tmp_path):
    from types import SimpleNamespace

    from MedGenLib.worker.methods import METHODS
    from MedGenLib.worker.protocol.transfer import put

    job, steps = SimpleNamespace(progress=lambda progress: steps.append(progress.stage)), []
    source = patient_series(tmp_path / "s", [0, 2, 4])
    image = read_volume(source)
    mask = LabelMap(image.array > 15, image.affine, {1: "bone"})
    (tmp_path / "job").mkdir()
    answer = METHODS["dicom"](
        job,
        image=put(image, tmp_path / "job", "image"),
        source=[str(p) for p in source.iterdir()],
        folder=str(tmp_path / "ct"),
        provenance=FACTS,
        description="exported",
    )
    assert header(answer["files"][0]).SeriesInstanceUID == answer["series"]
    assert header(answer["files"][0]).StudyInstanceUID == STUDY
    assert read_facts(tmp_path / "ct") == FACTS and set(steps) == {"writing DICOM"}
    json.dumps(answer)
    answer = METHODS["dicom"](
        job, labels=put(mask, tmp_path / "job", "mask"), source=str(tmp_path / "ct"), folder=str(tmp_path / "seg")
    )
    assert judge(*answer["files"]) == [] and answer["sentences"] == []
    assert header(answer["files"][0]).SeriesDescription.startswith("SYNTHETIC")
    with pytest.raises(InputError, match="both an image and labels, or neither"):
        METHODS["dicom"](job, folder=str(tmp_path / "x"))
