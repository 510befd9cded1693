"""`medgen evaluate utility`: trainings on real and synthetic cases, their intervals, refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
from balls import write_cases

from MedGenLib import cli
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.evaluation import utility as module
from MedGenLib.evaluation.utility import SETS, utility
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import read_label_map, write_volume


def renumbered(image, labels):
    """Label values with gaps, as in user data."""
    return image, LabelMap(np.array([0, 3, 7], np.uint8)[labels.array], labels.affine)


def exchanged(image, labels):
    """The values of both labels are exchanged."""
    return image, LabelMap(np.array([0, 7, 3], np.uint8)[labels.array], labels.affine)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("utility")
    write_cases(folder / "real", range(6), renumbered)
    write_cases(folder / "synthetic", range(10, 16), exchanged)
    write_cases(folder / "test", range(20, 25), renumbered)
    return folder


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of the three folders, to be modified."""
    shutil.copytree(folders, tmp_path / "cases")
    return {name: tmp_path / "cases" / name for name in ("real", "synthetic", "test")}


@pytest.fixture
def small(monkeypatch):
    """A network and steps for phantoms."""
    from MedGenLib.training.recipes import segmenter

    def tiny(labels, **_):
        return build(labels, widths=(8, 16), blocks=(1, 1), stem=6)

    build = segmenter.SegmentationUNet
    monkeypatch.setattr(segmenter, "SegmentationUNet", tiny)
    monkeypatch.setattr(module, "LEARNING_RATE", 8e-3)
    monkeypatch.setattr(module, "WARMUP", 5)
    monkeypatch.setattr(module, "AVERAGING", 0.8)


def test_correct_cases_train_a_segmenter_and_wrong_ones_do_not(folders, small):
    seen = set()
    result = utility(
        *(folders / name for name in ("real", "synthetic", "test")),
        steps=18,
        repeats=2,
        device="cpu",
        progress=lambda step: seen.add(step.stage),
    )
    assert {"reading cases", "training on synthetic, 2 of 2", "training on both, 1 of 2"} <= seen
    assert [row.training for row in result.rows] == list(SETS) * 3
    assert [row.label for row in result.rows] == [3] * 3 + [7] * 3 + [0] * 3
    rows = {(row.training, row.label): row for row in result.rows}
    assert rows["real", 0].dice > 0.7 and rows["real", 0].cases == 6
    assert rows["both", 0].cases == 12
    wrong = rows["synthetic", 0]
    assert wrong.dice < 0.2 and wrong.difference_high < -0.4
    assert rows["real", 0].difference is None
    for row in result.rows:
        assert 0 <= row.low <= row.dice <= row.high <= 1 and row.repeat_sd >= 0
    whole = (rows["real", 3].dice + rows["real", 7].dice) / 2
    assert rows["real", 0].dice == pytest.approx(whole)
    assert result.scores["real"].shape == (2, 5, 2)  # repeats, cases, labels
    assert json.loads(json.dumps(result.to_dict()))["test_cases"][0] == "case_20.nii.gz"


def test_the_same_seed_gives_the_same_weights(folders, small):
    cases = [
        module.renumbered(c, [3, 7])
        for c in module.read_sets({n: folders / n for n in ("real", "synthetic", "test")}, None)["real"]
    ]
    first, again, other = (
        next(module.trained(cases, (16, 16, 16), 2, 3, seed, "cpu", None).parameters()).detach() for seed in (4, 4, 5)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_interval_agrees_with_the_standard_error():
    """For normal values, 1.96 standard errors on both sides."""
    generator = np.random.default_rng(0)
    values = generator.normal(0.8, 0.05, (1, 400))
    low, high = module.interval_of(values, module.draws_of(values.shape, generator))
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=4e-4)
    assert high == pytest.approx(values.mean() + error, abs=4e-4)


