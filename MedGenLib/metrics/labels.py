"""Overlap, surface distance and volume of expected and found structures, per label.

found = segmenter("hippocampus-segmenter")(synthetic_mr)
for row in compare_labels(mask, found):
    print(row.sentence)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.metrics.compare import require_same_grid

_ML_PER_MM3 = 1e-3
_MOST_QUERIES = 200_000


@dataclass(frozen=True)
class LabelRow:
    """One structure as expected and as found.

    Attributes
    ----------
    label, name: value and name ("label 3" where none is known).
    dice: 0 to 1; None if the structure is neither in the mask nor found.
    hd95_mm: 95 % Hausdorff distance in mm (see `hd95`); None unless it is in both.
    wanted_ml, found_ml: volumes in milliliters.
    difference_ml: found - wanted.
    difference_percent: the same in percent of the wanted volume; None if that is 0.
    sentence: the result in words, and why a value is missing.
    """

    label: int
    name: str
    dice: float | None
    hd95_mm: float | None
    wanted_ml: float
    found_ml: float
    difference_ml: float
    difference_percent: float | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare_labels(wanted: LabelMap, found: LabelMap, names: Mapping[int, str] | None = None) -> tuple[LabelRow, ...]:
    """Dice, HD95 and volume of each label.

    Parameters
    ----------
    wanted: the mask that the image was made from.
    found: the segmentation of the image, on the same grid.
    names: value and name of the labels to compare, above 0. None compares all labels in either map under the names they
        carry.

    Raises
    ------
    InputError: the grids differ, or none of the labels is in the wanted mask.
    """
    require_same_grid(("mask", wanted), ("segmentation", found))
    if names is None:
        known = {**found.names, **wanted.names}
        values = sorted({*wanted.values(), *found.values()})
        names = {value: known.get(value) or f"label {value}" for value in values}
    boxes_wanted, boxes_found = _boxes(wanted.array, names), _boxes(found.array, names)
    if not any(boxes_wanted.values()):
        raise InputError(
            "The mask holds none of the labels that can be compared"
            f"{_listed(names)}; choose the mask that the image was made from."
        )
    return tuple(
        _row(value, name, wanted, found, boxes_wanted[value], boxes_found[value]) for value, name in names.items()
    )


def hd95(first: NDArray, second: NDArray, spacing: tuple[float, float, float]) -> float:
    """95 % Hausdorff distance of two masks in mm: the larger of the two directed distances.

    A directed distance is the 95th percentile (linear interpolation) of the distances from each surface voxel of one
    mask to the nearest surface voxel of the other, between voxel centers. Surface voxels have a face neighbor outside
    the mask; voxels beyond the image count as outside, except along axes of one voxel. Equal to MONAI's
    `compute_hausdorff_distance(percentile=95)`. Of more than 200,000 surface voxels (a noisy segmentation) every n-th
    is used. NaN if a mask is empty.
    """
    points = [np.argwhere(_surface(np.asarray(mask, bool))) * spacing for mask in (first, second)]
    if not all(map(len, points)):
        return float("nan")
    there, back = (_distances(*points), _distances(*reversed(points)))
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _distances(points: NDArray, others: NDArray) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree

    # Splitting at the middle of the box is faster than balancing: surfaces fill space evenly.
    tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
    return tree.query(points[:: -(-len(points) // _MOST_QUERIES)])[0]


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion, generate_binary_structure

    element = generate_binary_structure(mask.ndim, 1)
    for axis, length in enumerate(mask.shape):
        if length == 1:
            element = element.take([1], axis)
    return mask & ~binary_erosion(mask, element)


def _boxes(array: NDArray, names: Mapping[int, str]) -> dict[int, tuple[slice, ...] | None]:
    """Label -> its bounding box; None if it is absent."""
    from scipy.ndimage import find_objects

    values = np.array([0, *sorted(names)])
    # Renumbered without gaps: find_objects returns a list as long as the largest label.
    index = np.searchsorted(values, array).clip(max=len(values) - 1)
    found = find_objects(np.where(values[index] == array, index, 0), len(values) - 1)
    return dict(zip(values[1:].tolist(), found, strict=True))


def _row(
    value: int,
    name: str,
    wanted: LabelMap,
    found: LabelMap,
    box_wanted: tuple[slice, ...] | None,
    box_found: tuple[slice, ...] | None,
) -> LabelRow:
    boxes = [box for box in (box_wanted, box_found) if box]
    if not boxes:
        return LabelRow(
            value, name, None, None, 0.0, 0.0, 0.0, None, f"{name}: neither in the mask nor found in the image."
        )
    # One voxel beyond the box, so that only the image's own border counts as a border.
    box = tuple(
        slice(max(min(s.start for s in sides) - 1, 0), max(s.stop for s in sides) + 1)
        for sides in zip(*boxes, strict=True)
    )
    first, second = wanted.array[box] == value, found.array[box] == value
    sizes = [int(np.count_nonzero(mask)) for mask in (first, second)]
    voxel = float(np.prod(wanted.spacing)) * _ML_PER_MM3
    wanted_ml, found_ml = (size * voxel for size in sizes)
    dice = 2 * int(np.count_nonzero(first & second)) / sum(sizes)
    percent = 100 * (found_ml - wanted_ml) / wanted_ml if wanted_ml else None
    far = hd95(first, second, wanted.spacing) if all(sizes) else None
    if not sizes[0]:
        sentence = f"{name}: not in the mask, but {_ml(found_ml)} were found in the image."
    elif not sizes[1]:
        sentence = f"{name}: {_ml(wanted_ml)} in the mask, but not found in the image."
    else:
        sentence = (
            f"{name}: Dice {dice:.3f}, HD95 {far:.3g} mm, {_ml(found_ml)} found where the mask has "
            f"{_ml(wanted_ml)} ({percent:+.1f} %)."
        )
    return LabelRow(value, name, dice, far, wanted_ml, found_ml, found_ml - wanted_ml, percent, sentence)


def _ml(volume: float) -> str:
    return f"{volume:.0f} ml" if volume >= 100 else f"{volume:.3g} ml"


def _listed(names: Mapping[int, str]) -> str:
    shown = ", ".join(f"{value} {name}" for value, name in list(names.items())[:12])
    return f" ({shown})" if shown else ""
