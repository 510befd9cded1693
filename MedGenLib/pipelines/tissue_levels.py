"""Usual HU of each tissue at each place of a mask, and how a generated image gets them. No torch.

A flow with a small field of view knows little of where it is: it makes the femur of a thigh as dark as a rib, and it
knows borders, where a voxel shows two tissues, badly. A network on coarse cells sees the shape of all tissues within
decimeters and predicts the mean HU of each tissue in each cell; a second one refines that for each voxel, and predicts
how much the texture varies there. The image keeps its texture, which gets these means and this spread.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box, common, inside, slabs, tight, wider
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.pipelines.conditioning import label_channels

if TYPE_CHECKING:
    from MedGenLib.imaging.normalization import TissueStandard
    from MedGenLib.imaging.orientation import Reorientation
    from MedGenLib.pipelines.contrast import ShadedLevels

CELL_MM = 4.0
"""Side of a cell."""
REACHES = (3, 9)
"""Sides in voxels of cubes: fine texture is the difference from the mean in the small one, coarse texture that of this
mean from the mean in the large one, in which also the strength of a texture is that of a place."""
HALO = REACHES[1]
"""Voxels around a slab on which its texture depends: half of the small cube, and twice that of the large one."""
SLAB = 64
LEAST_SHARE = 1e-3
"""Share of a tissue in a cube below which the image has no texture of its own there."""
FEWEST = 200
"""Voxels of a tissue below which an image says nothing about the tissue's texture."""
SPREAD = math.sqrt(math.pi / 2)
"""Standard deviation of a normal distribution over its mean absolute value."""
LEAST_RMS, GAINS = 0.05, (0.1, 3.0)
"""Limits of the texture's own spread in scales of the codec, and of the factor by which it changes."""
LEAST_NOISE = 0.1
"""Share of the usual variance of fine texture that an image of little noise keeps."""
SIGMA = 1.0
"""Standard deviation in cells of the Gaussian means that changed labels get."""
BORDER, BORDER_WEIGHT = 2, 0.01
"""Voxels around a changed label that do not know the old border, and the weight of borders in the means."""


def cell_counts(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Number of cells along each axis of a grid; whole voxels are divided among them."""
    return tuple(min(n, max(1, round(n * mm / CELL_MM))) for n, mm in zip(shape, spacing, strict=True))


def tissue_shares(labels: NDArray, cells: Sequence[int], tissues: int) -> NDArray[np.float32]:
    """Share of each label in each cell, outside first: (i, j, k) labels -> (tissues + 1, cells)."""
    counts = _sums(labels, cells, tissues)
    shares = (counts / counts.sum(0)).astype(np.float32)
    shares[0] = 1 - shares[1:].sum(0)
    return shares


def tissue_sums(
    values: NDArray, labels: NDArray, cells: Sequence[int], tissues: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sum of the values of each label in each cell, and its number of voxels, (tissues, cells) each."""
    sums, counts = (_sums(labels, cells, tissues, part)[1:].astype(np.float32) for part in (values, None))
    return sums, counts


def at_voxels(cells: NDArray, shape: Sequence[int], box: Box) -> NDArray[np.float32]:
    """Values of cells (..., cells) over a grid of this shape, linearly at the voxels of a box: (..., box)."""
    for axis, (n, part) in enumerate(zip(shape, box, strict=True), cells.ndim - 3):
        last = cells.shape[axis] - 1
        place = np.clip((np.arange(part.start, part.stop) + 0.5) * (last + 1) / n - 0.5, 0, last)
        low = place.astype(int)
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(cells.ndim)])
        cells = cells.take(low, axis) * (1 - weight) + cells.take(np.minimum(low + 1, last), axis) * weight
    return cells.astype(np.float32)


def voxel_inputs(
    labels: NDArray, tissues: int, levels: NDArray | None, scalars: Sequence[float]
) -> NDArray[np.float32]:
    """Input of a `VoxelLevelNet` from labels (i, j, k), levels of their cells at the voxels if it knows them, and
    scalar conditions."""
    constant = [np.full((1, *labels.shape), value, np.float32) for value in scalars]
    known = [] if levels is None else [levels]
    return np.concatenate([label_channels(labels, tissues), *known, *constant])


