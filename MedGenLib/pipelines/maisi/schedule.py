"""Times and noise levels on which NV-Generate's networks were trained, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN_STEPS = 1000
BASE_VOXELS = 32**3
"""Latent voxels for which the rectified flow's times are uniform."""


def time_shift(latent_shape: Sequence[int]) -> float:
    """By how much more steps lie near the noise: larger latents need more noise to be drowned.

    The ratio of `timestep_transform` (MONAI's rectified-flow scheduler, as published), which is
    equation 23 of Esser et al. 2024, arXiv 2403.03206, with the side of a cube for the size.
    """
    return (math.prod(latent_shape) / BASE_VOXELS) ** (1 / 3)


def signal_levels() -> NDArray[np.float64]:
    """``alpha_bar`` of `ddpm-ct`: betas whose roots are evenly spaced from 0.0015 to 0.0195."""
    betas = np.linspace(math.sqrt(0.0015), math.sqrt(0.0195), TRAIN_STEPS) ** 2
    return np.cumprod(1 - betas)


def respaced(steps: int) -> NDArray[np.float64]:
    """``alpha_bar`` at ``steps + 1`` times from the noise to the data, the last exactly 1.

    1000 steps are the training's own; fewer are evenly spaced and start at its noisiest.
    """
    index = np.linspace(TRAIN_STEPS - 1, 0, steps + 1).round().astype(int)[:-1]
    if steps == TRAIN_STEPS:
        index = np.arange(TRAIN_STEPS)[::-1]
    return np.append(signal_levels()[index], 1.0)


def training_step(alpha_bar: float) -> int:
    """The training step of a signal level, 0 (data) to 999 (noise)."""
    levels = signal_levels()
    return int(np.abs(levels - alpha_bar).argmin())
