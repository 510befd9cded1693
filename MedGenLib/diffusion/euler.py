"""Euler's method on the rectified flow: one network evaluation a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from MedGenLib.diffusion import sampler
from MedGenLib.diffusion.flow import path_times


@sampler("euler", path="flow")
def sample(
    denoise: Callable[[Tensor, float, float], Tensor],
    noise: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    shift: float = 1.0,
) -> Tensor:
    """Follow ``dx/dt = (x - data) / t`` from t = 1 to 0. Deterministic; generator is unused."""
    x = noise
    times = path_times(steps, shift)
    for done, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True), start=1):
        data = denoise(x, 1 - t, t)
        x = data + (x - data) * (t_next / t)
        if on_step is not None:
            on_step(done)
    return x
