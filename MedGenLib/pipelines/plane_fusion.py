"""One volume from the slices of several planes, without the steps between slices.

Slices are translated one by one, so the translation of a plane jumps from slice to slice where the network is
undecided. These jumps appear as streaks in the other planes. Along the normal of a plane, detail is therefore that of
the other planes, which contain this direction within their slices::

    fused = sum_a w_a (o_a + G_a (p_a - o_a)) / sum_a w_a

p_a are the values of plane a, w_a the weights of its slices, o_a is the weighted mean of the other planes, and G_a a
Gaussian filter along the normal of plane a. Without the filter, this is the weighted mean of the planes.

The detail of two planes instead of three has more error where the planes agree: heads have fewer streaks and a slightly
better skull, but limbs and trunk, which have no streaks, 2 % more error (`Testing/benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SIGMA = 1.5
"""Standard deviation of the filter, in slices."""
SLAB = 16
"""Rows that are filtered at once, to save memory."""


def fill_gaps(values: NDArray, axis: int, slices: Sequence[int]) -> None:
    """Interpolate the slices between those that were translated, in place.

    Parameters
    ----------
    values: (i, j, k).
    slices: ascending indices of the translated slices across ``axis``; beyond them, nothing changes.
    """
    along = np.moveaxis(values, axis, 0)
    for low, high in pairwise(slices):
        for index in range(low + 1, high):
            share = np.float32((index - low) / (high - low))
            along[index] = (1 - share) * along[low] + share * along[high]


def fused(planes: Mapping[int, NDArray], weights: Mapping[int, NDArray]) -> NDArray[np.float32]:
    """Fuse the planes.

    Parameters
    ----------
    planes: normal axis -> values (i, j, k) of all slices across it; any value where the weight is 0.
    weights: normal axis -> weight of each of its slices, 0 for a slice that was not translated.
    """
    mean = weighted_mean(planes, weights)
    if len(planes) == 1:
        return mean
    total = total_weight(weights, mean.shape)
    found = np.zeros(mean.shape, np.float32)
    for axis, values in planes.items():
        own = _along(weights[axis], axis)
        for rows in _slabs(mean.shape, axis):
            other_weight = total[rows] - own
            other = (mean[rows] * total[rows] - own * values[rows]) / np.maximum(other_weight, 1e-6)
            difference = _filtered(values[rows] - other, weights[axis], axis)
            found[rows] += own * np.where(other_weight > 0, other + difference, values[rows])
    return found / np.maximum(total, 1e-6)


def weighted_mean(planes: Mapping[int, NDArray], weights: Mapping[int, NDArray]) -> NDArray[np.float32]:
    """Weighted mean of the planes; parameters as for `fused`."""
    shape = next(iter(planes.values())).shape
    summed = np.zeros(shape, np.float32)
    for axis, values in planes.items():
        summed += _along(weights[axis], axis) * values
    return summed / np.maximum(total_weight(weights, shape), 1e-6)


def total_weight(weights: Mapping[int, NDArray], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Sum of the weights of the slices through each voxel, (i, j, k)."""
    total = np.zeros(shape, np.float32)
    for axis, of_slices in weights.items():
        total += _along(of_slices, axis)
    return total


def _filtered(difference: NDArray, weights: NDArray, axis: int) -> NDArray:
    """Normalized convolution along an axis over the slices that were translated."""
    from scipy.ndimage import gaussian_filter1d

    known = (weights > 0).astype(np.float32)
    smooth = gaussian_filter1d(difference * _along(known, axis), SIGMA, axis)
    return smooth / np.maximum(_along(gaussian_filter1d(known, SIGMA), axis), 1e-6)


def _along(values: NDArray, axis: int) -> NDArray[np.float32]:
    """A vector along an axis of a volume."""
    return values.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])


def _slabs(shape: tuple[int, ...], axis: int) -> list[tuple[slice, ...]]:
    """Slabs across an axis other than the given one."""
    across = 1 if axis == 0 else 0
    return [
        tuple(slice(start, start + SLAB) if a == across else slice(None) for a in range(3))
        for start in range(0, shape[across], SLAB)
    ]
