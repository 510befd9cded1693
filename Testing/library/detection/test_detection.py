"""Candidates of lesions: where they lie, how they are written and measured, how a detector is trained, what fails."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from balls import write_cases
from dicoms import patient_series
from grids import oblique
from scipy.stats import binom
from tiny_packages import segmenter_metadata, write_detector, write_judge
from workers import temporary_environment

from MedGenLib import cli, detect, detection
from MedGenLib.detection import NO_DIAGNOSIS, hits, peaks
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.metrics.froc import Hits, curve, difference, sensitivity_at, with_interval
from MedGenLib.packages import store
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.training import train
from MedGenLib.training.data.cases import Patches, TrainingCase

BALLS = {(32.0, 44.0, 30.0): 10.0, (55.0, 30.0, 52.0): 7.0}
"""Center in mm along the axes of the grid -> radius in mm."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with temporary_environment(MEDGEN_HOME=str(tmp_path_factory.mktemp("home"))):
        store.add(write_detector(tmp_path_factory.mktemp("packages")).folder)
        yield


def lesions(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[Volume, np.ndarray, list[np.ndarray]]:
    """A CT of a body with two bright balls, their mask, and their centers in LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    places = np.stack(np.indices(shape), -1) * spacing
    array = np.random.default_rng(0).normal(40, 10, shape)
    array[(places - spacing * np.array(shape) / 2)[..., 0] ** 2 > 26**2] -= 1040
    mask, centers = np.zeros(shape, np.uint8), []
    for number, (center, radius) in enumerate(BALLS.items(), 1):
        mask[((places - center) ** 2).sum(-1) < radius**2] = number
        centers.append(np.array([-1, -1, 1]) * (affine @ [*(center / spacing), 1])[:3])
    array[mask > 0] = 210
    return Volume(array.astype(np.int16), affine, "CT", "HU"), mask, centers


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * np.count_nonzero(found & true) / (found.sum() + true.sum())


# Where candidates lie


def test_candidates_of_an_oblique_anisotropic_volume_lie_where_its_lesions_do(tmp_path, capsys):
    image, mask, centers = lesions(oblique((1.5, 1.8, 3.0)), (56, 40, 28))
    path, out = write_volume(image, tmp_path / "ct.nii.gz"), tmp_path / "out"
    files = {"-o": "c.seg.nrrd", "--markups": "c.mrk.json", "--table": "c.csv", "--report": "c.json"}
    words = [word for option, name in files.items() for word in (option, str(out / name))]
    assert cli.main(["detect", str(path), "--model", "tiny-detector", *words]) == 0
    printed = capsys.readouterr()
    assert NO_DIAGNOSIS in printed.err and "diameter_mm" in printed.out
    points = json.loads((out / "c.mrk.json").read_text())["markups"][0]
    assert points["coordinateSystem"] == "LPS" and len(points["controlPoints"]) == 2
    labels, rows = read_label_map(out / "c.seg.nrrd"), list(csv.DictReader((out / "c.csv").open()))
    assert labels.geometry.is_close(image.geometry) and labels.names == {1: "lesion 1", 2: "lesion 2"}
    for number, (row, point, radius) in enumerate(zip(rows, points["controlPoints"], BALLS.values(), strict=True), 1):
        which = np.argmin([np.linalg.norm(center - point["position"]) for center in centers])
        assert radius == list(BALLS.values())[which]
        assert np.linalg.norm(centers[which] - point["position"]) < 2.0  # of voxels of 2 mm
        assert overlap(labels.array == number, mask == which + 1) > 0.7  # slices of 3 mm cut into the small one
        assert abs(float(row["diameter_mm"]) - 2 * radius) < 2.5
    report = json.loads((out / "c.json").read_text())
    assert report["note"] == NO_DIAGNOSIS and report["model"] == "tiny-detector" and len(report["candidates"]) == 2
    cropped = Volume(image.array[:, 6:, 3:], image.affine @ shift(0, 6, 3), "CT", "HU")
    again = detect(cropped, model="tiny-detector", device="cpu").candidates
    for one, point in zip(again, points["controlPoints"], strict=True):
        assert np.linalg.norm(np.subtract(one.position_lps, point["position"])) < 2.1


def shift(*voxels: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_a_dicom_series_gets_a_dicom_segmentation(tmp_path, capsys):
    image, mask, _ = lesions(np.diag([2.0, 2.0, 2.0, 1.0]), (44, 40, 36))
    series = patient_series(
        tmp_path / "series", np.arange(36) * 2.0, size=(44, 40), pixel=(2.0, 2.0), pixels=image.array.transpose(2, 1, 0)
    )
    words = ["-o", str(tmp_path / "c.nii.gz"), "--dicom", str(tmp_path / "seg"), "--model", "tiny-detector"]
    assert cli.main(["detect", str(series), *words]) == 0
    made = read_label_map(tmp_path / "seg" / "segmentation.dcm")
    there = read_volume(series)
    assert [made.names[value] for value in made.values()] == ["lesion 1", "lesion 2"]
    assert np.count_nonzero(made.array) == np.count_nonzero(read_label_map(tmp_path / "c.nii.gz").array)
    assert overlap(read_label_map(tmp_path / "c.nii.gz").array > 0, there.array > 140) > 0.85
    words = ["-o", str(tmp_path / "none.nii.gz"), "--dicom", str(tmp_path / "none"), "--model", "tiny-detector"]
    assert cli.main(["detect", str(series), *words, "--threshold", "1"]) == 0
    assert not read_label_map(tmp_path / "none.nii.gz").array.any() and not (tmp_path / "none").exists()
    assert "Without a candidate there is no DICOM segmentation." in capsys.readouterr().out


def test_a_maximum_in_the_region_of_a_higher_one_is_none_and_each_voxel_has_one_candidate():
    heat = np.zeros((30, 9, 9), np.float32)
    heat[5:9, 4, 4] = 0.9, 0.6, 0.8, 0.5  # one region with two maxima
    heat[20, 4, 4], heat[25, 4, 4] = 0.7, 0.04
    found = peaks(heat)
    assert [round(one.score, 2) for one in found] == [0.9, 0.7] and [one.region.sum() for one in found] == [4, 1]
    assert peaks(heat, 0.8)[0].index == (6, 4, 4) and len(peaks(heat, 0.8)) == 1
    mask = np.zeros(heat.shape)
    mask[6:12, 4, 4] = 1
    assert hits(found, mask) == Hits((found[0].score, found[1].score), (1, 0), 1)


# FROC


def test_froc_counts_each_lesion_once_and_any_other_candidate_as_false():
    cases = [Hits((0.9, 0.8, 0.7, 0.2), (1, 1, 0, 2), 2), Hits((0.85, 0.6), (0, 1), 1)]
    thresholds, false, sensitivity = curve(cases)
    np.testing.assert_allclose(thresholds[1:], [0.9, 0.85, 0.7, 0.6, 0.2])
    np.testing.assert_allclose(false, [0, 0, 0.5, 1, 1, 1])
    np.testing.assert_allclose(sensitivity, np.array([0, 1, 1, 1, 2, 3]) / 3)
    assert sensitivity_at(cases, 0.25) == pytest.approx(1 / 3) and sensitivity_at(cases, 1) == 1
    assert sensitivity_at([Hits((0.5,), (0,), 0)]) is None


def test_the_interval_is_that_of_a_proportion_where_each_case_has_one_lesion():
    """Without false positives the resampled sensitivity is a binomial share of the cases."""
    cases = [Hits((0.9,) * (n < 28), (1,) * (n < 28), 1) for n in range(40)]
    value, (low, high) = with_interval(cases)
    assert value == 0.7
    np.testing.assert_allclose([low, high], binom.ppf([0.025, 0.975], 40, 0.7) / 40, atol=0.026)
    nothing, everything = [Hits((), (), 1)] * 40, [Hits((0.9,), (1,), 1)] * 40
    gain, limits = difference(nothing, cases)
    assert gain == 0.7 and limits == pytest.approx((low, high))
    least = 0.025 ** (1 / 40)
    assert with_interval(everything) == (1, pytest.approx((least, 1)))
    assert with_interval(nothing) == (0, pytest.approx((0, 1 - least)))
    # Half of the lesions of every case: no resample differs, but another case could.
    halves = [Hits((0.9,), (1,), 2)] * 40
    assert with_interval(halves) == (0.5, pytest.approx((0.5 * least, 1 - 0.5 * least)))
    assert difference(cases, cases) == (0.0, pytest.approx((least - 1, 1 - least)))
    assert difference(nothing, everything) == (1.0, pytest.approx((2 * least - 1, 1)))


def test_a_detector_of_chance_finds_as_many_lesions_as_there_is_room_for():
    """Hits and false positives have the same scores, so that as large a share of either is found."""
    rng = np.random.default_rng(0)
    cases = [Hits(tuple(rng.random(11)), (1, *(0,) * 10), 1) for _ in range(2000)]
    assert sensitivity_at(cases, 1.0) == pytest.approx(0.1, abs=0.02)
    assert sensitivity_at(cases, 5.0) == pytest.approx(0.5, abs=0.03)


# Training


def test_the_recipe_trains_a_detector_on_the_data_set_of_a_cohort(tmp_path):
    write_cases(tmp_path / "cases", range(4))
    (tmp_path / "cases" / "images").rename(tmp_path / "cases" / "imagesTr")
    (tmp_path / "cases" / "labels").rename(tmp_path / "cases" / "labelsTr")
    for path in (tmp_path / "cases" / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    for path in (tmp_path / "cases" / "labelsTr").iterdir():
        labels = read_label_map(path)
        write_volume(LabelMap((labels.array > 1).astype(np.uint8), labels.affine), path)
    config = json.loads((Path(detection.__file__).parents[1] / "training/configs/lesion-detector.json").read_text())
    config["data"]["folder"] = str(tmp_path / "cases")
    config["segmenter"] = {"patch": [16, 24, 16], "network": {"widths": [8, 16], "blocks": [1, 1], "stem": 4}}
    steps = {"steps": 10, "batch": 2, "learning_rate": 0.01, "warmup": 2, "validate_every": 10}
    config["optimisation"]["segmenter"] |= steps
    config["package"]["medgen"] |= {
        "spacing_mm": {"min": 0.5, "max": 2, "native": 1},
        "input": {"kind": "image", "modality": "MR"},
        "preprocessing": {"name": "z-score", "low": -3, "high": 5},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = load_manifest(train("segmenter", tmp_path / "config.json", tmp_path / "out", threads=1, device="cpu"))
    assert (made.task, made.pipeline, made.settings.threshold) == ("detect", "detection", 0.5)
    last = json.loads((tmp_path / "out" / "validation.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["sensitivity_low"] <= last["sensitivity"] <= last["sensitivity_high"] <= 1


def test_patches_about_a_label_hold_it():
    labels = np.zeros((40, 12, 30), np.uint8)
    labels[37, 3, 2] = 1
    patches = Patches([TrainingCase("one", labels.astype(np.float32), labels)], (8, 16, 8), labeled=1.0)
    box = (slice(0, 8), slice(None), slice(0, 8))
    drawn = [patches._about_label(labels, box, np.random.default_rng(n)) for n in range(50)]
    assert all(labels[one].any() and labels[one].shape == (8, 12, 8) for one in drawn)
    assert {one[0].start for one in drawn} == {30, 31, 32} and {one[2].start for one in drawn} == {0, 1, 2}


# What is refused


def test_what_cannot_be_searched_is_refused_in_one_sentence(tmp_path, capsys):
    store.add(write_judge(tmp_path / "judge", segmenter_metadata()).folder)
    image, mask, _ = lesions(np.diag([2.0, 2.0, 2.0, 1.0]), (44, 40, 36))
    ct = write_volume(image, tmp_path / "ct.nii.gz")
    labels = write_volume(LabelMap(mask, image.affine), tmp_path / "mask.nii.gz")
    small = write_volume(Volume(image.array[:, :10], image.affine, "CT", "HU"), tmp_path / "small.nii.gz")
    for words, sentence in (
        ((ct, "--model", "tiny-segmenter"), "finds labels in images"),
        ((ct, "--model", "none"), "no model named 'none'"),
        ((labels,), "looks like a mask"),
        ((ct, "--modality", "T1w"), "needs CT in HU"),
        ((small,), "give a larger one"),
        ((ct, "--dicom", tmp_path / "seg"), "is no DICOM folder"),
        ((ct, "--deidentify"), "add --dicom"),
        ((ct, "--threshold", "1.5"), "0.05 to 1"),
    ):
        command = ["detect", *map(str, words), "-o", str(tmp_path / "out" / "c.nii.gz")]
        assert cli.main(command + ["--model", "tiny-detector"] * ("--model" not in words)) == 2
        error = capsys.readouterr().err
        assert sentence in error and "Traceback" not in error, error
    assert not (tmp_path / "out").exists() and not (tmp_path / "seg").exists()
