"""Noise of an image."""

from __future__ import annotations

import numpy as np


def noise_level(hu: np.ndarray, soft: np.ndarray) -> float | None:
    """Noise of a CT in HU: robust standard deviation of the high-pass image inside soft tissue.

    ``hu`` and the bool mask ``soft`` are (i, j, k); high-pass is the image minus its Gaussian
    of sigma 1 voxel; SD is 1.4826 times the median absolute deviation. None where fewer than
    200 voxels lie inside soft tissue.
    """
    from scipy import ndimage

    interior = ndimage.binary_erosion(soft)
    if int(interior.sum()) < 200:
        return None
    residual = (hu - ndimage.gaussian_filter(hu.astype(np.float32), 1.0))[interior]
    return float(1.4826 * np.median(np.abs(residual - np.median(residual))))
