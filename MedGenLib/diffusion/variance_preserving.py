"""The variance-preserving schedule of DDPM and its respaced times."""

from __future__ import annotations

import numpy as np

TRAIN_STEPS = 1000


def cumulative_signal() -> np.ndarray:
    """``alpha_bar`` for 1000 steps with linear beta 1e-4 .. 0.02 (Ho et al. 2020, section 4)."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, TRAIN_STEPS))


def respaced(steps: int) -> np.ndarray:
    """``alpha_bar`` at ``steps + 1`` times, from almost no signal to the clean data (exactly 1)."""
    index = np.linspace(TRAIN_STEPS - 1, 0, steps, endpoint=False).round().astype(int)
    return np.append(cumulative_signal()[index], 1.0)
