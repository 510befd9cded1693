"""Recipe `voxel-levels`: the usual level of each tissue in each voxel, see `pipelines.tissue_levels`."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks import VoxelLevelNet
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.conditioning import noise_scalar, spacing_scalar
from MedGenLib.pipelines.flow_sampling import VOXEL_LEVELS, cell_levels
from MedGenLib.pipelines.memory_plan import LAYOUTS
from MedGenLib.pipelines.tissue_levels import REACHES, at_voxels, cell_counts, tissue_shares, voxel_inputs
from MedGenLib.training.data import read_data
from MedGenLib.training.data.patches import cut
from MedGenLib.training.data.tissue import thresholded
from MedGenLib.training.loop import Draw, Log, Objective, to_device_of
from MedGenLib.training.package import extend_package
from MedGenLib.training.recipes import recipe

SOFTNESS = 0.5
"""Error in scales of a tissue below which the loss is quadratic."""
LARGEST = 6.0
"""Largest texture, in scales of a tissue, from which its spread is learned."""
WEIGHT_OF_SPREAD = 0.5
FEWEST = 300
"""Voxels of a tissue in a batch below which it counts less."""


@recipe("voxel-levels")
class VoxelLevelsRecipe:
    """Recipe of the module. The configuration's sections are ``data`` and ``levels``.

    ``data`` is that of the reader ``tissue-scans``, of which half of the patches have labels by thresholds without a
    filter, or of another reader of patches, which varies its patches as for a flow. ``levels`` has ``package`` (an
    installed package; it has the network of the recipe `tissue-levels` unless the ``network`` has ``cells`` false),
    ``patch`` (side in voxels, a multiple of 4) and the arguments of the ``network``.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        section = config["levels"]
        self.package, self.side = find(section["package"]), int(section["patch"])
        self.tissues = max(self.package.input.labels)
        self.data = read_data(config, self.side)
        self.cell_levels = lru_cache(maxsize=None)(self._cell_levels)
        net = VoxelLevelNet(self.tissues, **section.get("network", {}))
        self.cells = net.arguments.get("cells", True)
        nn.init.zeros_(net.head.weight[: len(net.head.weight) // 3])
        self.networks: dict[str, nn.Module] = {VOXEL_LEVELS: net.to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective(VOXEL_LEVELS, (VOXEL_LEVELS,), self._loss)]

    def _cell_levels(self, number: int, filtered: bool) -> np.ndarray:
        """Levels of the cells of a scan with one kind of labels, in half precision."""
        scan = self.data.scans[number]
        labels = scan.labels if filtered else thresholded(scan.values, scan.labels > 0)
        shares = tissue_shares(labels, cell_counts(labels.shape, (scan.spacing,) * 3), self.tissues)
        found = cell_levels(self.package, shares, torch.device("cpu"), LAYOUTS["normal"].levels)
        return found.astype(np.float16)

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        patches = [self._patch(draw.numpy) for _ in range(size)]
        return {key: torch.from_numpy(np.stack([patch[key] for patch in patches])) for key in patches[0]}

    def _patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A random part of a scan, mirrored at random: input of the network, labels, and their true levels."""
        number = int(generator.choice(len(self.data.scans), p=self.data.weights))
        scan, cells = self.data.scans[number], None
        filtered = not self.cells or generator.random() < 0.5
        box = self.data.box(scan.labels, generator)
        values, labels, noise = cut(scan.values, box, self.data.background), cut(scan.labels, box, 0), scan.noise
        if not filtered:
            labels = thresholded(values, labels > 0)
        if self.cells:
            cells = at_voxels(self.cell_levels(number, filtered), scan.labels.shape, box)
            axes = tuple(axis for axis in (-3, -2, -1) if generator.random() < 0.5)
        else:
            values, labels, noise = self.data.vary(values, labels, noise, generator)
            if self.data.ablation:
                labels = self.data.ablation.apply(labels, generator)
            axes = tuple(axis - 3 for axis in self.data.flips(generator))
        known = voxel_inputs(labels, self.tissues, cells, (spacing_scalar(scan.spacing), noise_scalar(noise)))
        codec = scan.codec or self.package.settings
        centers, scales = (np.array(x, np.float32)[labels] for x in (codec.centers, codec.scales))
        levels = ((values - centers) / scales)[None].astype(np.float32)
        parts = {"known": known, "labels": labels.astype(np.int64)[None], "levels": levels}
        return {key: np.flip(part, axes).copy() for key, part in parts.items()}

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        errors = self._errors(self.networks[VOXEL_LEVELS], batch)
        return errors[0] + WEIGHT_OF_SPREAD * errors[1:].sum(), _named(errors.detach())

    def _errors(self, net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Errors of the level and of the strengths of fine and coarse texture.

        With cells all tissues count equally, otherwise by their voxels: small structures have few of their own shapes.
        """
        labels = batch["labels"]
        found = net(batch["known"]).gather(2, (labels - 1).clamp(min=0)[:, None].expand(-1, 3, -1, -1, -1, -1))
        error, totals = batch["levels"] - found[:, 0], torch.zeros(3)
        level = (error.square() + SOFTNESS**2).sqrt() - SOFTNESS
        for value in range(1, self.tissues + 1):
            inside = (labels == value).float()
            if not inside.any():
                continue
            spreads = zip(found[:, 1:].unbind(1), _textures(error.detach(), inside), strict=True)
            losses = [level, *(F.smooth_l1_loss(one, true, reduction="none") for one, true in spreads)]
            counted = inside if self.cells else labels > 0
            totals = totals + torch.stack([(loss * inside).sum() for loss in losses]) / counted.sum().clamp(min=FEWEST)
        return totals

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """The errors at fixed patches."""
        net = networks[VOXEL_LEVELS]
        batches = [to_device_of(net, self.batch(Draw.of(7, number), 2)) for number in range(8)]
        return _named(torch.stack([self._errors(net, batch) for batch in batches]).mean(0))

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return extend_package(self.package, self.config, VOXEL_LEVELS, networks[VOXEL_LEVELS], step, out)


def _named(errors: Tensor) -> dict[str, float]:
    return dict(zip(("level", "fine texture", "coarse texture"), errors.tolist(), strict=True))


def _textures(error: Tensor, inside: Tensor) -> list[Tensor]:
    """Absolute values of the fine and the coarse texture of a tissue: differences from its means nearby and farther."""
    means = [error]
    for reach in REACHES:
        total, share = (_cube_means(part, reach) for part in (error * inside, inside))
        means.append(total / share.clamp(min=1e-3))
    return [(a - b).abs().clamp(max=LARGEST) for a, b in itertools.pairwise(means)]


def _cube_means(x: Tensor, reach: int) -> Tensor:
    """Means over cubes of a number of voxels a side, along one axis after the other; zero outside."""
    for axis in range(3):
        size = [reach if a == axis else 1 for a in range(3)]
        x = F.avg_pool3d(x, size, 1, [n // 2 for n in size])
    return x
