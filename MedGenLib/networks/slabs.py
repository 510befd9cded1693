"""Convolutional networks computed slab by slab along the first axis, with the exact result.

A network without attention is a chain of maps. Any planes of a map follow from a few more planes
of the one before, so that a map can be kept whole (`Kept`) or computed anew whenever planes of it
are asked for. Group normalisation needs the mean and variance of a whole map: they are gathered in
a pass of their own over its slabs. So memory is traded for time while the result stays that of
computing everything at once, but for rounding.

All maps have batch 1; shapes are (1, channels, i, j, k), stored channels last, which is the
fastest for convolutions on CPUs as well as on GPUs. Planes lie across the first spatial axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLAB_VALUES = 2**24
"""Values of a slab: large enough for the convolutions' speed, a small part of the memory."""
FEWEST_PLANES = 4


class Map:
    """One map of the chain; ``planes(low, high)`` computes some of its planes."""

    def __init__(self, channels: int, shape: tuple[int, int, int]) -> None:
        self.channels, self.shape = channels, shape

    def planes(self, low: int, high: int) -> Tensor:
        """Planes low..high - 1 as (1, channels, high - low, j, k)."""
        raise NotImplementedError

    @property
    def values(self) -> int:
        return self.channels * self.shape[0] * self.shape[1] * self.shape[2]

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Ranges of planes that cover the map."""
        count = self.shape[0]
        plane = self.channels * self.shape[1] * self.shape[2]
        thickness = max(FEWEST_PLANES, SLAB_VALUES // plane)
        for low in range(0, count, thickness):
            yield low, min(low + thickness, count)


class Kept(Map):
    """A map that lies in memory."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.shape[1], tuple(tensor.shape[2:]))
        self.tensor = tensor

    def planes(self, low: int, high: int) -> Tensor:
        return self.tensor[:, :, low:high]


class Convolution(Map):
    """A convolution with kernel 3 or 1 and zero padding, as ``layer`` does it.

    Stride 2 pads at the far end only, as the latent diffusion autoencoders do.
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
    """Twice the voxels along every axis by trilinear interpolation."""

    def __init__(self, source: Map) -> None:
        super().__init__(source.channels, tuple(2 * n for n in source.shape))
        self.source = source

    def planes(self, low: int, high: int) -> Tensor:
        # The outermost two planes of an interpolated part know no neighbour, so one more on
        # each side is taken and cut, but at the ends of the map.
        first = max(0, low // 2 - 1)
        last = min(self.source.shape[0], (high + 1) // 2 + 1)
        part = self.source.planes(first, last).float()
        part = F.interpolate(part, scale_factor=2.0, mode="trilinear")
        return part[:, :, low - 2 * first : high - 2 * first]


class Normalised(Map):
    """Group normalisation over the whole map, then SiLU where ``activate``."""

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
    """The sum of a deep map and the shortcut around it."""

    def __init__(self, deep: Map, shortcut: Map) -> None:
        super().__init__(deep.channels, deep.shape)
        self.deep, self.shortcut = deep, shortcut

    def planes(self, low: int, high: int) -> Tensor:
        # The deep branch asks the common source for more planes, so it goes first: see Recent.
        return self.deep.planes(low, high) + self.shortcut.planes(low, high)


class Recent(Map):
    """A map that is not kept, but for the planes that were asked for last.

    Two branches of a block ask for the same planes of their common source, one after the other.
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
    """Mean and variance (biased) of each channel's group over a whole map, in double precision.

    The slabs' means and variances are pooled (Chan et al. 1983, equation 2.1), so that no
    precision is lost to the difference of large sums.
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
    # Then the channels of a group, which all have as many voxels.
    mean, variance = mean.view(groups, -1), (spread / count).view(groups, -1)
    group_mean = mean.mean(dim=1, keepdim=True)
    group_variance = (variance + (mean - group_mean) ** 2).mean(dim=1)
    size = source.channels // groups
    return group_mean.flatten().repeat_interleave(size), group_variance.repeat_interleave(size)


@dataclass(frozen=True)
class Room:
    """What may be kept in memory: the largest map in bytes, and the number format.

    None is no limit, or the format in which the map was computed.
    """

    largest: int | None = None
    dtype: torch.dtype | None = None

    def keep(self, source: Map, dtype: torch.dtype, into: Map | None = None) -> Map:
        """`keep` a map that was computed in ``dtype``, or leave it to be computed anew."""
        dtype = self.dtype or dtype
        if self.largest is not None and source.values * dtype.itemsize > self.largest:
            return Recent(source)
        return keep(source, dtype, into)


def keep(source: Map, dtype: torch.dtype, into: Map | None = None) -> Kept:
    """Compute a map once and keep it in memory.

    ``into`` is a map that is needed only for this one, plane by plane: where it is kept, has the
    same shape and number format, its memory is used.
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
        # One slab late: the next one still needs the last planes of what this one overwrites.
        if waiting is not None:
            tensor[:, :, waiting[0] : waiting[1]] = waiting[2]
        waiting = (low, high, part)
    tensor[:, :, waiting[0] : waiting[1]] = waiting[2]
    return Kept(tensor)
