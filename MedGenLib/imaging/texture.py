"""Texture of an image of one structure: what differs between scans of the same anatomy."""

from __future__ import annotations

import numpy as np

DETAIL_SIGMA = 1.0
"""Voxels; structures below this size are fine detail."""
LIMIT = 3.0
"""Standard deviations beyond which values do not count for the skewness, as a few vessels would decide it."""


def texture(values: np.ndarray) -> np.ndarray:
    """Measures of an image in RAS orientation, (i, j, k) in any unit -> six numbers, float64.

    They are, of the image with mean 0 and SD 1, the logarithm (base 2) of the SD of its high-pass part, the correlation
    of that part at a distance of one voxel along each axis (NaN for an axis of one voxel), and the skewness; the last
    one is the contrast, SD over mean.
    """
    from scipy import ndimage, stats

    values = values.astype(np.float64)
    mean, sd = values.mean(), max(float(values.std()), 1e-6)
    values = (values - mean) / sd
    detail = values - ndimage.gaussian_filter(values, DETAIL_SIGMA)
    power = max(float(detail.var()), 1e-12)
    smoothness = [_neighbors(detail, axis) / power for axis in range(3)]
    skewness = stats.skew(np.clip(values, -LIMIT, LIMIT), axis=None)
    return np.array([np.log2(np.sqrt(power)), *smoothness, skewness, sd / max(abs(mean), 1e-6)])


def _neighbors(detail: np.ndarray, axis: int) -> float:
    first, second = (detail.take(range(start, detail.shape[axis] - 1 + start), axis) for start in (0, 1))
    return float((first * second).mean()) if first.size else float("nan")
