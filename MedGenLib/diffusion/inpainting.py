"""Sampling a part of the data while the rest is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """Data of which only a part is to be sampled.

    As in RePaint (Lugmayr et al. 2022, arXiv 2201.09865, equation 8) the known part is put back at
    every step, at that step's noise level. Here the denoiser's estimate of the known part is the
    known data itself: every deterministic sampler then moves that part along the straight path
    ``alpha * data + sigma * noise`` with the noise it started from, without a step more.

    Parameters
    ----------
    data: (1, c, i, j, k); values where `free` is true do not matter.
    free: bool (1, 1, i, j, k), true where the data is sampled.
    """

    data: Tensor
    free: Tensor

    def kept_by(self, denoise: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The denoiser that knows the known part."""

        def informed(x: Tensor, *scales: float, **options: object) -> Tensor:
            return torch.where(self.free, denoise(x, *scales, **options), self.data)

        return informed
