"""Stacks of slices -> the smoothest volume that has these slices.

A stack is y = A x, where A is the product of a matrix of `slice_weights` along each axis. Each matrix has a regularized
inverse R = (A'A + m D'D)^-1 A' with the second differences D, so that x = R y bends least (Tikhonov regularization);
several stacks are fitted in turn (Kaczmarz 1937; algebraic reconstruction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.degradation.slices import along_axis

ROUGHNESS = 1e-3
"""Weight m of the second differences: small enough to keep the slices, large enough for overlapping ones."""
ROUNDS = 4


@dataclass(frozen=True)
class AxisFit:
    """The matrix of one axis, and its regularized inverse.

    Attributes
    ----------
    weights: (slices, fine samples).
    inverse: (fine samples, slices).
    covered: (fine samples,) 1 where a slice shows the sample, else 0.
    """

    weights: NDArray[np.float32]
    inverse: NDArray[np.float32]
    covered: NDArray[np.float32]

    @classmethod
    def of(cls, weights: NDArray) -> AxisFit:
        """``weights`` is dense, (slices, fine samples)."""
        slices, fine = weights.shape
        if slices == fine and np.allclose(weights, np.eye(fine), atol=1e-6):
            return cls(np.eye(fine, dtype=np.float32), np.eye(fine, dtype=np.float32), np.ones(fine, np.float32))
        weights = weights.astype(np.float64)
        bends = np.diff(np.eye(fine), 2, axis=0)
        normal = weights.T @ weights + ROUGHNESS * bends.T @ bends + 1e-6 * np.eye(fine)
        inverse = np.linalg.solve(normal, weights.T)
        shown = np.flatnonzero(weights.sum(0) > 0)
        covered = np.zeros(fine)
        covered[shown.min() : shown.max() + 1] = 1
        return cls(*(np.asarray(part, np.float32) for part in (weights, inverse, covered)))


@dataclass(frozen=True)
class StackFit:
    """A stack on axes of the fine grid: slices of a fine image, and a fine image of slices."""

    axes: tuple[AxisFit, AxisFit, AxisFit]

    def slices(self, fine: NDArray) -> NDArray[np.float32]:
        """A x: (i, j, k) of the fine grid -> those of the stack."""
        return along_axes([axis.weights for axis in self.axes], fine)

    def smoothest(self, stack: NDArray) -> NDArray[np.float32]:
        """R y: (i, j, k) of the stack -> those of the fine grid, 0 where no slice is."""
        return along_axes([axis.covered[:, None] * axis.inverse for axis in self.axes], stack)

    @property
    def coverage(self) -> NDArray[np.float32]:
        """1 where the stack shows the fine grid, else 0."""
        i, j, k = (axis.covered for axis in self.axes)
        return i[:, None, None] * j[:, None] * k


def along_axes(matrices: Sequence[NDArray], values: NDArray) -> NDArray[np.float32]:
    """Apply a matrix (new, old) along each axis of ``values``."""
    values = np.asarray(values, np.float32)
    for axis, matrix in enumerate(matrices):
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(len(matrix), dtype=matrix.dtype)):
            values = along_axis(matrix, values, axis)
    return np.ascontiguousarray(values, np.float32)


def fuse(stacks: Sequence[NDArray], fits: Sequence[StackFit]) -> NDArray[np.float32]:
    """The fine image of some stacks, (i, j, k); the mean of what each shows, then fitted to all."""
    total = sum(fit.smoothest(stack) for stack, fit in zip(stacks, fits, strict=True))
    if len(fits) > 1:
        total = total / np.maximum(sum(fit.coverage for fit in fits), 1)
    return consistent(total, stacks, fits)


def consistent(
    fine: NDArray, stacks: Sequence[NDArray], fits: Sequence[StackFit], limits: tuple[float, float] | None = None
) -> NDArray[np.float32]:
    """The image with the smoothest correction by which its slices become those of the stacks, within limits.

    Projections in turn onto the images with these slices and those within the limits (projection onto convex sets).
    """
    fine = np.array(fine, np.float32)
    for _ in range(ROUNDS):
        for stack, fit in zip(stacks, fits, strict=True):
            fine += fit.smoothest(stack - fit.slices(fine))
        if limits is not None:
            fine = fine.clip(*limits)
    return fine
