"""Noise of latent cells: the same seed gives a cell the same noise in every window."""

from __future__ import annotations

import collections
from itertools import product

import torch
from torch import Tensor

SIDE = 16
"""Cells along a side of a block that is drawn at once."""
KEPT = 512
"""Blocks of 128 KiB that are kept."""


class NoiseField:
    """Standard normal noise over a grid of latent cells, drawn block by block.

    Parameters
    ----------
    seed: 0 or more.
    channels: of the latent.
    drawn: noise (1, c, i, j, k) that exists, such as that of a generated volume; elsewhere blocks are drawn.
    start: first cell of ``drawn``.
    """

    def __init__(
        self, seed: int, channels: int, drawn: Tensor | None = None, start: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        self.seed, self.channels, self._drawn, self._start = seed, channels, drawn, start
        self._blocks: collections.OrderedDict[tuple, Tensor] = collections.OrderedDict()

    def read(self, box: tuple[slice, slice, slice]) -> Tensor:
        """The noise (1, c, i, j, k) of a box of cells."""
        noise = torch.empty(1, self.channels, *(part.stop - part.start for part in box))
        if self._drawn is not None and self._overlay(noise, box, self._drawn, self._start):
            return noise
        for index in product(*(range(p.start // SIDE, -(-p.stop // SIDE)) for p in box)):
            self._overlay(noise, box, self._block(index), tuple(SIDE * i for i in index))
        if self._drawn is not None:
            self._overlay(noise, box, self._drawn, self._start)
        return noise

    def _block(self, index: tuple[int, int, int]) -> Tensor:
        if index not in self._blocks:
            i, j, k = index
            # Large odd factors keep the seeds of neighboring blocks and canvases apart.
            mixed = self.seed + 1_000_003 * i + 998_244_353 * j + 2_147_483_647 * k
            generator = torch.Generator().manual_seed(mixed * 6_364_136_223 % 2**62)
            self._blocks[index] = torch.randn(1, self.channels, SIDE, SIDE, SIDE, generator=generator)
            if len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[index]

    @staticmethod
    def _overlay(noise: Tensor, box: tuple[slice, ...], part: Tensor, start: tuple[int, ...]) -> bool:
        """Copy the part that lies in the box; returns whether it fills the box."""
        there, here = [slice(None)] * 2, [slice(None)] * 2
        for b, s, n in zip(box, start, part.shape[2:], strict=True):
            low, high = max(b.start, s), min(b.stop, s + n)
            if low >= high:
                return False
            here.append(slice(low - b.start, high - b.start))
            there.append(slice(low - s, high - s))
        noise[tuple(here)] = part[tuple(there)]
        return all(h == slice(0, n) for h, n in zip(here[2:], noise.shape[2:], strict=True))
