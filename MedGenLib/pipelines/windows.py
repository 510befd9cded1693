"""Overlapping windows over a grid, and decoding in tiles with a halo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from MedGenLib.imaging.boxes import Box, inside, scaled
from MedGenLib.pipelines.working_grid import starts


@dataclass(frozen=True)
class Windows:
    """Windows of one size over a latent grid; starts are multiples of ``stride``."""

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    overlap: int
    stride: int = 1

    def __iter__(self) -> Iterator[Box]:
        sizes = tuple(min(w, n) for w, n in zip(self.window, self.shape, strict=True))
        per_axis = [
            [s // self.stride * self.stride for s in starts(n, w, self.overlap + self.stride)]
            for n, w in zip(self.shape, sizes, strict=True)
        ]
        # Rounding the starts down can leave the end uncovered: the last window is moved to the end.
        per_axis = [sorted({*firsts[:-1], n - w}) for firsts, n, w in zip(per_axis, self.shape, sizes, strict=True)]
        for corner in product(*per_axis):
            yield tuple(slice(c, c + w) for c, w in zip(corner, sizes, strict=True))

    @property
    def borders(self) -> list[tuple[int, int]]:
        """(axis, index) of every window edge inside the grid."""
        found = {
            (axis, edge)
            for box in self
            for axis, part in enumerate(box)
            for edge in (part.start, part.stop)
            if 0 < edge < self.shape[axis]
        }
        return sorted(found)

    def weight(self, box: Box) -> Tensor:
        """Blending weight of a window: 1 inside, decreasing linearly over the overlap.

        It does not decrease at the border of the grid.
        """
        ramps = []
        for part, length in zip(box, self.shape, strict=True):
            size = part.stop - part.start
            ramp = torch.ones(size)
            fade = (torch.arange(self.overlap) + 1.0) / (self.overlap + 1)
            count = min(self.overlap, size)
            if part.start > 0:
                ramp[:count] = fade[:count]
            if part.stop < length:
                ramp[-count:] = torch.minimum(ramp[-count:], fade.flip(0)[-count:])
            ramps.append(ramp)
        i, j, k = ramps
        return i[:, None, None] * j[None, :, None] * k[None, None, :]


def blend(evaluate: Callable[[int, Tensor], Tensor], x: Tensor, windows: Windows) -> Tensor:
    """Evaluate every window of ``x`` (1, c, i, j, k) and average by weight.

    ``evaluate(number, part)`` gets the window's number and its part of ``x``.
    """
    boxes = list(windows)
    if len(boxes) == 1:
        return evaluate(0, x)
    total, weights = torch.zeros_like(x), torch.zeros(x.shape[2:], device=x.device)
    for number, box in enumerate(boxes):
        index = (slice(None), slice(None), *box)
        weight = windows.weight(box).to(x.device)
        total[index] += weight * evaluate(number, x[index])
        weights[box] += weight
    return total / weights


def decode_tiled(
    decode: Callable[[Tensor], Tensor],
    latent: Tensor,
    tile: int,
    halo: int,
    stride: int,
    on_tile: Callable[[int], None] | None = None,
) -> Tensor:
    """Decode (1, c, i, j, k) -> (1, 1, s i, s j, s k), s the stride, in tiles of ``tile`` latent voxels.

    Each tile is decoded with ``halo`` additional latent voxels on every side and cropped; with a halo of the decoder's
    receptive field the result equals decoding at once. The result is on the CPU.
    """
    image = torch.empty(1, 1, *(stride * n for n in latent.shape[2:]))
    for number, (inner, outer) in enumerate(_tiles(latent.shape[2:], tile, halo), start=1):
        part = decode(latent[(..., *outer)]).cpu().float()
        image[(..., *scaled(inner, stride))] = part[(..., *scaled(inside(inner, outer), stride))]
        if on_tile is not None:
            on_tile(number)
    return image


def _tiles(shape: tuple[int, ...], tile: int, halo: int) -> Iterator[tuple[Box, Box]]:
    """Tiles that cover a grid once: each without and with its halo, within the grid."""
    for corner in product(*(range(0, n, tile) for n in shape)):
        inner = tuple(slice(c, min(c + tile, n)) for c, n in zip(corner, shape, strict=True))
        outer = tuple(slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in zip(inner, shape, strict=True))
        yield inner, outer


def tile_count(shape: tuple[int, ...], tile: int) -> int:
    """Number of tiles of `decode_tiled` for a latent grid."""
    count = 1
    for n in shape:
        count *= -(-n // tile)
    return count
