"""Contrast of an MR image: levels of its tissues relative to one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST_VOXELS = 30
"""Voxels of a tissue below which it has no level."""


def levels(values: np.ndarray, labels: np.ndarray, wanted: Sequence[int], reference: int) -> np.ndarray:
    """Median of each wanted label, then the spread of the reference, relative to the median of the reference.

    The spread is half of the distance between the percentiles 16 and 84. NaN for labels of few voxels.
    """
    white = values[labels == reference]
    if white.size < FEWEST_VOXELS:
        return np.full(len(wanted) + 1, np.nan)
    found = [values[labels == value] for value in wanted]
    medians = [float(np.median(part)) if part.size >= FEWEST_VOXELS else np.nan for part in found]
    low, middle, high = np.percentile(white, [16, 50, 84])
    return np.array([*medians, (high - low) / 2]) / middle
