"""DDPM ancestral sampling (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from MedGenLib.diffusion import sampler
from MedGenLib.diffusion.variance_preserving import respaced


@sampler("ddpm", path="variance-preserving")
def sample(
    denoise: Callable[[Tensor, float, float], Tensor],
    noise: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    signal: np.ndarray | None = None,
) -> Tensor:
    """Sample from the posterior, equations 6 and 7, at ``steps`` respaced times.

    ``signal`` gives another schedule: ``alpha_bar`` at ``steps + 1`` times, the last exactly 1.
    """
    x = noise
    signal = respaced(steps) if signal is None else signal
    for done, (now, then) in enumerate(zip(signal[:-1], signal[1:], strict=True), start=1):
        data = denoise(x, sqrt(now), sqrt(1 - now))
        alpha = now / then
        mean = (sqrt(then) * (1 - alpha) * data + sqrt(alpha) * (1 - then) * x) / (1 - now)
        variance = (1 - then) / (1 - now) * (1 - alpha)
        x = mean
        if variance > 0:
            fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu")
            x = x + sqrt(variance) * fresh.to(x.device)
        if on_step is not None:
            on_step(done)
    return x