def test_the_interval_includes_variation_between_repeats():
    """Equal cases and different repeats: the interval is that of the mean of the repeats."""
    generator = np.random.default_rng(0)
    values = generator.normal(0.8, 0.05, (30, 1)).repeat(5, axis=1)
    low, high = module.interval_of(values, module.draws_of(values.shape, generator))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(30), rel=0.1)


def test_the_difference_is_between_the_same_cases():
    """Cases differ strongly, trainings by 0.01 in each: the interval of the difference is narrow."""
    cases = np.linspace(0.3, 0.9, 20)[None, :, None].repeat(2, axis=0)
    scores = {"real": cases, "synthetic": cases - 0.01, "both": cases}
    rows = module.rows_of(scores, {1: "a"}, dict.fromkeys(SETS, 4), seed=0)
    row = next(row for row in rows if row.training == "synthetic")
    assert row.high - row.low > 0.1
    assert (row.difference_low, row.difference, row.difference_high) == pytest.approx([-0.01] * 3)
    assert row.repeat_sd == pytest.approx(0)


def test_a_case_without_the_label_does_not_count():
    scores = {name: np.array([[[0.8, np.nan], [0.6, 0.4]]]) for name in SETS}
    rows = module.rows_of(scores, {1: "a", 2: "b"}, dict.fromkeys(SETS, 2), seed=0)
    found = {row.label: row.dice for row in rows if row.training == "real"}
    assert found == pytest.approx({1: 0.7, 2: 0.4, 0: (0.8 + 0.5) / 2})
    assert rows[0].repeat_sd is None
    result = module.Utility(rows, {1: "a", 2: "b"}, 1, 1, 0, ("x", "y"), scores)
    assert result.to_dict()["scores"]["real"] == [[[0.8, None], [0.6, 0.4]]]


def test_unusable_cases_are_refused(copied):
    def refused(words):
        with pytest.raises(InputError, match=words) as caught:
            utility(*copied.values(), steps=1)
        assert "\n" not in str(caught.value)

    shutil.copy(copied["real"] / "images" / "case_00.nii.gz", copied["test"] / "images")
    shutil.copy(copied["real"] / "labels" / "case_00.nii.gz", copied["test"] / "labels")
    refused("case_00.nii.gz is both in .* a test case must not be trained on")
    (copied["test"] / "images" / "case_00.nii.gz").unlink()

    for path in (copied["synthetic"] / "labels").iterdir():
        labels = read_label_map(path)
        write_volume(labels.with_array(np.where(labels.array == 7, 0, labels.array)), path)
    refused("The label 7 occurs in .*real but not in .*synthetic")

    for path in sorted((copied["test"] / "images").iterdir())[1:]:
        path.unlink()
    refused("holds one case; an interval needs at least two")
    shutil.rmtree(copied["test"] / "images")
    refused("cannot be read")


def test_a_training_can_be_stopped(folders):
    def stop(step):
        if step.stage.startswith("training"):
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        utility(*(folders / n for n in ("real", "synthetic", "test")), steps=5, progress=stop)


def test_the_command_writes_its_report(folders, tmp_path, small, capsys):
    report = tmp_path / "report"
    words = ["evaluate", "utility", "--steps", "2", "--repeats", "1", "--device", "cpu"]
    for name in ("real", "synthetic", "test"):
        words += [f"--{name}", str(folders / name)]
    words += ["--report", str(report)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "training" in said and "mean of all labels" in said and "5 real test cases" in said
    assert {path.name for path in report.iterdir()} == {"report.html", "metrics.json", "metrics.csv", "dice.png"}
    rows = list(csv.DictReader((report / "metrics.csv").open()))
    figures = json.loads((report / "metrics.json").read_text())
    assert len(rows) == len(figures["rows"]) == 9
    page = (report / "report.html").read_text()
    assert "data:image/png;base64" in page and "<td" in page and "synthetic" in page
    assert not re.search(r"(src|href)=.http|url\(", page)  # nothing from outside
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err
