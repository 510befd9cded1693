"""Generator and discriminator of whole volumes on one grid, without normalization (R3GAN, arXiv 2501.05441, figure 3).

Levels have residual blocks of a pointwise, a grouped 3 x 3 x 3 and a pointwise convolution. Blocks start as the
identity, and their other layers are scaled down with the number of blocks (fix-up initialization).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 8
"""Channels of a group of the 3 x 3 x 3 convolutions."""
SLOPE = 0.2
_GAIN = math.sqrt(2 / (1 + SLOPE**2))


def coarsest(grid: Sequence[int], levels: int) -> tuple[int, ...]:
    """Voxels of the coarsest level; ValueError for a grid that it does not divide."""
    step = 2 ** (levels - 1)
    if any(n % step for n in grid):
        raise ValueError(f"the sides of the grid {tuple(grid)} are not multiples of {step}")
    return tuple(n // step for n in grid)


def scaled(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """The layer with weights that keep the variance, times a gain, and without a bias at first."""
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class GroupedBlock(nn.Module):
    """Residual block of three convolutions; ``blocks`` is the number of blocks in its network."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * channels
        gain = _GAIN * blocks**-0.25  # each of two layers, so that the variance of all blocks together is kept
        self.enter = scaled(nn.Conv3d(channels, inner, 1), gain)
        self.mix = scaled(nn.Conv3d(inner, inner, 3, padding=1, groups=max(1, inner // GROUP)), gain)
        self.leave = scaled(nn.Conv3d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.enter(x), SLOPE)
        return x + self.leave(F.leaky_relu(self.mix(h), SLOPE))


def _levels(widths: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    total = sum(blocks)
    return nn.ModuleList(
        nn.Sequential(*(GroupedBlock(width, total) for _ in range(count)))
        for width, count in zip(widths, blocks, strict=True)
    )


class VolumeGenerator(nn.Module):
    """Noise (b, latent) and classes (b,) -> volumes (b, 1, *grid).

    Parameters
    ----------
    grid: voxels of the volumes, multiples of two for each level but the first.
    widths, blocks: channels and residual blocks of the levels, the coarsest first.
    classes: number of classes; 0 for a network without them.
    """

    def __init__(
        self, grid: Sequence[int], widths: Sequence[int], blocks: Sequence[int], latent: int = 64, classes: int = 0
    ) -> None:
        super().__init__()
        self.arguments = {"grid": list(grid), "widths": list(widths), "blocks": list(blocks), "latent": latent}
        self.arguments["classes"] = classes
        self.latent = latent
        self.basis = nn.Parameter(torch.randn(1, widths[0], *coarsest(grid, len(widths))))
        self.weigh = scaled(nn.Linear(latent + classes, widths[0]))
        self.levels = _levels(widths, blocks)
        self.change = nn.ModuleList(
            scaled(nn.Conv3d(a, b, 1, bias=False)) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.leave = scaled(nn.Conv3d(widths[-1], 1, 3, padding=1))

    def forward(self, noise: Tensor, kind: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """``draw`` is for generators with noise at each level, which this one lacks."""
        given = one_hot(noise, kind, self.arguments["classes"])
        x = self.basis * self.weigh(given)[:, :, None, None, None]
        for index, level in enumerate(self.levels):
            if index:
                x = F.interpolate(self.change[index - 1](x), scale_factor=2, mode="trilinear")
            x = level(x)
        return self.leave(F.leaky_relu(x, SLOPE)).float()


class VolumeDiscriminator(nn.Module):
    """Volumes (b, 1, *grid) and classes (b,) -> logits (b,); the mirror image of `VolumeGenerator`.

    With classes, the logit is that of the class (a projection, arXiv 1802.05637). With ``spread``, a further channel of
    the coarsest level has the standard deviation over the batch (arXiv 1710.10196, section 3).
    """

    def __init__(
        self, grid: Sequence[int], widths: Sequence[int], blocks: Sequence[int], classes: int = 0, spread: bool = False
    ) -> None:
        super().__init__()
        widths, self.spread = list(widths)[::-1], spread
        self.enter = scaled(nn.Conv3d(1, widths[0], 3, padding=1), _GAIN)
        self.levels = _levels(widths, list(blocks)[::-1])
        self.change = nn.ModuleList(
            scaled(nn.Conv3d(a, b, 1, bias=False)) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        last = widths[-1] + spread
        self.collect = scaled(nn.Conv3d(last, last, coarsest(grid, len(widths)), groups=last, bias=False))
        self.judge = scaled(nn.Linear(last, max(1, classes)))

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.logits(x).gather(1, kind[:, None])[:, 0]

    def logits(self, x: Tensor) -> Tensor:
        """Volumes -> logits of all classes (b, classes)."""
        x = F.leaky_relu(self.enter(x), SLOPE)
        for index, level in enumerate(self.levels):
            x = level(x)
            if index < len(self.change):
                x = self.change[index](F.avg_pool3d(x, 2))
        if self.spread:
            x = torch.cat([x, batch_spread(x)], 1)
        return self.judge(self.collect(x).flatten(1)).float()


def batch_spread(x: Tensor) -> Tensor:
    """Mean over channels and voxels of the standard deviation over the batch, as a channel."""
    deviation = (x.float().var(0, correction=0) + 1e-8).sqrt().mean()
    return deviation.expand(len(x), 1, *x.shape[2:])


def one_hot(noise: Tensor, kind: Tensor, classes: int) -> Tensor:
    """The noise followed by the class as a vector of zeros and a one, scaled to the length of the noise."""
    if not classes:
        return noise
    return torch.cat([noise, math.sqrt(noise.shape[1]) * F.one_hot(kind, classes).to(noise.dtype)], 1)
