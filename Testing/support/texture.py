"""Texture and noise metrics of images, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from MedGenLib.errors import InputError


def interior(mask: ArrayLike, voxels: int = 2) -> NDArray[np.bool_]:
    """The mask eroded by ``voxels`` along every axis of more than one voxel.

    Texture is measured in the interior, which excludes the edges of a tissue.
    """
    mask = np.asarray(mask, bool)
    return ndimage.binary_erosion(mask, _window(mask.shape), iterations=voxels)


def local_sd(image: ArrayLike, mask: ArrayLike) -> float:
    """Mean standard deviation in 3 x 3 x 3 windows over the mask's interior; NaN if that is empty.

    It measures fine texture and noise; the ratio to that of a real image should be near 1.
    """
    image = np.asarray(image, np.float64)
    inside = interior(mask)
    if not inside.any():
        return float("nan")
    image = image - image[inside].mean()  # avoids cancellation in the difference below
    size = _window(image.shape).shape
    mean = ndimage.uniform_filter(image, size)
    variance = ndimage.uniform_filter(image * image, size) - mean * mean
    return float(np.sqrt(np.maximum(variance[inside], 0)).mean())


def highpass(image: ArrayLike, sigma: float = 1.0) -> NDArray[np.float64]:
    """Image minus its Gaussian blur, sigma in voxels."""
    image = np.asarray(image, np.float64)
    return image - ndimage.gaussian_filter(image, sigma)


def highpass_sd(image: ArrayLike, mask: ArrayLike, sigma: float = 1.0) -> float:
    """Standard deviation of `highpass` over the mask's interior; NaN if that is empty."""
    image = np.asarray(image, np.float64)
    inside = interior(mask)
    return float(highpass(image, sigma)[inside].std()) if inside.any() else float("nan")


def seed_sd(samples: Sequence[ArrayLike], mask: ArrayLike, lowpass: float = 0.0) -> float:
    """Standard deviation between samples of several seeds, averaged over the mask.

    `lowpass` is the sigma in voxels of a Gaussian blur before the comparison. From 1.5 on, it
    suppresses noise and keeps differences in structure.
    """
    if len(samples) < 2:
        raise InputError("The SD between seeds needs at least two samples; make one more.")
    stack = np.stack([np.asarray(sample, np.float64) for sample in samples])
    if lowpass > 0:
        stack = np.stack([ndimage.gaussian_filter(sample, lowpass) for sample in stack])
    return float(stack.std(axis=0, ddof=1)[np.asarray(mask, bool)].mean())


def _window(shape: Sequence[int]) -> NDArray[np.bool_]:
    """3 voxels along each axis, 1 along axes of a single voxel."""
    return np.ones([3 if length > 1 else 1 for length in shape], bool)
