"""Recipe `features`: a network for features of anatomy and of image degradation.

Self-supervised. Two views of one slice with the same degradation are matched among the views of other slices and of the
same slice with other degradations (NT-Xent, Chen et al., A simple framework for contrastive learning, ICML 2020, eq.
1). Linear heads predict the severity of each degradation, the scan, the plane and the position; they are not exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.feature_encoder import FeatureEncoder
from MedGenLib.training.data.views import DEGRADATIONS, SliceViews
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, to_device_of
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe

TEMPERATURE = 0.2
_PLANES = 3


class Heads(nn.Module):
    """Linear heads on features (b, channels) for training."""

    def __init__(self, channels: int, scans: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(channels, 128), nn.SiLU(), nn.Linear(128, 64))
        self.fault = nn.Linear(channels, len(DEGRADATIONS))
        self.scan = nn.Linear(channels, scans)
        self.plane = nn.Linear(channels, _PLANES)
        self.position = nn.Linear(channels, 1)


@recipe("features")
class FeaturesRecipe(DataRecipe):
    """Recipe of the module. The configuration's sections are ``data`` and ``features``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        self.data = SliceViews(config, config["features"]["patch"])
        encoder = FeatureEncoder(**config["features"]["network"])
        self.networks: dict[str, nn.Module] = {
            "encoder": encoder.to(memory_format=torch.channels_last),
            "heads": Heads(len(encoder.mean), len(self.data.scans)),
        }
        self.objectives = [Objective("features", ("encoder", "heads"), self._loss)]

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        parts = _losses(self.networks, batch)
        total = parts["contrast"] + 60 * parts["fault"] + 0.3 * (parts["scan"] + parts["plane"])
        total = total + parts["position"]
        return total, {name: float(value.detach()) for name, value in parts.items()}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """The losses at fixed views of the training scans, and the share of matched pairs."""
        batch = to_device_of(networks["encoder"], self.data.sample(Draw.of(7, 0).numpy, 128))
        values = {name: float(value) for name, value in _losses(networks, batch).items()}
        nearest = _similar(networks["heads"].project(networks["encoder"](batch["image"]).float())).argmax(1)
        values["partners_found"] = float((nearest == _partners(nearest)).float().mean())
        return values

    @torch.no_grad()
    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        """Standardize by undegraded slices of the training scans and write the package."""
        encoder = networks["encoder"]
        device = next(encoder.parameters()).device
        found = [encoder(self.data.clean(Draw.of(8, index).numpy, 64).to(device)) for index in range(16)]
        encoder.standardize(torch.cat(found))
        return export_package(
            self.config, {"encoder": encoder}, step=step, held_out=self.data.held_out, statistics={}, out=out
        )


def _losses(networks: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = networks["heads"]
    features = networks["encoder"](batch["image"]).float()
    similarity = _similar(heads.project(features))
    return {
        "contrast": F.cross_entropy(similarity / TEMPERATURE, _partners(similarity)),
        "fault": F.mse_loss(heads.fault(features), batch["fault"]),
        "scan": F.cross_entropy(heads.scan(features), batch["scan"]),
        "plane": F.cross_entropy(heads.plane(features), batch["plane"]),
        "position": F.mse_loss(heads.position(features)[:, 0], batch["position"]),
    }


def _similar(projected: Tensor) -> Tensor:
    """Cosine similarity between all rows, without the diagonal."""
    unit = F.normalize(projected, dim=1)
    return (unit @ unit.T).fill_diagonal_(-torch.inf)


def _partners(rows: Tensor) -> Tensor:
    """Index of each row's partner: rows n and n + half belong together."""
    count = len(rows)
    return (torch.arange(count, device=rows.device) + count // 2) % count
