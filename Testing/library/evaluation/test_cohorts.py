"""`medgen evaluate distribution`: folders to sentences and a report."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.cli import main
from MedGenLib.evaluation import cohorts
from MedGenLib.evaluation.cohorts import FILES, evaluate_cohorts
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.io.provenance import Provenance, Source
from MedGenLib.packages.catalogue import find


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """One cache for the module, as volumes are reused."""
    home = tmp_path_factory.getbasetemp() / "cohorts-home"
    monkeypatch.setenv("MEDGEN_HOME", str(home))


def texture(seed: int, blur: float = 1.0, size: int = 24) -> np.ndarray:
    generator = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(generator.normal(size=(size,) * 3), blur)
    return (500 + 100 * noise / noise.std()).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten volumes each: real, new of the same kind, blurred, and training images."""
    root = tmp_path_factory.mktemp("cohorts")
    for number, (name, blur) in enumerate((("real", 1.0), ("fresh", 1.0), ("blurred", 2.0), ("training", 1.0))):
        (root / name).mkdir()
        for case in range(10):
            volume = Volume(texture(100 * number + case, blur), np.eye(4), "MR")
            write_volume(volume, root / name / f"case_{case}.nii.gz")
    return root


def run(*arguments) -> int:
    return main(["evaluate", "distribution", *map(str, arguments), "--device", "cpu"])


@pytest.mark.slow
def test_the_shipped_network_separates_blurred_from_sharp_volumes(folders):
    fresh, blurred = (
        evaluate_cohorts(folders / name, folders / "real", device="cpu").comparison for name in ("fresh", "blurred")
    )
    assert blurred.value("FID") > 5 * fresh.value("FID")
    assert blurred.value("MMD") > 5 * abs(fresh.value("MMD"))
    limit = next(m for m in fresh.measures if m.name == "FID infinity")
    assert limit.low <= 0 <= limit.high


def test_the_command_writes_a_report_or_nothing(folders, tmp_path, capsys):
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    for path in (folders / "fresh").iterdir():
        (synthetic / path.name).write_bytes(path.read_bytes())
    copied = folders / "training" / "case_3.nii.gz"
    (synthetic / "copied.nii.gz").write_bytes(copied.read_bytes())
    report = tmp_path / "report"
    options = ("--reference", folders / "real", "--training", folders / "training", "--report", report)
    assert run(synthetic, *options) == 0
    printed = capsys.readouterr()
    assert "FID infinity" in printed.out and "coverage" in printed.out
    assert "1 of 11 synthetic images look like copies" in printed.out
    assert "synthetic/copied looks like a copy of the training image training/case_3" in printed.err
    assert sorted(p.name for p in report.iterdir()) == sorted(FILES)
    data = json.loads((report / "metrics.json").read_text())
    assert data["volumes"] == {"real": 10, "synthetic": 11, "training": 10}
    found = {m["name"]: m for m in data["measures"]}
    assert found["FID"]["low"] < found["FID"]["value"] < found["FID"]["high"]
    assert [n["name"] for n in data["memorization"]["nearest"] if n["copied"]] == ["synthetic/copied"]
    rows = list(csv.DictReader((report / "metrics.csv").open()))
    assert {row["name"] for row in rows} == set(found)
    html = (report / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=['\"]https?:", html)
    assert run(synthetic, *options) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(synthetic, *options, "--overwrite", "--seed", 1, "--quiet") == 0


def test_a_refused_cohort_leaves_no_files(folders, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    write_volume(Volume(texture(7), np.eye(4), "MR"), alone / "one.nii.gz")
    report = tmp_path / "report"
    assert run(alone, "--reference", folders / "real", "--report", report) == 2
    assert "synthetic cohort has 1 volume, but a distribution needs at least 2" in (capsys.readouterr().err)
    assert not report.exists()
    real = folders / "real"
    assert run(folders / "fresh", "--reference", real, "--report", real / "report") == 2
    assert f"would lie among the images in {real}" in capsys.readouterr().err
    assert run(real, "--reference", real, "--training", alone) == 2
    assert "training cohort has 1 volume" in capsys.readouterr().err
    write_volume(Volume(np.full((24,) * 3, 9, np.float32), np.eye(4), "MR"), alone / "two.nii.gz")
    assert run(alone, "--reference", real) == 2
    assert "synthetic/two is constant or contains only air" in capsys.readouterr().err
    write_volume(Volume(np.full((24,) * 3, np.nan, np.float32), np.eye(4)), alone / "two.nii.gz")
    assert run(alone, "--reference", real) == 2
    assert "NaN" in capsys.readouterr().err
    assert run(alone, "--reference", real, "--features", tmp_path / "none.pt") == 2
    assert "none.pt cannot be read" in capsys.readouterr().err
    assert run(alone, "--reference", tmp_path / "absent") == 2
    assert "There is no folder" in capsys.readouterr().err


def test_another_spacing_is_resampled_and_reported(folders, tmp_path):
    for case in range(2):
        coarse = Volume(texture(case, size=30), np.diag([0.8, 0.8, 0.8, 1]), "MR")
        write_volume(coarse, tmp_path / f"{case}.nii.gz")
    found = evaluate_cohorts(tmp_path, folders / "real", device="cpu")
    assert found.notes[0].startswith("2 volumes with a spacing other than that of real/case_0 had")
    assert found.comparison.value("FID infinity") is None


def test_mr_is_not_compared_with_ct(folders, tmp_path, capsys):
    """Files without modality: bodies of 40 HU in air."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    for case in range(3):
        noise = 15 * np.random.default_rng(case).normal(size=(24,) * 3)
        hu = np.where(np.square(grid).sum(0) < 0.8, 40.0, -1000.0) + noise
        write_volume(Volume(hu.astype(np.float32), np.eye(4)), tmp_path / f"{case}.nii.gz")
    assert run(tmp_path, "--reference", folders / "real") == 2
    assert "Most synthetic volumes look like CT" in capsys.readouterr().err


def test_seeds_of_one_input_are_found_by_provenance(folders, tmp_path):
    for case in range(4):
        path = tmp_path / f"v{case}.nii.gz"
        write_volume(Volume(texture(case), np.eye(4), "MR"), path)
        mask = Source("mask", "mask.nii.gz", str(case // 2))
        Provenance(model="mr-hippocampus", seed=case, inputs=(mask,)).write_beside(path)
    assert cohorts.same_input(sorted(tmp_path.glob("*.nii.gz"))) == [[0, 1], [2, 3]]
    found = evaluate_cohorts(tmp_path, folders / "real", device="cpu")
    assert 0.3 < found.comparison.value("seed diversity") < 3
    assert cohorts.same_input(sorted((folders / "real").iterdir())) == []


def test_the_shipped_package_is_small_and_its_card_has_measurements():
    manifest = find("medgen-features")
    assert manifest.task == "features"
    assert manifest.license.spdx == "CC-BY-4.0"
    assert sum(f.stat().st_size for f in manifest.folder.rglob("*") if f.is_file()) < 3 * 2**20
    assert "MSD hippocampus" in " ".join(manifest.training.held_out)
    assert "random weights" in manifest.card
