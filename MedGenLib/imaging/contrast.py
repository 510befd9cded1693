"""Contrast of an MR image: levels of its tissues relative to one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST_VOXELS = 30
"""Voxels of a tissue below which it has no level."""


def levels(values: np.ndarray, labels: np.ndarray, wanted: Sequence[int], reference: int) -> np.ndarray:
    """Median of each wanted label relative to that of the reference; NaN for labels of few voxels."""
    parts = (values[labels == value] for value in (*wanted, reference))
    medians = [float(np.median(part)) if part.size >= FEWEST_VOXELS else float("nan") for part in parts]
    return np.array(medians[:-1]) / medians[-1]
