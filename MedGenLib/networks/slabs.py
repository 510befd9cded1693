"""Convolutional networks computed slab by slab along the first spatial axis, with the exact result.

A network without attention is a chain of feature maps. Planes of a map depend on a few more planes
of the previous map, so a map is either kept in memory (`Kept`) or recomputed whenever planes of it
are requested. Group normalization needs the mean and variance of a whole map, which a separate pass
over its slabs computes. This trades time for memory; up to rounding, the result equals that of
computing the whole at once.

Maps have batch size 1 and shape (1, channels, i, j, k), stored channels last, the fastest layout
for convolutions on CPUs and GPUs. A plane is one index of the first spatial axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLAB_VALUES = 2**24
"""Values per slab: enough for fast convolutions, a small part of the memory."""
FEWEST_PLANES = 4


class Map:
    """Feature map of the chain; ``planes(low, high)`` computes some of its planes."""

    def __init__(self, channels: int, shape: tuple[int, int, int]) -> None:
        self.channels, self.shape = channels, shape

    def planes(self, low: int, high: int) -> Tensor:
        """Planes low..high - 1, shape (1, channels, high - low, j, k)."""
        raise NotImplementedError

    @property
    def values(self) -> int:
        """Number of values of the whole map."""
        return self.channels * self.shape[0] * self.shape[1] * self.shape[2]

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Ranges (low, high) of planes that cover the map."""
        count = self.shape[0]
        plane = self.channels * self.shape[1] * self.shape[2]
        thickness = max(FEWEST_PLANES, SLAB_VALUES // plane)
        for low in range(0, count, thickness):
            yield low, min(low + thickness, count)


class Kept(Map):
    """A map kept in memory."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.shape[1], tuple(tensor.shape[2:]))
        self.tensor = tensor

    def planes(self, low: int, high: int) -> Tensor:
        return self.tensor[:, :, low:high]


class Convolution(Map):
    """The convolution ``layer``, with kernel 3 or 1 and zero padding.

    With stride 2, padding is at the far end only, as in latent diffusion autoencoders.
    """

    def __init__(self, source: Map, layer: nn.Conv3d) -> None:
        self.step, self.reach = layer.stride[0], layer.kernel_size[0] // 2
        super().__init__(layer.out_channels, tuple(n // self.step for n in source.shape))
        self.source, self.layer = source, layer

    def planes(self, low: int, high: int) -> Tensor:
        layer, reach = self.layer, self.reach
        before = 0 if self.step == 2 else reach
        first, last = self.step * low - before, self.step * (high - 1) - before + 2 * reach + 1
        part = self.source.planes(max(first, 0), min(last, self.source.shape[0]))
        part = part.to(layer.weight.dtype)
        missing = (max(0, -first), max(0, last - self.source.shape[0]))
        side = (before, reach if self.step == 1 else 2 * reach - 1)
        if self.step == 1 and not any(missing):
            return _convolve(part, layer, padding=(0, reach, reach))
        return _convolve(F.pad(part, (*side, *side, *missing)), layer, padding=0)


def _convolve(x: Tensor, layer: nn.Conv3d, padding: int | tuple[int, int, int]) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(x, layer.weight, layer.bias, layer.stride, padding)


class Doubled(Map):
    """Trilinear upsampling by two along every axis."""

    def __init__(self, source: Map) -> None:
        super().__init__(source.channels, tuple(2 * n for n in source.shape))
        self.source = source

    def planes(self, low: int, high: int) -> Tensor:
        # Interpolated planes at the ends of a part lack a neighbor: take one source plane more on
        # each side, where the map has one, and cut the result.
        first = max(0, low // 2 - 1)
        last = min(self.source.shape[0], (high + 1) // 2 + 1)
        part = self.source.planes(first, last).float()
        part = F.interpolate(part, scale_factor=2.0, mode="trilinear")
        return part[:, :, low - 2 * first : high - 2 * first]


class Normalized(Map):
    """Group normalization over the whole map, followed by SiLU if ``activate``."""

    def __init__(self, source: Map, layer: nn.GroupNorm, activate: bool = True) -> None:
        super().__init__(source.channels, source.shape)
        self.source, self.activate = source, activate
        mean, variance = group_statistics(source, layer.num_groups)
        scale = layer.weight.double() / torch.sqrt(variance + layer.eps)
        shape = (1, self.channels, 1, 1, 1)
        self.scale = scale.float().view(shape)
        self.shift = (layer.bias.double() - mean * scale).float().view(shape)

    def planes(self, low: int, high: int) -> Tensor:
        part = torch.addcmul(self.shift, self.source.planes(low, high).float(), self.scale)
        return F.silu(part, inplace=True) if self.activate else part


class Sum(Map):
    """Sum of the deep branch and the shortcut of a residual block."""

    def __init__(self, deep: Map, shortcut: Map) -> None:
        super().__init__(deep.channels, deep.shape)
        self.deep, self.shortcut = deep, shortcut

    def planes(self, low: int, high: int) -> Tensor:
        # The deep branch needs more planes of the common source, so it goes first: see Recent.
        return self.deep.planes(low, high) + self.shortcut.planes(low, high)


class Recent(Map):
    """A map that caches only the planes requested last.

    The two branches of a residual block request the same planes of their common source in turn.
    """

    def __init__(self, source: Map) -> None:
        super().__init__(source.channels, source.shape)
        self.source = source
        self.low, self.part = 0, None

    def planes(self, low: int, high: int) -> Tensor:
        part = self.part
        if part is None or low < self.low or high > self.low + part.shape[2]:
            self.part = None
            self.low, self.part = low, self.source.planes(low, high)
        return self.part[:, :, low - self.low : high - self.low]


def group_statistics(source: Map, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel's group over a whole map, both (channels,), in float64.

    Means and variances of the slabs are pooled (Chan et al. 1983, equation 2.1), which avoids the
    cancellation of large sums.
    """
    count, mean, spread = 0, 0.0, 0.0
    for low, high in source.slabs():
        rows = source.planes(low, high).permute(0, 2, 3, 4, 1).reshape(-1, source.channels)
        here_variance, here_mean = torch.var_mean(rows.float(), dim=0, correction=0)
        here, here_mean = len(rows), here_mean.double()
        total = count + here
        spread = spread + here * here_variance.double()
        spread = spread + (here_mean - mean) ** 2 * (count * here / total)
        mean = mean + (here_mean - mean) * (here / total)
        count = total
    # Pool the channels of each group, which have equal numbers of voxels.
    mean, variance = mean.view(groups, -1), (spread / count).view(groups, -1)
    group_mean = mean.mean(dim=1, keepdim=True)
    group_variance = (variance + (mean - group_mean) ** 2).mean(dim=1)
    size = source.channels // groups
    return group_mean.flatten().repeat_interleave(size), group_variance.repeat_interleave(size)


@dataclass(frozen=True)
class Room:
    """Limit of the maps kept in memory.

    Parameters
    ----------
    largest: size in bytes of the largest map that is kept; None for no limit.
    dtype: number format of kept maps; None for the format in which a map is computed.
    """

    largest: int | None = None
    dtype: torch.dtype | None = None

    def keep(self, source: Map, dtype: torch.dtype, into: Map | None = None) -> Map:
        """`keep` a map computed in ``dtype``, or wrap it for recomputation if it is too large."""
        dtype = self.dtype or dtype
        if self.largest is not None and source.values * dtype.itemsize > self.largest:
            return Recent(source)
        return keep(source, dtype, into)


def keep(source: Map, dtype: torch.dtype, into: Map | None = None) -> Kept:
    """Compute a whole map and keep it in memory.

    ``into`` is a map that only this computation reads. If it is kept and has the same shape and
    number format, its memory is overwritten plane by plane.
    """
    tensor = None
    shape = (1, source.channels, *source.shape)
    if isinstance(into, Kept) and (into.tensor.shape, into.tensor.dtype) == (shape, dtype):
        tensor = into.tensor
    waiting = None
    for low, high in source.slabs():
        part = source.planes(low, high)
        if tensor is None:
            tensor = torch.empty(shape, dtype=dtype, device=part.device, memory_format=torch.channels_last_3d)
        # Write one slab late: the next slab still reads the last planes that this one overwrites.
        if waiting is not None:
            tensor[:, :, waiting[0] : waiting[1]] = waiting[2]
        waiting = (low, high, part)
    tensor[:, :, waiting[0] : waiting[1]] = waiting[2]
    return Kept(tensor)
