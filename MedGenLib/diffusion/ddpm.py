"""DDPM ancestral sampling (Ho et al. 2020, arXiv 2006.11239), its variance-preserving schedule, and respaced times."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from MedGenLib.diffusion import sampler

TRAIN_STEPS = 1000


def cumulative_signal() -> np.ndarray:
    """``alpha_bar`` for 1000 steps with linear beta 1e-4 .. 0.02 (Ho et al. 2020, section 4)."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, TRAIN_STEPS))


def respaced(steps: int) -> np.ndarray:
    """``alpha_bar`` at ``steps + 1`` times, from almost no signal to the clean data (exactly 1)."""
    index = np.linspace(TRAIN_STEPS - 1, 0, steps, endpoint=False).round().astype(int)
    return np.append(cumulative_signal()[index], 1.0)


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
