"""The rectified-flow path, and a denoiser from a network that predicts the velocity.

Path (Liu et al. 2023, arXiv 2209.03003, eq. 1, with t = 1 at the noise):
``x_t = (1 - t) data + t noise``, velocity ``dx/dt = noise - data``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from MedGenLib.diffusion import denoiser


@denoiser("velocity")
class FlowDenoiser:
    """Data estimate from a velocity network, at any signal and noise scale.

    ``alpha * data + sigma * noise`` divided by ``alpha + sigma`` lies on the flow's path at ``t = sigma / (alpha +
    sigma)``; there ``data = x_t - t * velocity``. One network therefore serves the flow samplers and the
    variance-preserving ones (DDPM, DDIM).

    Parameters
    ----------
    velocity: ``velocity(x, t)`` with x of any shape and t a float in 0..1.
    """

    def __init__(self, velocity: Callable[[Tensor, float], Tensor]) -> None:
        self.velocity = velocity

    def __call__(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        total = alpha + sigma
        time = sigma / total
        point = x / total
        return point - time * self.velocity(point, time)


def velocity_target(data: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the path and the target velocity at it; ``time`` is (batch,) in 0..1."""
    t = time.view(-1, *(1,) * (data.ndim - 1))
    return torch.lerp(data, noise, t), noise - data


def path_times(steps: int, shift: float = 1.0) -> list[float]:
    """``steps + 1`` times from 1 (noise) to 0 (data), in double precision.

    ``shift`` > 1 spends more steps near the noise (Esser et al. 2024, arXiv 2403.03206, eq. 23).
    """
    times = [1 - i / steps for i in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in times]
