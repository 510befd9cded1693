"""Usual HU of each tissue at each place of a mask, and how a generated image gets them. No torch.

A flow with a small field of view knows little of where it is: it makes the femur of a thigh as dark as a rib, and it
knows borders, where a voxel shows two tissues, badly. A network on coarse cells sees the shape of all tissues within
decimeters and predicts the mean HU of each tissue in each cell; a second one refines that for each voxel, and predicts
how much the texture varies there. The image keeps its texture, which gets these means and this spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.pipelines.conditioning import label_channels

if TYPE_CHECKING:
    from MedGenLib.imaging.normalization import TissueStandard
    from MedGenLib.imaging.orientation import Reorientation
    from MedGenLib.labels.vocabulary import Label

SOFT_TISSUE = "soft tissue"
CELL_MM = 4.0
"""Side of a cell."""
REACHES = (3, 9)
"""Sides in voxels of cubes: fine texture is the difference from the mean in the small one, coarse texture that of this
mean from the mean in the large one, in which also the strength of a texture is that of a place."""
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


def at_voxels(cells: NDArray, shape: Sequence[int], box: Box) -> NDArray[np.float32]:
    """Values of cells (..., cells) over a grid of this shape, linearly at the voxels of a box: (..., box)."""
    for axis, (n, part) in enumerate(zip(shape, box, strict=True), cells.ndim - 3):
        last = cells.shape[axis] - 1
        place = np.clip((np.arange(part.start, part.stop) + 0.5) * (last + 1) / n - 0.5, 0, last)
        low = place.astype(int)
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(cells.ndim)])
        cells = cells.take(low, axis) * (1 - weight) + cells.take(np.minimum(low + 1, last), axis) * weight
    return cells.astype(np.float32)


def voxel_inputs(labels: NDArray, levels: NDArray, scalars: Sequence[float]) -> NDArray[np.float32]:
    """Input of a `VoxelLevelNet` from labels (i, j, k), levels of their cells at the voxels, and scalar conditions."""
    constant = [np.full((1, *labels.shape), value, np.float32) for value in scalars]
    return np.concatenate([label_channels(labels, len(levels)), levels, *constant])


def texture_levels(
    x: NDArray, labels: NDArray, cells: NDArray, levels: NDArray, codec: TissueStandard, soft: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Offset in HU and factor of each voxel, (i, j, k) each, that give the tissues of an image their levels.

    The image keeps its texture, fine and coarse (see `REACHES`), with another strength. The noise stays as it is: that
    of soft tissue, whose variance all tissues have. A tissue of few voxels stays as it is: offset 0, factor 1.

    Parameters
    ----------
    x: network values (i, j, k); labels: on the same grid.
    cells: levels (tissues, cells) by a `LevelNet`, which the mean of a tissue follows.
    levels: (3, tissues, i, j, k) of a `VoxelLevelNet`; its levels differ from those of the cells by borders and shapes.
    soft: label of soft tissue, if the model has one.
    """
    offset, factor = np.zeros(labels.shape, np.float32), np.ones(labels.shape, np.float32)
    values = np.sinh(np.clip(x, -codec.limit, codec.limit)).astype(np.float32)
    noise = 0.0
    for value in sorted(range(1, levels.shape[1] + 1), key=lambda value: value != soft):
        inside, scale = labels == value, codec.scales[value]
        if np.count_nonzero(inside) < FEWEST:
            continue
        near, far = (_TissueMean(inside, reach) for reach in REACHES)
        smooth, slow = near.of(values), far.of(values)
        level, fine, coarse = (part[value - 1].astype(np.float32) for part in levels)
        usual = at_voxels(cells[value - 1], labels.shape, [slice(0, n) for n in labels.shape])
        level -= far.of(level - usual)
        variance = (SPREAD * fine) ** 2
        if value == soft:  # what its noise has more than usual, without borders if it is large enough
            inner = inside & (near.share > 1 - LEAST_SHARE)
            where = inner if np.count_nonzero(inner) >= FEWEST else inside
            noise = float(((values - smooth) ** 2 - variance)[where].mean()) * scale**2
        variance = np.maximum(variance + noise / scale**2, LEAST_NOISE * variance)
        gain = _gain(variance, far.of((values - smooth) ** 2))
        slow_gain = _gain((SPREAD * coarse) ** 2, far.of((smooth - slow) ** 2))
        change = level + slow_gain * (smooth - slow) - gain * smooth
        factor[inside], offset[inside] = gain[inside], scale * change[inside]
    return offset, factor


