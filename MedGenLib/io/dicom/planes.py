"""Cutting a volume into the slices of a DICOM series, as a reader expects to see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])
_CORONAL = np.array([[1.0, 0, 0], [0, 0, -1]])
_SAGITTAL = np.array([[0.0, 1, 0], [0, 0, -1]])
_VIEWS = (_SAGITTAL, _CORONAL, _AXIAL)
"""Directions in LPS of growing column and growing row on the screen, by the normal's main axis."""
_SUPERIOR = np.array([0.0, 0, 1])


@dataclass(frozen=True)
class Slices:
    """A volume as a stack of images; only axes were exchanged and turned, no voxel was computed.

    Attributes
    ----------
    pixels: (slice, row, column), slices growing along the normal.
    row, column: unit vectors in LPS of growing column and growing row (image orientation).
    positions: (slices, 3), LPS mm of each slice's first pixel (image position).
    pixel: mm between rows, between columns (pixel spacing).
    gap: mm between slices.
    """

    pixels: np.ndarray
    row: np.ndarray
    column: np.ndarray
    positions: np.ndarray
    pixel: tuple[float, float]
    gap: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.row, self.column)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) index (slice, row, column) -> LPS mm."""
        affine = np.eye(4)
        affine[:3, 0] = self.gap * self.normal
        affine[:3, 1] = self.pixel[0] * self.column
        affine[:3, 2] = self.pixel[1] * self.row
        affine[:3, 3] = self.positions[0]
        return affine


def cut(image: Volume | LabelMap, like: np.ndarray | None = None) -> Slices:
    """The slices of a volume.

    An axis of one voxel is the one across the slices. Otherwise they lie as those of the source
    do, as far as the grid allows; without a source they are axial. Columns and rows run to the
    patient's left and back (axial), left and feet (coronal), back and feet (sagittal), or as the
    source's do.

    Parameters
    ----------
    like: (2, 3), directions in LPS of a source's growing column and growing row.
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
    column = column - (column @ row) * row  # axes may be off a right angle by 0.06 degrees
    column /= np.linalg.norm(column)
    signs.append(_sign(np.cross(row, column) @ normal))

    turned = [n for n, sign in enumerate(signs) if sign < 0]
    start = np.zeros(3)
    for n in turned:
        start[order[n]] = image.shape[order[n]] - 1
    begin = _RAS_TO_LPS @ image.affine[:3, 3] + axes @ start
    positions = begin + np.arange(image.shape[across])[:, None] * axes[:, across] * signs[2]
    pixels = np.flip(image.array.transpose(order), turned).transpose(2, 1, 0)
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
