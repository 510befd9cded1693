"""Recipe `classifier`: labels of noisy latents, for the classifier guidance of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.diffusion.flow import velocity_target
from MedGenLib.networks import LatentClassifier
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network as trained_network
from MedGenLib.training.data import read_data
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, to_device_of
from MedGenLib.training.package import extend_package
from MedGenLib.training.recipes import recipe

ROLE = "classifier"
VALIDATION_TIMES = (0.1, 0.5, 0.9)


@recipe("classifier")
class ClassifierRecipe(DataRecipe):
    """Recipe of the module. The configuration's sections are ``data`` and ``classifier``.

    ``classifier`` has ``package`` (an installed package with the autoencoder, to which the classifier is added),
    ``patch`` and the arguments of the ``network``.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        section = config["classifier"]
        self.package = find(section["package"])
        self.data = read_data(config, section["patch"])
        self.labels = max(self.package.input.labels) + 1
        self.autoencoder = trained_network(self.package, "autoencoder", torch.device("cpu"))
        network = LatentClassifier(self.labels, **section.get("network", {}))
        self.networks: dict[str, nn.Module] = {ROLE: network.to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective(ROLE, (ROLE,), self._loss)]

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy with the share of each label, at uniform times."""
        time = torch.rand(len(batch["x"]), generator=draw.torch)
        loss = self._entropy(self.networks[ROLE], batch, draw, time)
        return loss, {"entropy": float(loss.detach())}

    def _entropy(self, network: nn.Module, batch: dict[str, Tensor], draw: Draw, time: Tensor) -> Tensor:
        with torch.no_grad():
            data = self.autoencoder.to(batch["x"].device).encode(batch["x"]).float()
        noise = torch.randn(data.shape, generator=draw.torch).to(data.device)
        time = time.to(data.device)
        point, _ = velocity_target(data, noise, time)
        point = point.contiguous(memory_format=torch.channels_last_3d)
        shares = F.avg_pool3d(batch["maps"][:, : self.labels], self.autoencoder.stride)
        weight = F.avg_pool3d(batch["valid"], self.autoencoder.stride)[:, 0]
        entropy = F.cross_entropy(network(point, time), shares, reduction="none")
        return (weight * entropy).sum() / weight.sum().clamp(min=1)

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Cross-entropy at fixed data, noise and times."""
        values = {}
        for time in VALIDATION_TIMES:
            draw = Draw.of(7, 0)
            batch = to_device_of(networks[ROLE], self.data.sample(draw.numpy, 8))
            times = torch.full((8,), time)
            values[f"entropy at {time}"] = float(self._entropy(networks[ROLE], batch, draw, times))
        return values

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return extend_package(self.package, self.config, ROLE, networks[ROLE], step, out)
