"""Samplers. All are called alike: ``sample(denoise, noise, steps, generator=None, on_step=None)``.

``denoise(x, alpha, sigma)`` estimates the data behind ``x = alpha * data + sigma * noise``.
``noise`` is a standard normal tensor of the data's shape; the result is a sample of the data.
``on_step(done)`` is called after every network evaluation; whatever it raises stops the sampler.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from MedGenLib.diffusion import ddim, ddpm, euler, heun, midpoint
from MedGenLib.diffusion.cosine import CosineDenoiser
from MedGenLib.diffusion.flow import FlowDenoiser

Denoiser = Callable[[Tensor, float, float], Tensor]
Sampler = Callable[..., Tensor]

SAMPLERS: dict[str, Sampler] = {
    "euler": euler.sample,
    "heun": heun.sample,
    "midpoint": midpoint.sample,
    "ddim": ddim.sample,
    "ddpm": ddpm.sample,
}

DENOISERS: dict[str, Callable[[Callable[[Tensor, float], Tensor]], Denoiser]] = {
    "velocity": FlowDenoiser,
    "v": CosineDenoiser,
}
"""By what the network predicts, as a package's sampler section says (``prediction``)."""

__all__ = ["DENOISERS", "SAMPLERS", "Denoiser", "FlowDenoiser", "CosineDenoiser", "Sampler", "evaluations"]


def evaluations(name: str, steps: int) -> int:
    """Network evaluations that a sampler makes when asked for ``steps``."""
    return heun.evaluations(steps) if name == "heun" else steps
