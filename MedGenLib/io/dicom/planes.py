"""Division of a volume into the slices of a DICOM series, in the radiological orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])
_CORONAL = np.array([[1.0, 0, 0], [0, 0, -1]])
_SAGITTAL = np.array([[0.0, 1, 0], [0, 0, -1]])
_VIEWS = (_SAGITTAL, _CORONAL, _AXIAL)
"""LPS directions of increasing column and row index, by the main axis (L, P, S) of the normal."""
_SUPERIOR = np.array([0.0, 0, 1])


@dataclass(frozen=True)
class Slices:
    """A volume as a stack of slices: axes are permuted and flipped, voxels are not resampled.

    Attributes
    ----------
    pixels: (slice, row, column), slices in order along the normal.
    row, column: LPS unit vectors of increasing column and row index (image orientation).
    positions: (slices, 3), LPS mm of the first pixel of each slice (image position).
    pixel: spacing in mm between rows and between columns (pixel spacing).
    gap: spacing in mm between slices.
    """

    pixels: np.ndarray
    row: np.ndarray
    column: np.ndarray
    positions: np.ndarray
    pixel: tuple[float, float]
    gap: float

    @property
    def normal(self) -> np.ndarray:
        """LPS unit vector across the slices."""
        return np.cross(self.row, self.column)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) affine from index (slice, row, column) to LPS mm."""
        affine = np.eye(4)
        affine[:3, 0] = self.gap * self.normal
        affine[:3, 1] = self.pixel[0] * self.column
        affine[:3, 2] = self.pixel[1] * self.row
        affine[:3, 3] = self.positions[0]
        return affine


def cut(image: Volume | LabelMap, like: np.ndarray | None = None) -> Slices:
    """Slices of a volume.

    If exactly one axis has one voxel, it is the slice axis. Otherwise the slices are parallel to
    those of the source as far as the grid allows, or axial without a source. Column and row index
    increase in the directions of the source, or towards left and posterior (axial), left and
    inferior (coronal), posterior and inferior (sagittal).

    Parameters
    ----------
    like: (2, 3), LPS directions of increasing column and row index of a source.
    """
    axes = _RAS_TO_LPS @ image.affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    direction = axes / spacing
    across = _axis_across(image.shape, direction, like)
    normal = direction[:, across]
    if like is None or abs(np.cross(*like) @ normal) < np.sqrt(0.5):
        like = _VIEWS[int(np.abs(normal).argmax())]
    first, second = (axis for axis in range(3) if axis != across)
    if abs(like[0] @ direction[:, second]) > abs(like[0] @ direction[:, first]):
        first, second = second, first
    order = [first, second, across]
    signs = [_sign(like[0] @ direction[:, first]), _sign(like[1] @ direction[:, second])]
    row, column = direction[:, first] * signs[0], direction[:, second] * signs[1]
    column = column - (column @ row) * row  # axes may deviate from 90 degrees by 0.06 degrees
    column /= np.linalg.norm(column)
    signs.append(_sign(np.cross(row, column) @ normal))

    flipped = [n for n, sign in enumerate(signs) if sign < 0]
    start = np.zeros(3)
    for n in flipped:
        start[order[n]] = image.shape[order[n]] - 1
    begin = _RAS_TO_LPS @ image.affine[:3, 3] + axes @ start
    positions = begin + np.arange(image.shape[across])[:, None] * axes[:, across] * signs[2]
    pixels = np.flip(image.array.transpose(order), flipped).transpose(2, 1, 0)
    between_columns, between_rows, gap = spacing[order]
    return Slices(pixels, row, column, positions, (float(between_rows), float(between_columns)), float(gap))


def _axis_across(shape: tuple[int, ...], direction: np.ndarray, like: np.ndarray | None) -> int:
    flat = [axis for axis, size in enumerate(shape) if size == 1]
    if len(flat) == 1:
        return flat[0]
    wanted = _SUPERIOR if like is None else np.cross(*like)
    return int(np.abs(wanted @ direction).argmax())


def _sign(cosine: float) -> int:
    return -1 if cosine < 0 else 1
