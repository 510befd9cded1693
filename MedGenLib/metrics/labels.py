"""Structures that an image should show against those it does show, label by label.

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
    """One structure as it was wanted and as it was found.

    Attributes
    ----------
    label, name: its number and its name ("label 3" where none is known).
    dice: 0 to 1; None if the structure is neither wanted nor found.
    hd95_mm: 95 % Hausdorff distance in mm (see `hd95`); None unless it is both wanted and found.
    wanted_ml, found_ml: volumes in millilitres.
    difference_ml: found - wanted.
    difference_percent: the same in per cent of the wanted volume; None if nothing is wanted.
    sentence: all of it in words, and why a value is missing.
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
    found: what a segmenter sees in the image, on the same grid.
    names: the labels to compare, above 0, and what they are called: those that the segmenter knows.
        None compares all labels that either of the two holds, by the names these carry.

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

    A directed distance is the 95th percentile (linear interpolation) of the distances from each
    surface voxel of one mask to the nearest surface voxel of the other, center to center. Surface
    voxels are those with a face neighbor outside of the mask; beyond the image is outside, but an
    axis of one voxel has no neighbors. MONAI's `compute_hausdorff_distance(percentile=95)` means
    the same. Of more than 200,000 surface voxels (no organ, but a noisy segmentation) every n-th is
    asked. NaN if a mask is empty.
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
    # Numbered without gaps, as the library makes a list as long as the largest label.
    place = np.searchsorted(values, array).clip(max=len(values) - 1)
    found = find_objects(np.where(values[place] == array, place, 0), len(values) - 1)
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
    # One voxel more than the box, so that only the image's own border counts as one.
    box = tuple(
        slice(max(min(s.start for s in sides) - 1, 0), max(s.stop for s in sides) + 1)
        for sides in zip(*boxes, strict=True)
    )
    first, second = wanted.array[box] == value, found.array[box] == value
    sizes = [int(np.count_nonzero(mask)) for mask in (first, second)]
    voxel = float(np.prod(wanted.spacing)) * _ML_PER_MM3
    here, there = (size * voxel for size in sizes)
    dice = 2 * int(np.count_nonzero(first & second)) / sum(sizes)
    percent = 100 * (there - here) / here if here else None
    far = hd95(first, second, wanted.spacing) if all(sizes) else None
    if not sizes[0]:
        words = f"{name}: not in the mask, but {_ml(there)} of it were found in the image."
    elif not sizes[1]:
        words = f"{name}: {_ml(here)} in the mask, but nothing of it was found in the image."
    else:
        words = (
            f"{name}: Dice {dice:.3f}, HD95 {far:.3g} mm, {_ml(there)} found where the mask has "
            f"{_ml(here)} ({percent:+.1f} %)."
        )
    return LabelRow(value, name, dice, far, here, there, there - here, percent, words)


def _ml(volume: float) -> str:
    return f"{volume:.0f} ml" if volume >= 100 else f"{volume:.3g} ml"


def _listed(names: Mapping[int, str]) -> str:
    shown = ", ".join(f"{value} {name}" for value, name in list(names.items())[:12])
    return f" ({shown})" if shown else ""
