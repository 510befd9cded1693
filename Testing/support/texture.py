"""Texture and noise of images, as the tests and benchmarks measure them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from MedGenLib.errors import InputError


def interior(mask: ArrayLike, voxels: int = 2) -> NDArray[np.bool_]:
    """The mask eroded by so many voxels in all directions but along axes of a single voxel.

    Texture is measured there, so that the edges of a tissue do not count as its texture.
    """
    mask = np.asarray(mask, bool)
    return ndimage.binary_erosion(mask, _window(mask.shape), iterations=voxels)


def local_sd(image: ArrayLike, mask: ArrayLike) -> float:
    """Mean standard deviation in 3 x 3 x 3 windows over the mask's interior; NaN if that is empty.

    A measure of fine texture and noise; its ratio to that of a real image should be near 1.
    """
    image = np.asarray(image, np.float64)
    inside = interior(mask)
    if not inside.any():
        return float("nan")
    image = image - image[inside].mean()  # keeps the difference of squares below precise
    size = _window(image.shape).shape
    mean = ndimage.uniform_filter(image, size)
    variance = ndimage.uniform_filter(image * image, size) - mean * mean
    return float(np.sqrt(np.maximum(variance[inside], 0)).mean())


def highpass(image: ArrayLike, sigma: float = 1.0) -> NDArray[np.float64]:
    """The image less its Gaussian blur, sigma in voxels: texture without anatomy."""
    image = np.asarray(image, np.float64)
    return image - ndimage.gaussian_filter(image, sigma)


def highpass_sd(image: ArrayLike, mask: ArrayLike, sigma: float = 1.0) -> float:
    """Standard deviation of `highpass` over the mask's interior; NaN if that is empty."""
    image = np.asarray(image, np.float64)
    inside = interior(mask)
    return float(highpass(image, sigma)[inside].std()) if inside.any() else float("nan")


def seed_sd(samples: Sequence[ArrayLike], mask: ArrayLike, lowpass: float = 0.0) -> float:
    """Standard deviation between samples of several seeds, averaged over the mask.

    `lowpass` is the sigma in voxels of a Gaussian blur before the comparison. With one of 1.5 or
    more, mere noise counts little and a difference in structure remains.
    """
    if len(samples) < 2:
        raise InputError("The spread between seeds needs at least two samples; make one more.")
    stack = np.stack([np.asarray(sample, np.float64) for sample in samples])
    if lowpass > 0:
        stack = np.stack([ndimage.gaussian_filter(sample, lowpass) for sample in stack])
    return float(stack.std(axis=0, ddof=1)[np.asarray(mask, bool)].mean())


def _window(shape: Sequence[int]) -> NDArray[np.bool_]:
    """3 voxels along each axis, 1 along axes of a single voxel."""
    return np.ones([3 if length > 1 else 1 for length in shape], bool)
