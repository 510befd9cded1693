"""Samplers. All are called alike: ``sample(denoise, noise, steps, generator=None, on_step=None)``.

``denoise(x, alpha, sigma)`` estimates the data behind ``x = alpha * data + sigma * noise``.
``noise`` is a standard normal tensor of the data's shape; the result is a sample of the data.
``on_step(done)`` is called after every network evaluation; whatever it raises stops the sampler.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from . import ddim, ddpm, euler, heun
from .flow import FlowDenoiser

Denoiser = Callable[[Tensor, float, float], Tensor]
Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "euler": euler.sample,
    "heun": heun.sample,
    "ddim": ddim.sample,
    "ddpm": ddpm.sample,
}

__all__ = ["SAMPLERS", "Denoiser", "FlowDenoiser", "Sampler", "evaluations"]


def evaluations(name: str, steps: int) -> int:
    """Network evaluations that a sampler makes when asked for ``steps``."""
    return heun.evaluations(steps) if name == "heun" else steps