def soft_tissue(labels: Mapping[int, Label]) -> int | None:
    """Number of the label in which the noise of a CT is measured; None for a model without it."""
    return next((value for value, label in labels.items() if label.name == SOFT_TISSUE), None)


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
    """What gives an image its levels: the HU of a voxel change linearly, by its label and place.

    An edit changes labels: where they differ from those of the levels, and near such a place, a voxel gets the means of
    its new tissue nearby, which know nothing of the old border.

    Attributes
    ----------
    voxels: offset in HU of label 1, 2, ... and factor less 1, volumes on the working grid.
    cells: the same smoothly, in cells.
    centers: of all labels, in HU.
    labels: those that the levels belong to, on the grid of the image.
    """

    voxels: tuple[tuple[Volume, Volume], ...]
    cells: tuple[tuple[Volume, Volume], ...]
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
    ) -> TextureLevels:
        """Those of `texture_levels` with the labels ``working`` of a reoriented grid."""
        counts = cell_counts(working.shape, reorientation.axes(grid.spacing))
        parts: list[list[tuple[Volume, Volume]]] = [[], []]
        whole = tuple(slice(0, n) for n in working.shape)
        smooth = [_smooth(part - at, working, counts, len(centers) - 1) for at, part in enumerate(found)]
        for number in range(len(centers) - 1):
            inside = working == number + 1
            fine, coarse = [], []
            for at, part in enumerate(found):
                values = np.where(inside, part - at, at_voxels(smooth[at][number], working.shape, whole))
                fine.append(Volume(reorientation.undo(values), grid.affine))
                cells = reorientation.undo(smooth[at][number])
                coarse.append(Volume(cells, _cells_affine(grid, cells.shape)))
            parts[0].append(tuple(fine))
            parts[1].append(tuple(coarse))
        return cls(tuple(parts[0]), tuple(parts[1]), centers, labels)

    def applied(self, hu: NDArray, labels: NDArray, box: Box) -> NDArray[np.float32]:
        """HU of a box of the image with its levels; unchanged beyond the working grid."""
        center, offset, factor = self._at(labels, box)
        return center + offset + factor * (hu - center)

    def removed(self, hu: NDArray, labels: NDArray, box: Box) -> NDArray[np.float32]:
        """Inverse of `applied`."""
        center, offset, factor = self._at(labels, box)
        return center + (hu - center - offset) / factor

    def _at(self, labels: NDArray, box: Box) -> tuple[NDArray, NDArray, NDArray]:
        """Center, offset and factor of the voxels of a box by their labels."""
        from scipy.ndimage import binary_dilation

        place = self.labels.geometry.moved([part.start for part in box], labels.shape)
        changed = labels != self.labels.array[box]
        if changed.any():
            changed = binary_dilation(changed, iterations=BORDER)
        found = np.zeros((2, *labels.shape), np.float32)
        for value, sources in enumerate(zip(self.voxels, self.cells, strict=True), 1):
            for new, pair in enumerate(sources):
                inside = (labels == value) & (changed == bool(new))
                if inside.any():
                    for part, volume in zip(found, pair, strict=True):
                        part[inside] = resample_to(volume, place, fill=0.0).array[inside]
        return np.asarray(self.centers, np.float32)[labels], found[0], 1 + found[1]


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
