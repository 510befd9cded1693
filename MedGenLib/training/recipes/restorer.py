"""Recipe `restorer`: a network that adds missing detail to thick slices and removes noise.

Supervised on degraded images. The absolute error of a patch counts relative to that of the degraded patch, so that
slightly and heavily degraded patches weigh the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.enhancement.restoring import CONDITIONS
from MedGenLib.networks import Restorer
from MedGenLib.training.data.degraded import DegradedPatches
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, start_from, to_device_of
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe

SLIGHT = 0.02
"""Error of a degraded patch, in network units, below which its share of the loss becomes small."""
CHECKED = 48
"""Patches of a validation."""


@recipe("restorer")
class RestorerRecipe(DataRecipe):
    """Recipe of the module. The configuration's sections are ``data`` and ``restorer``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        self.data = DegradedPatches(config, config["restorer"]["patch"])
        restorer = Restorer(**config["restorer"]["network"], conditions=CONDITIONS)
        start_from(config, out, "restorer", restorer)
        self.networks: dict[str, nn.Module] = {"restorer": restorer.to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective("restoration", ("restorer",), self._loss)]

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        made = self.networks["restorer"](batch["image"], batch["conditions"])
        after, before = ((image - batch["target"]).abs().mean((1, 2, 3, 4)) for image in (made, batch["image"]))
        loss = (after / (before + SLIGHT)).mean()
        return loss, {"restoration": float(loss.detach()), "error": float(after.mean().detach())}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Mean squared error of fixed patches of held-out images, relative to that of the degraded patches in dB."""
        network, gains = networks["restorer"], []
        for index in range(CHECKED):
            draw = np.random.default_rng([7, index])
            batch = to_device_of(network, self.data.sample(draw, 1, held=bool(self.data.held)))
            before = (batch["image"] - batch["target"]).square().mean()
            after = (network(batch["image"], batch["conditions"]) - batch["target"]).square().mean()
            gains.append(10 * float(torch.log10(before.clamp(min=1e-12) / after.clamp(min=1e-12))))
        return {"gain_db": float(np.mean(gains)), "least_gain_db": float(np.min(gains))}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(self.config, networks, step, self.data.held_out, {}, out)
