"""Heun's second-order method on the rectified flow: two evaluations per step, one in the last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from MedGenLib.diffusion import sampler
from MedGenLib.diffusion.flow import path_times


def evaluations(steps: int) -> int:
    """Network evaluations for ``steps``: two per Heun step, one in the last."""
    return 2 * max(1, (steps + 1) // 2) - 1


@sampler("heun", path="flow", order=2, evaluations=2, total=evaluations)
def sample(
    denoise: Callable[[Tensor, float, float], Tensor],
    noise: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    shift: float = 1.0,
) -> Tensor:
    """Trapezoidal rule on the velocity (Karras et al. 2022, algorithm 1). Deterministic.

    ``steps`` counts network evaluations as in the other samplers, rounded to whole Heun steps.
    """
    x = noise
    times = path_times(max(1, (steps + 1) // 2), shift)
    evaluations = 0
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        slope = (x - denoise(x, 1 - t, t)) / t
        evaluations += 1
        if on_step is not None:
            on_step(evaluations)
        guess = x + (t_next - t) * slope
        if t_next > 0:
            slope = (slope + (guess - denoise(guess, 1 - t_next, t_next)) / t_next) / 2
            evaluations += 1
            if on_step is not None:
                on_step(evaluations)
        x = x + (t_next - t) * slope
    return x
