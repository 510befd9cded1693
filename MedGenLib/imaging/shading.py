"""Shading of an MR image by its receive coil: a smooth factor, a polynomial of the position in the head.

The logarithm of the factor is a polynomial of second degree of the position relative to the middle of the labels, as in
bias fields of low order (Styner et al., IEEE Transactions on Medical Imaging 19, 153, 2000).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, occupied

DEGREE = 2
TERMS = [axes for degree in range(DEGREE + 1) for axes in combinations_with_replacement(range(3), degree)]
"""Axes whose coordinates are multiplied in each term, that of the constant first."""
UNIT_MM = 100.0
"""Distance that is 1 in the polynomial."""
FEWEST_VOXELS = 2000
"""Voxels below which an image has no shading that can be measured."""
MOST_VOXELS = 100_000
ROUNDS, OUTLIER = 4, 0.35
"""Rounds of the fit, and the difference of logarithms from which a voxel is left out of the next one."""


@dataclass(frozen=True)
class Shading:
    """A shading.

    Attributes
    ----------
    coefficients: of `TERMS`.
    middle: (3,) world coordinates in mm, RAS, where the position is 0.
    """

    coefficients: tuple[float, ...]
    middle: tuple[float, float, float]

    @classmethod
    def about(cls, labels: LabelMap, coefficients: Sequence[float], reference: int) -> Shading:
        """The shading about the middle of the labels, with the median factor 1 in the reference label.

        So the mask of a part of a head keeps the level of its tissues: the constant is that of the mask. If the
        reference has few voxels, the median is that of all labels.
        """
        places = np.flatnonzero(labels.array == reference)
        places = _spread(places if len(places) >= FEWEST_VOXELS else np.flatnonzero(labels.array))
        known = cls((0.0, *map(float, coefficients[1:])), _middle(labels))
        level = np.log(np.median(known._at(_positions(labels, places, known.middle))))
        return cls((-float(level), *known.coefficients[1:]), known.middle)

    def factor(self, grid: Geometry, box: Box) -> NDArray[np.float32]:
        """The factor in a box of voxels of a grid."""
        axes = [np.arange(part.start, part.stop) for part in box]
        columns = np.array(grid.affine[:3, :3]).T / UNIT_MM
        start = (np.array(grid.affine[:3, 3]) - self.middle) / UNIT_MM
        x = []
        for n in range(3):  # a coordinate is a sum of one term for each axis of the grid
            parts = np.ix_(*(a * column[n] for a, column in zip(axes, columns, strict=True)))
            x.append((start[n] + sum(parts)).astype(np.float32))
        return self._at(x)

    def over(self, image: LabelMap | Volume) -> NDArray[np.float32]:
        """The factor in all voxels of an image."""
        return self.factor(image.geometry, tuple(slice(0, n) for n in image.shape))

    def ratio(self, labels: LabelMap) -> float:
        """The largest factor over the smallest one in the labels, at some of their voxels."""
        found = self._at(_positions(labels, _spread(np.flatnonzero(labels.array)), self.middle))
        return float(found.max() / found.min())

    def _at(self, position: Sequence[NDArray]) -> NDArray:
        """The factor at positions, three arrays of one shape in units of `UNIT_MM`."""
        total = np.zeros_like(position[0])
        for coefficient, term in zip(self.coefficients, _terms(position), strict=True):
            total += coefficient * term
        return np.exp(total, out=total)


def measured(values: NDArray, labels: LabelMap, reference: int, tissues: Sequence[int]) -> Shading | None:
    """The shading of an image, (i, j, k) in any unit, whose factor has the median 1 in a reference label.

    Each of the tissues has one level, and what is left of the logarithms is the polynomial: least squares, without the
    voxels that differ most. None where the tissues or the reference have too few voxels.
    """
    wanted = [reference, *(value for value in tissues if value != reference)]
    places = np.flatnonzero(np.isin(labels.array, wanted) & (values > 0))
    if len(places) < FEWEST_VOXELS or not (labels.array.ravel()[places] == reference).any():
        return None
    places, middle = _spread(places), _middle(labels)
    of, found = labels.array.ravel()[places], np.log(values.ravel()[places].astype(np.float64))
    for label in np.unique(of):  # so that the outliers of a tissue are left out of the first round, too
        found[of == label] -= np.median(found[of == label])
    polynomial = np.stack([*_terms(_positions(labels, places, middle))][1:], axis=1)
    design = np.concatenate([of[:, None] == np.array(wanted), polynomial], axis=1)
    kept = np.abs(found) < 2 * OUTLIER
    for _ in range(ROUNDS):
        solution = np.linalg.lstsq(design[kept], found[kept], rcond=None)[0]
        kept = np.abs(found - design @ solution) < OUTLIER
    coefficients = solution[len(wanted) :]
    constant = -np.median(polynomial[of == reference] @ coefficients)
    return Shading((float(constant), *map(float, coefficients)), middle)


def _spread(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most `MOST_VOXELS` of the places."""
    return places[:: -(-len(places) // MOST_VOXELS)]


def _positions(labels: LabelMap, places: NDArray[np.intp], middle: Sequence[float]) -> NDArray[np.float64]:
    """(3, n) positions of flat voxel numbers."""
    index = np.array(np.unravel_index(places, labels.shape))
    return (labels.affine[:3, :3] @ index + (labels.affine[:3, 3] - middle)[:, None]) / UNIT_MM


def _terms(position: Sequence[NDArray]) -> Iterator[NDArray | float]:
    return (math.prod(position[axis] for axis in term) for term in TERMS)


def _middle(labels: LabelMap) -> tuple[float, float, float]:
    index = [(start + stop - 1) / 2 for start, stop in occupied(labels.array)]
    return tuple(float(v) for v in (labels.affine @ [*index, 1])[:3])
