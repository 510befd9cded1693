"""Registries of samplers and of the denoisers that they call.

``denoise(x, alpha, sigma)`` estimates the data behind ``x = alpha * data + sigma * noise``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from MedGenLib.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Denoiser: TypeAlias = "Callable[[Tensor, float, float], Tensor]"


@dataclass(frozen=True)
class Sampler:
    """A sampling method.

    Attributes
    ----------
    function: ``function(denoise, noise, steps, generator=None, on_step=None)`` samples the data from ``noise``, a
        standard normal tensor of the data's shape. ``steps`` counts network evaluations; ``on_step(done)`` is called
        after each; an exception raised in it stops the sampler.
    path: "flow" for times of the rectified flow, with an option ``shift``; "variance-preserving" for the DDPM schedule,
        with an option ``signal``.
    order: order of convergence in the number of steps.
    evaluations: network evaluations per step.
    total: number of evaluations made for the requested ``steps``.
    """

    function: Callable[..., Tensor]
    path: Literal["flow", "variance-preserving"]
    order: int
    evaluations: int
    total: Callable[[int], int]

    def __call__(self, denoise: Denoiser, noise: Tensor, steps: int, **options: object) -> Tensor:
        return self.function(denoise, noise, steps, **options)


SAMPLERS: Registry[Sampler] = Registry("sampler", "sampler", __name__)
DENOISERS: Registry[Callable[..., Denoiser]] = Registry("prediction", "denoiser", __name__)
"""Keyed by the network's prediction, which packages name in the section ``sampler``."""
denoiser = DENOISERS.register


def sampler(
    name: str,
    *,
    path: Literal["flow", "variance-preserving"],
    order: int = 1,
    evaluations: int = 1,
    total: Callable[[int], int] = int,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorator that registers a sampling function; see `Sampler`."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        SAMPLERS.add(name, Sampler(function, path, order, evaluations, total), function.__module__)
        return function

    return decorate
