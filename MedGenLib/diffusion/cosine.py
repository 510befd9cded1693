"""The variance-preserving cosine path, and a denoiser from a network that predicts v.

Path (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17 without its offset, with t = 1 at the noise): ``x_t = cos(pi t
/ 2) data + sin(pi t / 2) noise``. The network predicts v (Salimans and Ho 2022, arXiv 2202.00512, appendix D), ``cos
noise - sin data``, which determines the data also at pure noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from MedGenLib.diffusion import denoiser


@denoiser("v")
class CosineDenoiser:
    """Data estimate from a network that predicts v, at any signal and noise scale.

    ``alpha * data + sigma * noise`` divided by its norm lies on the path at
    ``t = (2 / pi) atan(sigma / alpha)``; there ``data = cos x - sin v``.

    Parameters
    ----------
    v: ``v(x, t)`` with x of any shape and t a float in 0..1.
    """

    def __init__(self, v: Callable[[Tensor, float], Tensor]) -> None:
        self.v = v

    def __call__(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        norm = math.hypot(alpha, sigma)
        signal, spread = alpha / norm, sigma / norm
        point, time = x / norm, 2 / math.pi * math.atan2(sigma, alpha)
        return signal * point - spread * self.v(point, time)


def v_target(data: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the path and the target v at it; ``time`` is (batch,) in 0..1."""
    angle = (math.pi / 2 * time).view(-1, *(1,) * (data.ndim - 1))
    signal, spread = torch.cos(angle), torch.sin(angle)
    return signal * data + spread * noise, signal * noise - spread * data
