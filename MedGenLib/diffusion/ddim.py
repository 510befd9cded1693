"""DDIM (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from MedGenLib.diffusion import sampler
from MedGenLib.diffusion.ddpm import respaced


@sampler("ddim", path="variance-preserving")
def sample(
    denoise: Callable[[Tensor, float, float], Tensor],
    noise: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    eta: float = 0.0,
    signal: np.ndarray | None = None,
) -> Tensor:
    """Equation 12. ``eta`` 0 is deterministic, 1 is DDPM's ancestral sampling (equation 16).

    ``signal`` gives another schedule, see `ddpm.sample`.
    """
    x = noise
    signal = respaced(steps) if signal is None else signal
    for done, (now, then) in enumerate(zip(signal[:-1], signal[1:], strict=True), start=1):
        data = denoise(x, sqrt(now), sqrt(1 - now))
        estimate = (x - sqrt(now) * data) / sqrt(1 - now)
        spread = eta * sqrt((1 - then) / (1 - now)) * sqrt(1 - now / then)
        x = sqrt(then) * data + sqrt(max(0.0, 1 - then - spread**2)) * estimate
        if spread > 0:
            x = x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)
        if on_step is not None:
            on_step(done)
    return x
