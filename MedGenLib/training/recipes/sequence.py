"""Recipe `sequence`: a series over time from its first image, such as breathing, a heartbeat, or contrast medium.

Loss: mean absolute error of the frames after the first one, ``smooth`` times the mean squared slope of the
displacements, and ``residual`` times the mean absolute residual, so that motion explains what it can.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.sequence_net import SequenceNet, animated
from MedGenLib.training.data.images import ImageSeries
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, to_device_of
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.image_classifier import changed

CHECKED = 4
"""Series of a validation."""


@recipe("sequence")
class SequenceRecipe(DataRecipe):
    """Recipe of the module. The configuration has ``data``, ``network`` and ``loss``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config, self.loss = config, config["loss"]
        self.networks: dict[str, nn.Module] = {"sequence": SequenceNet(**config["network"])}
        self.objectives = [Objective("sequence", ("sequence",), self._objective)]

    @cached_property
    def data(self) -> ImageSeries:
        return ImageSeries(self.config, "cases")

    @cached_property
    def held(self) -> ImageSeries:
        return ImageSeries(self.config, "held_cases")

    def random_batch(self, size: int) -> dict[str, Tensor]:
        """Noise in the form of a batch, to time a step without data."""
        return {"image": torch.randn(size, 1, self.config["network"]["frames"], *self.config["data"]["grid"]["shape"])}

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        """Series, all frames of which are turned, moved, scaled and made lighter or darker alike."""
        return {"image": changed(self.data.sample(draw.numpy, size)["image"][:, 0], draw.torch)[:, None]}

    def _objective(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        frames = batch["image"][:, 0]
        first = frames[:, :1]
        displacement, residual = self.networks["sequence"](first)
        error = F.l1_loss(animated(first, displacement[:, 1:], residual[:, 1:]), frames[:, 1:])
        slope = sum(displacement.diff(dim=axis).square().mean() for axis in (-3, -2, -1))
        change = residual.abs().mean()
        figures = {"l1": error, "slope": slope, "residual": change}
        loss = error + self.loss["smooth"] * slope + self.loss["residual"] * change
        return loss, {name: float(value.detach()) for name, value in figures.items()}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Error on people kept out, and that of their first frames repeated."""
        network, errors, still, shown = networks["sequence"], [], [], []
        for values in self.held.values[:CHECKED]:
            frames = to_device_of(network, {"image": torch.from_numpy(values.astype(np.float32))})["image"][None]
            made = animated(frames[:, :1], *network(frames[:, :1]))
            errors.append(float(F.l1_loss(made[:, 1:], frames[:, 1:])))
            changes = (frames - frames[:, :1]).abs().mean((0, 2, 3, 4))
            still.append(float(changes[1:].mean()))
            far = int(changes.argmax())
            middle = frames.shape[3] // 2
            parts = [
                x[0, n, :, middle].cpu().numpy().T[::-1, ::-1] for x, n in ((frames, 0), (frames, far), (made, far))
            ]
            shown.append(np.concatenate([*parts, parts[2] - parts[1] + frames.mean().item()], 1))
        rows = np.concatenate(shown)
        low, high = np.percentile(rows, (0.5, 99.5))
        log.picture("validation/first_real_made_difference", (rows - low) / max(high - low, 1e-6), step)
        return {"l1": float(np.mean(errors)), "no_motion": float(np.mean(still))}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        held_out = self.config["data"]["held_out"]
        return export_package(self.config, networks, step=step, held_out=held_out, statistics={}, out=out)
