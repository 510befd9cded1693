"""Recipe `tissue-levels`: the usual level of each tissue at each place of a mask, see `pipelines.tissue_levels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.networks import LevelNet
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.tissue_levels import cell_counts, tissue_shares, tissue_sums
from MedGenLib.training.data import read_data
from MedGenLib.training.data.patches import Scan, random_window
from MedGenLib.training.loop import Draw, Log, Objective, to_device_of
from MedGenLib.training.package import extend_package
from MedGenLib.training.recipes import recipe

ROLE = "levels"
SOFTNESS = 0.5
"""Error in scales of a tissue below which the loss is quadratic."""


@recipe("tissue-levels")
class TissueLevelsRecipe:
    """Recipe of the module. The configuration's sections are ``data`` and ``levels``.

    ``data`` is that of the reader ``tissue-scans``. ``levels`` has ``package`` (an installed package, to which the
    network is added), ``patch`` (side in cells, a multiple of 4) and the arguments of the ``network``.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        section = config["levels"]
        self.package, self.side = find(section["package"]), int(section["patch"])
        self.tissues = max(self.package.input.labels)
        self.cells = [self._cells(scan) for scan in read_data(config, self.side).scans]
        network = LevelNet(self.tissues, **section.get("network", {}))
        self.networks: dict[str, nn.Module] = {ROLE: network.to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective(ROLE, (ROLE,), self._loss)]

    def _cells(self, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the tissues of a scan, and the mean of each in scales above its center."""
        cells = cell_counts(scan.labels.shape, (scan.spacing,) * 3)
        sums, counts = tissue_sums(scan.values, scan.labels, cells, self.tissues)
        settings = self.package.settings
        centers, scales = (
            np.array(x[1:], np.float32).reshape(-1, 1, 1, 1) for x in (settings.centers, settings.scales)
        )
        return tissue_shares(scan.labels, cells, self.tissues), (sums / np.maximum(counts, 1) - centers) / scales

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        patches = [self._patch(draw.numpy) for _ in range(size)]
        return {key: torch.from_numpy(np.stack([patch[key] for patch in patches])) for key in patches[0]}

    def _patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A random part of a scan, mirrored at random; beyond the scan lies the outside."""
        shares, levels = self.cells[generator.integers(len(self.cells))]
        box, margins = random_window(shares.shape[1:], (self.side,) * 3, generator)
        axes = tuple(1 + axis for axis in range(3) if generator.random() < 0.5)
        cut = [np.pad(a[(slice(None), *box)], ((0, 0), *margins)) for a in (shares, levels)]
        cut[0][0] += cut[0].sum(0) == 0
        return {key: np.flip(a, axes).copy() for key, a in zip(("shares", "levels"), cut, strict=True)}

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """Error of the level of each tissue, weighted with its share; tissues count equally."""
        loss = self._error(self.networks[ROLE], batch)
        return loss, {"level": float(loss.detach())}

    @staticmethod
    def _error(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        found, weight = network(batch["shares"])[:, 1:], batch["shares"][:, 1:]
        error = ((found - batch["levels"]).square() + SOFTNESS**2).sqrt() - SOFTNESS
        return ((weight * error).sum((0, 2, 3, 4)) / weight.sum((0, 2, 3, 4)).clamp(min=1)).sum()

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """The loss at fixed patches."""
        batch = to_device_of(networks[ROLE], self.batch(Draw.of(7, 0), 16))
        return {"level": float(self._error(networks[ROLE], batch))}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return extend_package(self.package, self.config, ROLE, networks[ROLE], step, out)
