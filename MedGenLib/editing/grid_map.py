"""The map between an image and the working grid of a model that covers it.

The networks work on a grid in RAS orientation, at the spacing of the model, in whole network
strides. Its axes are parallel to those of the image, so that the map is linear along each axis:
working index = ``scale`` * image index + ``shift``. Every resampling between the two is therefore
separable, and exact where the working grid has the voxels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.orientation import Reorientation

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Geometry
    from MedGenLib.pipelines.scene import Scene

_TINY = 1e-6


@dataclass(frozen=True)
class GridMap:
    """The map between an image and its working grid.

    Attributes
    ----------
    image: voxels of the image along i, j, k as stored; `Box`es of the image are in this order.
    reorientation: from the axes of the image to those of the working grid.
    scale, shift: per axis of the working grid; an axis of one image voxel is repeated and has scale 0.
    shape: working voxels, multiples of the networks' stride.
    own: the working grid has the voxels of the image.
    cell: working voxels along a side of a latent cell.
    """

    image: tuple[int, int, int]
    reorientation: Reorientation
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    shape: tuple[int, int, int]
    own: bool
    cell: int

    @classmethod
    def over(cls, scene: Scene, stride: int) -> tuple[GridMap, Box]:
        """The map for a working grid that extends that of a scene over the whole image, and the place of the scene."""
        original, grid, reorientation = scene.original.geometry, scene.grid.geometry, scene.reorientation
        scale, shift, shape, place = [], [], [], []
        for axis, stored in enumerate(reorientation.order):
            size, before = scene.labels.shape[axis], scene.before[axis]
            if original.shape[stored] == 1:
                line, room = (0.0, before + scene.inner[axis] // 2), (0, size)
            else:
                line = _line(original, grid, stored, axis in reorientation.flips, before)
                room = _room(*line, original.shape[stored])
            pre = max(0, math.ceil(-room[0] / stride)) * stride
            post = max(0, math.ceil((room[1] - size) / stride)) * stride
            scale.append(line[0])
            shift.append(line[1] + pre)
            shape.append(pre + size + post)
            place.append(slice(pre, pre + size))
        cell = scene.manifest.settings.latent_stride
        grid_map = cls(original.shape, reorientation, tuple(scale), tuple(shift), tuple(shape), scene.own_grid, cell)
        return grid_map, tuple(place)

    @property
    def extent(self) -> Box:
        """The part of the working grid that the image covers."""
        return tuple(
            slice(0, n) if not a else slice(*(int(v) for v in _room(a, b, count)))
            for a, b, n, count in zip(
                self.scale, self.shift, self.shape, self.reorientation.axes(self.image), strict=True
            )
        )

    @property
    def steps(self) -> tuple[float, float, float]:
        """Working voxels in one image voxel along i, j, k; 1 along an axis of one voxel."""
        return self._stored([abs(a) or 1.0 for a in self.scale])

    def reach(self, distance: float) -> tuple[int, int, int]:
        """Image voxels along i, j, k nearer than a distance in working voxels."""
        return self._stored([math.ceil(distance / abs(a) - _TINY) - 1 if a else 0 for a in self.scale])

    def voxels_in(self, box: Box) -> Box:
        """The image's voxels that read from a box of the working grid, by linear interpolation."""
        parts = []
        for part, a, b, n in self._axes(box):
            if not a:
                parts.append(slice(0, 1))
                continue
            margin = 0 if self.own else 1
            ends = sorted(((part.start - margin - b) / a, (part.stop - 1 + margin - b) / a))
            first, last = math.ceil(ends[0] - _TINY), math.floor(ends[1] + _TINY)
            parts.append(slice(min(max(first, 0), n), max(min(last + 1, n), 0)))
        return self._stored(parts)

    def cells_of(self, where: np.ndarray, box: Box) -> tuple[Box, np.ndarray]:
        """Latent cells that the voxels ``where`` of an image box touch.

        Returns their bounding box in cells and the bool array of it.
        """
        array, cells = where.transpose(self.reorientation.order), []
        for axis, (part, a, b, _) in enumerate(self._axes(self._turned(box))):
            low, high = self._cells_along(part, a, b, axis)
            first = int(low.min())
            rows = np.arange(first, int(high.max()) + 1)[:, None]
            hit = ((rows >= low) & (rows <= high)).astype(np.float32)
            array = _along(hit, array.astype(np.float32), axis) > 0
            cells.append(slice(first, first + len(rows)))
        return tuple(cells), array

    def labels(self, labels: np.ndarray, box: Box) -> np.ndarray:
        """The nearest labels of the image in a box of the working grid, 0 beyond the image."""
        parts, inside = [], []
        for part, a, b, n in self._axes(box):
            index = np.arange(part.start, part.stop)
            index = np.rint((index - b) / a).astype(int) if a else np.zeros(len(index), int)
            parts.append(index.clip(0, n - 1))
            inside.append((index >= 0) & (index < n))
        found = labels.transpose(self.reorientation.order)[np.ix_(*parts)]
        return found * np.logical_and.outer(np.logical_and.outer(*inside[:2]), inside[2])

    def values(self, values: np.ndarray, offset: tuple[int, ...], box: Box) -> np.ndarray:
        """Image values (a block at ``offset``) in a box of the working grid, smoothed where that is coarser; beyond
        the block the border values are repeated."""
        array, offset = values.transpose(self.reorientation.order), self.reorientation.axes(offset)
        for axis, (part, a, b, _) in enumerate(self._axes(box)):
            index = np.arange(part.start, part.stop)
            position = (index - b) / a - offset[axis] if a else np.zeros(len(index))
            array = _sampled(array, position, axis, self.own, 1 / abs(a) if a else 1.0)
        return np.ascontiguousarray(array, np.float32)

    def back(self, values: np.ndarray, start: tuple[int, ...], box: Box) -> np.ndarray:
        """Working values (a block from working index ``start``) at the voxels of an image box."""
        array = values
        for axis, (part, a, b, _) in enumerate(self._axes(self._turned(box))):
            position = np.arange(part.start, part.stop) * a + b - start[axis]
            array = _sampled(array, position, axis, self.own, 1.0)
        return np.ascontiguousarray(array.transpose(np.argsort(self.reorientation.order)))

    def _cells_along(self, part: slice, a: float, b: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last cell that each image voxel of a line touches."""
        index, last = np.arange(part.start, part.stop), self.shape[axis] // self.cell - 1
        if not a:
            return np.zeros(len(index), int), np.full(len(index), last)
        middle, half = index * a + b, abs(a) / 2
        low = np.floor(middle - half + 0.5 + _TINY) // self.cell
        high = np.ceil(middle + half - 0.5 - _TINY) // self.cell
        return low.clip(0, last).astype(int), high.clip(0, last).astype(int)

    def _axes(self, box: Box) -> Iterator[tuple[slice, float, float, int]]:
        """(part, scale, shift, image voxels) of each axis of the working grid."""
        return zip(box, self.scale, self.shift, self.reorientation.axes(self.image), strict=True)

    def _turned(self, box: Box) -> Box:
        return self.reorientation.axes(box)

    def _stored(self, values: list) -> tuple:
        return tuple(values[self.reorientation.order.index(axis)] for axis in range(3))


def _line(original: Geometry, grid: Geometry, stored: int, flipped: bool, before: int) -> tuple[float, float]:
    """Scale and shift of one axis."""
    ratio = original.spacing[stored] / grid.spacing[stored]
    between = (original.origin - grid.origin) @ grid.direction[:, stored] / grid.spacing[stored]
    if abs(ratio - 1) < _TINY:  # the image's own voxels, to the last digit
        ratio, between = 1.0, float(round(between)) if abs(between % 1 - 0.5) > 0.49 else between
    if flipped:
        return -ratio, grid.shape[stored] - 1 - between + before
    return ratio, between + before


def _room(scale: float, shift: float, count: int) -> tuple[int, int]:
    """First working index that an image of ``count`` voxels touches, and one more than the last."""
    ends = sorted((shift - scale / 2, shift + scale * (count - 0.5)))
    return math.floor(ends[0] + 0.5 + _TINY), math.ceil(ends[1] - 0.5 - _TINY) + 1


def _sampled(array: np.ndarray, position: np.ndarray, axis: int, nearest: bool, width: float) -> np.ndarray:
    """Values at positions along an axis: linear interpolation, or the mean under a triangle of half ``width`` where
    that is more than one voxel."""
    n = array.shape[axis]
    if nearest or n == 1:
        return array.take(np.rint(position).astype(int).clip(0, n - 1), axis)
    position, width = position.clip(0, n - 1)[:, None], max(1.0, width)
    weights = (1 - np.abs(position - np.arange(n)) / width).clip(0).astype(np.float32)
    return _along(weights / weights.sum(axis=1, keepdims=True), array, axis)


def _along(matrix: np.ndarray, array: np.ndarray, axis: int) -> np.ndarray:
    """The product with a matrix along an axis."""
    return np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