def texture_levels(
    x: NDArray, labels: NDArray, cells: NDArray | None, levels: NDArray, codec: TissueStandard, soft: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Offset and factor of each voxel, (i, j, k) each, that give the tissues of an image their levels.

    The image keeps its texture, fine and coarse (see `REACHES`), with another strength. The noise stays as it is: that
    of soft tissue, whose variance all tissues have; without soft tissue it belongs to the usual texture. A tissue of
    few voxels stays as it is: offset 0, factor 1. Slabs are computed one after the other, with the same result as all
    at once.

    Parameters
    ----------
    x: network values (i, j, k); labels: on the same grid.
    cells: levels (tissues, cells) by a `LevelNet`, which the mean of a tissue follows; None for a model without one.
    levels: (3, i, j, k) of a `VoxelLevelNet` for the label of each voxel; its levels differ from those of the cells by
        borders and shapes.
    soft: label of soft tissue, if the model has one, or of the tissue that has the noise of a user.
    """
    offset, factor = np.zeros(labels.shape, np.float32), np.ones(labels.shape, np.float16)
    tissues = [value for value in range(1, len(codec.centers)) if np.count_nonzero(labels == value) >= FEWEST]

    def textures(value: int) -> Iterator[tuple[_Texture, Box, Box]]:
        """The tissue slab by slab, with the box that it lies in, and the part of that for which the slab counts."""
        for inner, outer, _ in slabs(len(labels), SLAB, HALO):
            if (labels[inner] == value).any():
                marks = labels[outer] == value
                box, part = tight(marks, (outer, *(slice(0, n) for n in labels.shape[1:])))
                own = common(box, (inner, *box[1:]))
                yield _Texture(x[box], marks[part], levels[(slice(None), *box)], codec, value), box, own

    noise = 0.0
    if soft in tissues:
        noise = _noise(((part, inside(own, box)) for part, box, own in textures(soft)), codec.scales[soft])
    for value in tissues:
        for part, box, own in textures(value):
            usual = None if cells is None else at_voxels(cells[value - 1], labels.shape, box)
            change, gain = part.changed(usual, noise / codec.scales[value] ** 2)
            cut = inside(own, box)
            where = part.inside[cut]
            offset[own][where] = codec.scales[value] * change[cut][where]
            factor[own][where] = gain[cut][where]
    return offset, factor


class _Texture:
    """A tissue in a box of an image, in scales of the codec about its center."""

    def __init__(
        self, x: NDArray, marks: NDArray[np.bool_], levels: NDArray, codec: TissueStandard, value: int
    ) -> None:
        self.inside = marks
        self.values = np.sinh(np.clip(x, -codec.limit, codec.limit)).astype(np.float32)
        self.level, self.fine, self.coarse = (part.astype(np.float32) for part in levels)
        self.near = _TissueMean(self.inside, REACHES[0])
        self.smooth = self.near.of(self.values)

    def changed(self, usual: NDArray | None, noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Offset and factor, for a noise of more variance than usual."""
        far = _TissueMean(self.inside, REACHES[1])
        slow = far.of(self.values)
        level = self.level if usual is None else self.level - far.of(self.level - usual)
        variance = (SPREAD * self.fine) ** 2
        variance = np.maximum(variance + noise, LEAST_NOISE * variance)
        gain = _gain(variance, far.of((self.values - self.smooth) ** 2))
        slow_gain = _gain((SPREAD * self.coarse) ** 2, far.of((self.smooth - slow) ** 2))
        return level + slow_gain * (self.smooth - slow) - gain * self.smooth, gain


def _noise(parts: Iterable[tuple[_Texture, Box]], scale: float) -> float:
    """Variance in HU that the noise of a tissue has more than usual, without borders if it is large enough.

    Each part comes with the box of it that counts; `scale` is that of the tissue.
    """
    sums = np.zeros((2, 2))
    for part, cut in parts:
        excess = (part.values - part.smooth) ** 2 - (SPREAD * part.fine) ** 2
        inner = part.inside & (part.near.share > 1 - LEAST_SHARE)
        for row, where in enumerate((inner[cut], part.inside[cut])):
            sums[row] += excess[cut][where].sum(dtype=np.float64) * scale**2, np.count_nonzero(where)
    total, count = sums[0] if sums[0, 1] >= FEWEST else sums[1]
    return float(total / count)


def _gain(wanted: NDArray, found: NDArray) -> NDArray[np.float32]:
    """Factor that changes the variance of a texture."""
    return np.clip(np.sqrt(np.maximum(wanted, 0) / np.maximum(found, LEAST_RMS**2)), *GAINS)


class _TissueMean:
    """Means over the voxels of a tissue in cubes."""

    def __init__(self, inside: NDArray[np.bool_], reach: int) -> None:
        self.inside, self.reach = inside, reach
        self.share = np.maximum(self._mean(inside), LEAST_SHARE)

    def of(self, values: NDArray) -> NDArray[np.float32]:
        return self._mean(np.where(self.inside, values, 0)) / self.share

    def _mean(self, values: NDArray) -> NDArray[np.float32]:
        from scipy.ndimage import uniform_filter

        return uniform_filter(values.astype(np.float32), self.reach, mode="constant")


@dataclass(frozen=True)
class TextureLevels:
    """What gives an image its levels: the value of a voxel changes linearly, by its label and place.

    An edit changes labels: where they differ from those of the levels, and near such a place, a voxel gets the means of
    its new tissue nearby, which know nothing of the old border.

    Attributes
    ----------
    voxels: offset and factor less 1 of each voxel, arrays of the grid ``place`` of the image, if that is the working
        grid; else volumes about label 1, 2, ..., with the voxels of the working grid, none for a missing label.
    place: where the working grid lies in the image, voxel by voxel; None if it has other voxels.
    cells: gives the same smoothly for label 1, 2, ..., in cells; only an edit needs them.
    centers: of all labels, in the unit of the model.
    labels: those that the levels belong to, on the grid of the image.
    """

    voxels: tuple[NDArray, NDArray] | tuple[tuple[Volume, Volume], ...]
    place: Box | None
    cells: Callable[[], tuple[tuple[Volume, Volume], ...]]
    centers: tuple[float, ...]
    labels: LabelMap

    @classmethod
    def of(
        cls,
        found: tuple[NDArray, NDArray],
        working: NDArray,
        centers: tuple[float, ...],
        grid: Geometry,
        reorientation: Reorientation,
        labels: LabelMap,
        place: Box | None = None,
    ) -> TextureLevels:
        """Those of `texture_levels` with the labels ``working`` of a reoriented grid."""
        counts, tissues = cell_counts(working.shape, reorientation.axes(grid.spacing)), range(len(centers) - 1)
        changes = [part - at for at, part in enumerate(found)]

        @cache
        def smooth() -> list[NDArray[np.float32]]:
            return [_smooth(part, working, counts, len(tissues)) for part in changes]

        @cache
        def cells() -> tuple[tuple[Volume, Volume], ...]:
            return tuple(
                tuple(Volume(at := reorientation.undo(part[n]), _cells_affine(grid, at.shape)) for part in smooth())
                for n in tissues
            )

        if place is not None:
            return cls(tuple(map(reorientation.undo, changes)), place, cells, centers, labels)
        stored, turned = reorientation.undo(working), [reorientation.undo(part) for part in changes]
        voxels = []
        for n in tissues:  # beyond a tissue its means, as a voxel of the image lies between those of the grid
            marks, found = stored == n + 1, ()
            if marks.any():
                box = wider(tight(marks, tuple(slice(0, m) for m in stored.shape))[0], 2, stored.shape)
                means = (at_voxels(reorientation.undo(mean[n]), stored.shape, box) for mean in smooth())
                affine = grid.moved([part.start for part in box], marks[box].shape).affine
                found = tuple(
                    Volume(np.where(marks[box], part[box], mean).astype(np.float32), affine)
                    for part, mean in zip(turned, means, strict=True)
                )
            voxels.append(found)
        return cls(tuple(voxels), None, cells, centers, labels)

    def applied(self, values: NDArray, labels: NDArray, box: Box) -> NDArray[np.float32]:
        """Values of a box of the image with its levels; unchanged beyond the working grid."""
        center, offset, factor = self._at(labels, box)
        return center + offset + factor * (values - center)

    def removed(self, values: NDArray, labels: NDArray, box: Box) -> NDArray[np.float32]:
        """Inverse of `applied`."""
        center, offset, factor = self._at(labels, box)
        return center + (values - center - offset) / factor

    def _at(self, labels: NDArray, box: Box) -> tuple[NDArray, NDArray, NDArray]:
        """Center, offset and factor of the voxels of a box by their labels."""
        from scipy.ndimage import binary_dilation

        place = self.labels.geometry.moved([part.start for part in box], labels.shape)
        changed = labels != self.labels.array[box]
        if changed.any():
            changed = binary_dilation(changed, iterations=BORDER)
        found = np.zeros((2, *labels.shape), np.float32)
        if self.place is not None and (both := common(box, self.place)):
            for part, stored in zip(found, self.voxels, strict=True):
                part[inside(both, box)] = stored[inside(both, self.place)]
        sources = [(False, self.voxels)] if self.place is None else []
        if np.any(changed):
            sources.append((True, self.cells()))
        for new, volumes in sources:
            for value, pair in enumerate(volumes, 1):
                where = (labels == value) & (changed == new)
                if where.any():
                    for part, volume in zip(found, pair, strict=False):
                        part[where] = resample_to(volume, place, fill=0.0).array[where]
        return np.asarray(self.centers, np.float32)[labels], found[0], 1 + found[1]


@dataclass(frozen=True)
class ImageLevels:
    """Levels that an image gets one after the other."""

    parts: tuple[TextureLevels | ShadedLevels, ...] = ()

    def applied(self, values: NDArray, labels: NDArray, box: Box) -> NDArray:
        """Values of a box of the image with its levels."""
        for part in self.parts:
            values = part.applied(values, labels, box)
        return values

    def removed(self, values: NDArray, labels: NDArray, box: Box) -> NDArray:
        """Inverse of `applied`."""
        for part in reversed(self.parts):
            values = part.removed(values, labels, box)
        return values


def _smooth(values: NDArray, labels: NDArray, cells: Sequence[int], tissues: int) -> NDArray[np.float32]:
    """Gaussian means of the values of each tissue in cells, (tissues, cells); 0 far from it.

    Voxels at borders count where there are few others.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

    made = np.zeros((tissues, *cells), np.float32)
    interior = np.where(minimum_filter(labels, 3) == maximum_filter(labels, 3), labels, 0)
    inner, whole = (tissue_sums(values, part, cells, tissues) for part in (interior, labels))
    for number in range(tissues):
        total, count = (
            gaussian_filter(a[number] + BORDER_WEIGHT * b[number], SIGMA, mode="constant")
            for a, b in zip(inner, whole, strict=True)
        )
        known = count >= BORDER_WEIGHT * LEAST_SHARE * labels.size / np.prod(cells)
        made[number] = np.where(known, total / np.maximum(count, 1e-6), 0)
    return made


def _cells_affine(grid: Geometry, cells: Sequence[int]) -> NDArray[np.float64]:
    """Affine of the centers of cells that cover a grid."""
    steps = [n / m for n, m in zip(grid.shape, cells, strict=True)]
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*((step - 1) / 2 for step in steps), 1])[:3]
    affine[:3, :3] = grid.affine[:3, :3] * steps
    return affine


def _sums(labels: NDArray, cells: Sequence[int], tissues: int, values: NDArray | None = None) -> NDArray[np.float64]:
    """Sum of the values of each label in each cell, or its number of voxels: (tissues + 1, cells), outside first."""
    edges = [np.arange(m + 1) * n // m for n, m in zip(labels.shape, cells, strict=True)]
    rows, columns = (np.repeat(np.arange(m), np.diff(edge)) for m, edge in zip(cells[1:], edges[1:], strict=True))
    size, made = cells[1] * cells[2], np.empty((tissues + 1, *cells))
    place = rows[:, None] * cells[2] + columns
    for number, (start, stop) in enumerate(itertools.pairwise(edges[0])):
        index = labels[start:stop].astype(np.intp) * size + place
        weights = None if values is None else values[start:stop].ravel()
        made[:, number] = np.bincount(index.ravel(), weights, len(made) * size).reshape(len(made), *cells[1:])
    return made
