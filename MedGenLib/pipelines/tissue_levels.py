"""Usual HU of each tissue at each place of a mask, and the shift that gives them to a generated image. No torch.

A flow with a small field of view knows little of where it is: it makes the femur of a thigh as dark as a rib. A network
on coarse cells sees the shape of all tissues within decimeters and predicts the mean HU of each tissue in each cell.
The image is shifted by the difference to its own local mean, tissue by tissue and smoothly, which keeps its texture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, Volume

if TYPE_CHECKING:
    from MedGenLib.imaging.normalization import TissueStandard
    from MedGenLib.imaging.orientation import Reorientation

CELL_MM = 4.0
"""Side of a cell."""
SIGMA = 1.0
"""Standard deviation of the Gaussian mean of an image's own levels, in cells."""
LEAST_SHARE = 1e-3
"""Share of a tissue around a cell below which the image has no level of its own there."""


def cell_counts(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Number of cells along each axis of a grid; whole voxels are divided among them."""
    return tuple(min(n, max(1, round(n * mm / CELL_MM))) for n, mm in zip(shape, spacing, strict=True))


def tissue_shares(labels: NDArray, cells: Sequence[int], tissues: int) -> NDArray[np.float32]:
    """Share of each label in each cell, outside first: (i, j, k) labels -> (tissues + 1, cells)."""
    shares = np.empty((tissues + 1, *cells), np.float32)
    for row, part in _rows(len(labels), cells[0]):
        counts = [_pooled((labels[part] == value).sum(0), cells[1:]) for value in range(1, tissues + 1)]
        whole = _pooled(np.full(labels.shape[1:], part.stop - part.start), cells[1:])
        shares[1:, row] = np.array(counts) / whole
    shares[0] = 1 - shares[1:].sum(0)
    return shares


def tissue_sums(
    values: NDArray, labels: NDArray, cells: Sequence[int], tissues: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sum of the values of each label in each cell, and its number of voxels, (tissues, cells) each."""
    sums, counts = (np.empty((tissues, *cells), np.float32) for _ in range(2))
    for row, part in _rows(len(labels), cells[0]):
        for value in range(1, tissues + 1):
            inside = labels[part] == value
            counts[value - 1, row] = _pooled(inside.sum(0), cells[1:])
            sums[value - 1, row] = _pooled(np.where(inside, values[part], 0).sum(0, dtype=np.float64), cells[1:])
    return sums, counts


def level_shift(values: NDArray, labels: NDArray, expected: NDArray, codec: TissueStandard) -> NDArray[np.float32]:
    """Shift in HU of each tissue in each cell, (tissues, cells); 0 far from a tissue.

    Parameters
    ----------
    values: network values (i, j, k) of the image; labels: on the same grid.
    expected: level of each tissue in each cell, in scales of the codec above its center.
    """
    from scipy.ndimage import gaussian_filter

    tissues, cells = len(expected), expected.shape[1:]
    hu = np.empty(labels.shape, np.float32)
    for _, part in _rows(len(labels), cells[0]):
        hu[part] = codec.decode(values[part], labels[part])
    sums, counts = tissue_sums(hu, labels, cells, tissues)
    voxels = labels.size / np.prod(cells)
    centers, scales = (np.asarray(x, np.float32)[1 : tissues + 1] for x in (codec.centers, codec.scales))
    shift = np.zeros_like(expected, np.float32)
    for number in range(tissues):
        total, share = (gaussian_filter(a[number], SIGMA, mode="constant") for a in (sums, counts / voxels))
        own = total / voxels / np.maximum(share, LEAST_SHARE)
        wanted = centers[number] + scales[number] * expected[number]
        shift[number] = np.where(share >= LEAST_SHARE, wanted - own, 0)
    return shift


@dataclass(frozen=True)
class LevelShift:
    """The shift of an image.

    Attributes
    ----------
    tissues: shift in HU of label 1, 2, ...: volumes of cells.
    grid: of the image.
    """

    tissues: tuple[Volume, ...]
    grid: Geometry

    @classmethod
    def of(
        cls, shift: NDArray[np.float32], working: Geometry, reorientation: Reorientation, image: Geometry
    ) -> LevelShift:
        """The shift (tissues, cells) of a reoriented working grid, for an image that lies on another grid."""
        stored = [reorientation.undo(values) for values in shift]
        return cls(tuple(Volume(array, _cells_affine(working, array.shape)) for array in stored), image)

    def at(self, labels: NDArray, box: Box) -> NDArray[np.float32]:
        """Shift in HU of the voxels of a box of the image by their labels; 0 beyond the working grid."""
        found = np.zeros(labels.shape, np.float32)
        place = self.grid.moved([part.start for part in box], labels.shape)
        for value, cells in enumerate(self.tissues, 1):
            inside = labels == value
            if inside.any():
                found[inside] = resample_to(cells, place, fill=0.0).array[inside]
        return found


def _cells_affine(grid: Geometry, cells: Sequence[int]) -> NDArray[np.float64]:
    """Affine of the centers of cells that cover a grid."""
    steps = [n / m for n, m in zip(grid.shape, cells, strict=True)]
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*((step - 1) / 2 for step in steps), 1])[:3]
    affine[:3, :3] = grid.affine[:3, :3] * steps
    return affine


def _rows(length: int, count: int) -> Iterator[tuple[int, slice]]:
    """Number of a cell along an axis, and its voxels."""
    edges = [number * length // count for number in range(count + 1)]
    for number in range(count):
        yield number, slice(edges[number], edges[number + 1])


def _pooled(plane: NDArray, cells: Sequence[int]) -> NDArray:
    """Sums of a plane over cells."""
    for axis, count in enumerate(cells):
        plane = np.add.reduceat(plane, np.arange(count) * plane.shape[axis] // count, axis)
    return plane
