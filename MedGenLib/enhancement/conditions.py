"""Conditions of the network that restores images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONDITIONS = 5
LEAST_NOISE = 0.02
"""Noise, in network units, that counts as 1 in its condition."""


def conditions(thick: Sequence[float], noise: float, stacks: int) -> NDArray[np.float32]:
    """(5,) numbers of the order of 1.

    Parameters
    ----------
    thick: distance of the slices along each axis in voxels of the output; 1 where no stack has thick slices.
    noise: standard deviation of the noise in network units.
    stacks: number of stacks with thick slices; 0 for an image whose noise alone is removed.
    """
    return np.array([*np.log2(thick), np.log2(1 + noise / LEAST_NOISE) / 2, max(0, stacks - 1)], np.float32)
