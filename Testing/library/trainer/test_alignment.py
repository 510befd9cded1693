"""Loosely registered pairs: targets are warped onto their sources before the translator learns from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage
from workers import temporary_environment

from MedGenLib import cli
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.training.data.alignment import align, field_of_view, within_field

SPACING = (2.0, 2.0, 3.0)


def limb(shape=(48, 48, 24), center=(24.0, 22.0), bone=(28.0, 20.0)) -> np.ndarray:
    """A CT of an oval limb with a hollow bone; it grows thicker along z."""
    i, j, k = np.meshgrid(*map(np.arange, shape), indexing="ij")
    far = np.hypot(i - center[0], j - center[1])
    shaft = np.hypot(i - bone[0], j - bone[1])
    hu = np.where(far < 17 + k / 12, -100.0, -1000.0)
    hu[far < 13 + k / 12] = 55
    hu[shaft < 5] = 900
    hu[shaft < 2] = -60
    return ndimage.gaussian_filter(hu, 0.7).astype(np.float32)


def moved(hu: np.ndarray) -> np.ndarray:
    """Shifted by 6 mm and bent by up to 4 mm, smoothly."""
    grid = np.stack(np.meshgrid(*map(np.arange, hu.shape), indexing="ij")).astype(float)
    grid[0] += 3 + 2 * np.sin(grid[2] / 8)
    grid[1] += 1.5 * np.cos(grid[0] / 12)
    return ndimage.map_coordinates(hu, grid, order=1, mode="nearest")


def dice_of_bone(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a > 300, b > 300
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_known_movement_is_undone_without_folds():
    real = limb()
    found = align(real, moved(real), np.ones(real.shape, bool), SPACING)
    assert dice_of_bone(real, moved(real)) < 0.5
    assert dice_of_bone(real, found.target) > 0.9
    assert 4 < found.moved_mm < 10
    assert found.squeezed > 0


def test_an_aligned_pair_stays_where_it_is():
    real = limb()
    found = align(real, real, np.ones(real.shape, bool), SPACING)
    assert found.moved_mm < 0.2
    assert np.abs(found.target - real).max() < 20


def test_nothing_pulls_beyond_the_field_of_view():
    """The translation is air outside of the field of an MR, where the target shows the body."""
    real = limb()
    known = np.zeros(real.shape, bool)
    known[8:40, 6:38] = True
    made = np.where(known, real, -1000)
    found = align(made, moved(real), known, SPACING)
    assert dice_of_bone(real[known], found.target[known]) > 0.88


def test_both_images_end_with_the_field_of_view():
    mr = np.zeros((20, 20, 8))
    mr[4:15, 5:16] = 1.0
    mr[9:11, 9:11] = 0.0  # cortical bone without signal belongs to the field
    ct = np.full(mr.shape, 40.0)
    assert field_of_view(mr)[9, 9].all()
    found = within_field({"source": mr, "target": ct}, {"source": "T1w", "target": "CT"})
    assert found["target"].shape == (11, 11, 8)
    assert (found["target"] == 40).all()
    turned = ndimage.rotate(mr, 20, reshape=False, order=0)
    found = within_field({"source": turned, "target": ct}, {"source": "T1w", "target": "CT"})
    assert set(np.unique(found["target"])) == {-1000.0, 40.0}
    with pytest.raises(InputError, match="no signal"):
        within_field({"source": 0 * mr, "target": ct}, {"source": "T1w", "target": "CT"})


@pytest.fixture
def pairs(tmp_path):
    """Three people whose CT lies 6 mm beside the MR, in which dense tissue is bright and bone is dark."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for number in range(3):
        hu = limb(bone=(26.0 + number, 20.0))
        mr = np.interp(hu, [-1000, -500, -100, 55, 300], [0, 20, 900, 400, 30])
        for side, image in (("mr", mr.astype(np.float32)), ("ct", moved(hu).round().astype(np.int16))):
            folder = tmp_path / "data" / side
            folder.mkdir(parents=True, exist_ok=True)
            write_volume(Volume(image, affine), folder / f"p{number}.nii.gz")
    return tmp_path / "data"


@pytest.mark.slow
def test_medgen_train_aligns_before_it_learns(pairs, tmp_path, capsys):
    changes = {
        "align": "true",
        "network.widths": "[8, 16]",
        "network.blocks": "[1, 1]",
        "steps.alignment": "120",
        "steps.regression": "4",
        "batch": "4",
        "patch": "48",
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    with temporary_environment(MEDGEN_HOME=str(tmp_path / "home")):
        run = ["train", str(pairs), "--out", str(tmp_path / "run"), "--recipe", "regression", "--device", "cpu", *words]
        assert cli.main(run) in (0, 3)
        figures = json.loads((tmp_path / "run/alignment/targets/alignment.json").read_text())
        plan = json.loads((tmp_path / "run/plan.json").read_text())
        assert set(figures) == {f"p{n}" for n in range(3)} - set(plan["held_out"])
        for name, entry in figures.items():
            assert entry["moved_mm"] > 1
            real = limb(bone=(26.0 + int(name[1]), 20.0))
            warped = np.load(tmp_path / f"run/alignment/targets/{name}.npy").astype(float)
            assert dice_of_bone(real, warped[::-1, ::-1]) > dice_of_bone(real, moved(real)) + 0.2
        wrong = [*run[:3], str(tmp_path / "other"), *run[4:5], "cut", *run[6:]]
        assert cli.main(wrong) == 2
    assert "nothing to align" in capsys.readouterr().err
