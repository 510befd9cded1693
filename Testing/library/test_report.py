"""The report as an object and as a file."""

import json
import stat

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.report import Attempt, Report


@pytest.fixture
def report():
    failed, passed = OutputCheck(), OutputCheck(figures={"stripe": 1.01})
    failed.fail("seam", "A seam may be visible.")
    return Report(
        model="ct-tissue",
        version="1.0.0",
        task="generate",
        seed=8,
        preset="normal",
        sampler="euler",
        steps=12,
        parameters={"size": (96, 96, 96), "spacing": np.array([2.0, 2, 2])},
        software={"torch": "2.13.0"},
        device="CPU, 2 threads",
        timings={"sampling": 2.5, "decoding": 0.5},
        peak_memory_mib=900.0,
        input_findings=[Finding("warning", "spacing", "The voxels are large.")],
        output_checks=[passed],
        attempts=[Attempt(0, 7, failed), Attempt(0, 8, passed)],
    )


def test_file_holds_everything(report, tmp_path):
    report.write(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["passed"] is True
    assert (read["model"], read["seed"], read["steps"]) == ("ct-tissue", 8, 12)
    assert read["parameters"] == {"size": [96, 96, 96], "spacing": [2.0, 2.0, 2.0]}
    assert read["input_findings"][0]["code"] == "spacing"
    assert read["output_checks"][0]["figures"] == {"stripe": 1.01}
    assert [attempt["check"]["passed"] for attempt in read["attempts"]] == [False, True]
    assert read["attempts"][0]["check"]["findings"][0]["sentence"] == "A seam may be visible."
    assert list(read["timings"]) == ["sampling", "decoding"]
    assert "not for diagnosis" in read["note"]


def test_figures_that_are_not_finite_become_null(report, tmp_path):
    report.output_checks[0].figures = {"dice": np.float32("nan"), "psnr": float("inf")}
    report.write(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["output_checks"][0]["figures"] == {"dice": None, "psnr": None}


def test_passed_needs_input_and_every_sample(report):
    assert report.passed
    report.output_checks.append(report.attempts[0].check)
    assert not report.passed
    assert report.sentences == ["The voxels are large.", "A seam may be visible."]
    report.output_checks.pop()
    report.input_findings.append(Finding("error", "empty-mask", "The mask is empty."))
    assert not report.passed


def test_the_file_can_be_read_by_others_and_leaves_nothing_beside_it(report, tmp_path):
    report.write(tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").stat().st_mode & stat.S_IRUSR


def test_a_failed_write_leaves_the_old_file(report, tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(InputError, match="No space left; choose another path"):
        report.write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_one_sentence(report, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        report.write(tmp_path / "missing" / "report.json")
