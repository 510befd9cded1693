"""Times and noise levels of NV-Generate's networks, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN_STEPS = 1000
BASE_VOXELS = 32**3
"""Number of latent voxels for which the times of the rectified flow are uniform."""


def time_shift(latent_shape: Sequence[int]) -> float:
    """Time shift of the rectified flow: larger latents need more steps near the noise.

    The ratio in `timestep_transform` (MONAI's rectified-flow scheduler, as published), which is equation 23 of Esser et
    al. 2024, arXiv 2403.03206, with the side of a cube as size.
    """
    return (math.prod(latent_shape) / BASE_VOXELS) ** (1 / 3)


def signal_levels() -> NDArray[np.float64]:
    """``alpha_bar`` of `ddpm-ct`: betas whose roots are evenly spaced from 0.0015 to 0.0195."""
    betas = np.linspace(math.sqrt(0.0015), math.sqrt(0.0195), TRAIN_STEPS) ** 2
    return np.cumprod(1 - betas)


def respaced(steps: int) -> NDArray[np.float64]:
    """``alpha_bar`` at ``steps + 1`` times from the noise to the data, the last exactly 1.

    1000 steps are those of training; fewer are evenly spaced and start at the noisiest one.
    """
    index = np.linspace(TRAIN_STEPS - 1, 0, steps + 1).round().astype(int)[:-1]
    if steps == TRAIN_STEPS:
        index = np.arange(TRAIN_STEPS)[::-1]
    return np.append(signal_levels()[index], 1.0)


def training_step(alpha_bar: float) -> int:
    """The training step of a signal level, 0 (data) to 999 (noise)."""
    levels = signal_levels()
    return int(np.abs(levels - alpha_bar).argmin())
