"""Thick slices: what a stack of slices measures of a finer image, and the transposed operator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.volume import Geometry

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Profile = Literal["box", "gaussian"]

_SIGMA_OF_FWHM = 1 / np.sqrt(8 * np.log(2))
_REACH = 4.0
"""Distance from its center, in sigma, at which a Gaussian profile ends."""
_LARGEST_DEGREES = 0.5
"""Largest angle between an axis of a stack and that of the fine grid."""
_LEAST = 1e-5
"""Share of a profile that counts as none: rounded positions in headers make such shares of neighbors."""


def slice_weights(
    fine: int,
    coarse: int,
    spacing_mm: float,
    coarse_spacing_mm: float,
    thickness_mm: float,
    offset_mm: float,
    profile: Profile = "gaussian",
) -> csr_array:
    """(coarse, fine) float64: row m holds the weights of the fine samples in slice m, and its sum is 1.

    A weight is the integral of the slice's profile over the sample's voxel. The weights of a slice that hangs over the
    border are renormalized; a slice outside has an empty row. The center of gravity of a box that is not a whole number
    of samples wide is off by up to spacing_mm**2 / (8 * thickness_mm).

    Parameters
    ----------
    fine, coarse: number of samples and of slices.
    spacing_mm: distance of the samples; sample n lies at n * spacing_mm.
    coarse_spacing_mm: distance of the slices, negative where they count the other way.
    thickness_mm: width of the box, or full width at half maximum of the Gaussian.
    offset_mm: center of slice 0.
    profile: "box" (the mean of the slab) or "gaussian" (an excited slice of MR; see Remedios et al. 2025,
        arXiv:2503.11787).
    """
    from scipy.sparse import csr_array
    from scipy.special import ndtr

    faces = (np.arange(fine + 1) - 0.5) * spacing_mm
    reached = (faces - (offset_mm + np.arange(coarse) * coarse_spacing_mm)[:, None]) / thickness_mm
    if profile == "box":
        shares = np.diff((reached + 0.5).clip(0, 1))
    elif profile == "gaussian":
        shares = np.diff(ndtr((reached / _SIGMA_OF_FWHM).clip(-_REACH, _REACH)))
    else:
        raise ValueError(f'The profile "{profile}" of a slice is not known; use "box" or "gaussian".')
    shares[shares < _LEAST] = 0
    total = shares.sum(axis=1, keepdims=True)
    return csr_array(np.divide(shares, total, out=np.zeros_like(shares), where=total > 0))


class Acquisition:
    """A stack of slices as a separable linear operator on a fine image.

    In the plane a pixel is a box. Neither it nor a slice is ever narrower than a fine voxel.

    Parameters
    ----------
    fine, stack: grids in the same patient, with parallel axes in any order and direction; an angle up to 0.5 degrees
        is neglected, about the stack's center.
    thickness_mm: of the slices, along the stack's axis of the largest spacing; that spacing by default.
    profile: see `slice_weights`.

    Raises
    ------
    ValueError: not `is_aligned`.
    """

    def __init__(
        self, fine: Geometry, stack: Geometry, thickness_mm: float | None = None, profile: Profile = "gaussian"
    ) -> None:
        if not is_aligned(fine, stack):
            raise ValueError(
                "The slices are oblique to the fine grid; resample them to its directions, or use a grid along theirs."
            )
        self.fine, self.stack = fine, stack
        self.slice_axis = int(np.argmax(stack.spacing))
        self.thickness_mm = thickness_mm or stack.spacing[self.slice_axis]
        self.profile: Profile = profile
        self.order = tuple(np.abs(fine.direction.T @ stack.direction).argmax(axis=0).tolist())
        """Axis of the fine grid that each axis of the stack follows."""

    @cached_property
    def weights(self) -> tuple[csr_array, csr_array, csr_array]:
        """One float32 matrix (stack, fine) for each axis of the fine grid."""
        return tuple(slice_weights(*self._along(axis)).astype(np.float32) for axis in range(3))

    def degrade(self, fine: NDArray) -> NDArray[np.float32]:
        """The stack, in its own order of axes, of an image on the fine grid."""
        _require(fine, self.fine)
        result = _separable(self.weights, np.array(fine, dtype=np.float32))
        return np.ascontiguousarray(result.transpose(self.order))

    def adjoint(self, stack: NDArray) -> NDArray[np.float32]:
        """The transposed operator, from the stack to the fine grid."""
        _require(stack, self.stack)
        values = np.array(stack, dtype=np.float32).transpose(np.argsort(self.order))
        return np.ascontiguousarray(_separable([matrix.T.tocsr() for matrix in self.weights], values))

    def _along(self, axis: int) -> tuple[int, int, float, float, float, float, Profile]:
        """The arguments of `slice_weights` for an axis of the fine grid."""
        mine = self.order.index(axis)
        spacing, step = self.fine.spacing[axis], self.stack.spacing[mine]
        middle = self.stack.affine @ [*(np.array(self.stack.shape) - 1) / 2, 1.0]
        index = np.linalg.solve(self.fine.affine, middle)[axis]
        thick = mine == self.slice_axis
        width = max(self.thickness_mm if thick else step, spacing)
        step *= np.sign(self.fine.direction[:, axis] @ self.stack.direction[:, mine])
        offset = index * spacing - step * (self.stack.shape[mine] - 1) / 2
        profile = self.profile if thick else "box"
        return self.fine.shape[axis], self.stack.shape[mine], spacing, step, width, offset, profile


def is_aligned(fine: Geometry, stack: Geometry) -> bool:
    """Whether the axes of two grids are parallel to 0.5 degrees, in any order and direction."""
    cosines = np.abs(fine.direction.T @ stack.direction).max(axis=0)
    return bool((cosines >= np.cos(np.radians(_LARGEST_DEGREES))).all())


def grid_of_thick(
    fine: Geometry, axis: int, factor: float | None = None, coarse_spacing_mm: float | None = None
) -> Geometry:
    """The grid of thick slices across an axis of a fine grid, as many as lie wholly inside, but at least one.

    The first slice begins at the outer face of the first fine voxel; the next one is `coarse_spacing_mm`, or `factor`
    fine voxels, further.
    """
    if (factor is None) == (coarse_spacing_mm is None):
        raise ValueError("The distance of thick slices is not clear; give either a factor or a spacing.")
    factor = coarse_spacing_mm / fine.spacing[axis] if factor is None else factor
    shape = list(fine.shape)
    shape[axis] = max(1, int(shape[axis] / factor + 1e-6))
    affine = fine.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    return Geometry(tuple(shape), affine)


def along_axis(matrix: csr_array, array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The array of float32 whose axis of n samples has been multiplied by a matrix (m, n)."""
    moved = np.moveaxis(array, axis, 0)
    result = matrix @ moved.reshape(len(moved), -1)
    return np.moveaxis(result.reshape(-1, *moved.shape[1:]), 0, axis)


def _separable(matrices: Sequence[csr_array], array: NDArray[np.float32]) -> NDArray[np.float32]:
    """One matrix applied along each axis, those first that make the array smaller."""
    for axis in sorted(range(3), key=lambda n: matrices[n].shape[0] / matrices[n].shape[1]):
        matrix = matrices[axis]
        if not (matrix.shape[0] == matrix.shape[1] == matrix.nnz and np.allclose(matrix.diagonal(), 1)):
            array = along_axis(matrix, array, axis)
    return array


def _require(array: NDArray, grid: Geometry) -> None:
    if np.shape(array) != grid.shape:
        raise ValueError(f"An array of shape {np.shape(array)} does not fit the grid of {grid}.")
