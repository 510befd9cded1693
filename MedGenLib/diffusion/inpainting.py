"""Sampling of a region while the rest of the data is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """Data of which only a region is sampled.

    As in RePaint (Lugmayr et al. 2022, arXiv 2201.09865, equation 8) the known part is replaced at
    every step, at that step's noise level. Here the denoiser returns the known data itself:
    deterministic samplers then move that part along the straight path
    ``alpha * data + sigma * noise`` from its initial noise, without additional steps.

    Parameters
    ----------
    data: (1, c, i, j, k); values where `free` is true do not matter.
    free: bool (1, 1, i, j, k), true where the data is sampled.
    """

    data: Tensor
    free: Tensor

    def kept_by(self, denoise: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The denoiser with the known part replaced in its estimates."""

        def informed(x: Tensor, *scales: float, **options: object) -> Tensor:
            return torch.where(self.free, denoise(x, *scales, **options), self.data)

        return informed
