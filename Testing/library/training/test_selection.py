"""The weights that are exported are those whose images were nearest to the people who choose them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from MedGenLib.training.loop import Objective, OptimizationSettings, Trainer
from MedGenLib.training.selection import SELECTED, feature_distance
from MedGenLib.training.splits import hold_out_both

STEPS, BEST = 8, 5


def textures(seed: int, width: float, count: int = 2) -> list[np.ndarray]:
    noise = np.random.default_rng(seed).normal(0, 1, (count, 20, 20, 20))
    smooth = [gaussian_filter(volume, width) for volume in noise]
    return [volume / volume.std() for volume in smooth]


class Moving:
    """A network with one weight that grows in each step; its images are most like the real ones after `BEST` steps."""

    def __init__(self) -> None:
        self.networks: dict[str, nn.Module] = {"one": nn.Linear(1, 1, bias=False)}
        nn.init.zeros_(self.networks["one"].weight)
        self.objectives = [Objective("growth", ("one",), self._loss)]
        self.looked: list[float] = []

    def _loss(self, batch, draw):
        return -self.networks["one"].weight.sum(), {}

    def batch(self, draw, size):
        return {"x": torch.zeros(size)}

    def validate(self, networks, step, log):
        return {}

    def samples(self, networks):
        weight = float(networks["one"].weight.detach())
        self.looked.append(weight)
        steps = weight / 0.01
        return textures(1, 1 + 0.4 * abs(steps - BEST)), textures(2, 1)

    def export(self, networks, step, out: Path) -> Path:
        self.exported = float(networks["one"].weight.detach())
        return out


def test_the_best_weights_are_exported_also_after_a_kill(tmp_path):
    how = {"warmup": 0, "decay": 0.0, "ema": 0.0, "validate_every": 1, "checkpoint_every": 2, "weight_decay": 0.0}
    settings = OptimizationSettings(STEPS, batch=1, learning_rate=0.01, **how)

    def kill(progress):
        if progress.step == BEST + 2:
            raise KeyboardInterrupt

    straight, again = Moving(), Moving()
    Trainer(straight, settings, tmp_path / "straight").run()
    assert straight.exported == pytest.approx(0.01 * BEST, rel=0.05)
    assert min(straight.looked) > 0.01 * (STEPS // 2 - 1)  # only in the second half
    assert straight.exported < max(straight.looked) - 0.01
    with pytest.raises(KeyboardInterrupt):
        Trainer(again, settings, tmp_path / "again", progress=kill).run()
    resumed = Moving()
    Trainer(resumed, settings, tmp_path / "again").run()
    assert resumed.exported == straight.exported and (tmp_path / "again" / SELECTED).is_file()


def test_the_distance_sees_blur_and_constant_images():
    real = textures(2, 1)
    alike, blurred = feature_distance(textures(1, 1), real), feature_distance(textures(1, 3), real)
    assert 0 < alike < 0.5 * blurred
    assert feature_distance([np.zeros((20, 20, 20))] * 2, real) == float("inf")


def test_people_who_measure_and_who_choose_are_different():
    measure, choose = hold_out_both((f"p{n}" for n in range(208)), "cases")
    assert (len(measure), len(choose)) == (40, 16) and not set(measure) & set(choose)
    assert hold_out_both((f"p{n}" for n in range(12)), "cases")[1] is None
