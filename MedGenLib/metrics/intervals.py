"""Intervals that hold the true values of unseen people: split conformal prediction (Vovk et al. 2005, Lei et al. 2018).

The error of an output is large where its values are those of bone and at borders, so a voxel belongs to a class by
its value and by the range of the values around it (Mondrian conformal prediction). The half-width of a class is the
quantile of the absolute errors on people kept out of the training, each of whom counts equally: a new person resembles
a person, not a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import slabs
from MedGenLib.imaging.volume import Volume
from MedGenLib.packages.sections import Intervals

CT_VALUES, CT_RANGES = (-700.0, -200.0, -30.0, 120.0, 300.0, 700.0), (60.0, 250.0)
"""HU: air, its border, fat, soft tissue, its border with bone, spongy and dense bone."""
CT_TISSUES = {"fat": (-200.0, -30.0), "soft tissue": (-30.0, 120.0), "bone": (250.0, np.inf)}
"""HU of an output by which half-widths are stated for the user."""
MR_VALUES, MR_RANGES = (50.0, 200.0, 400.0, 600.0, 800.0), (100.0, 300.0)
"""Relative to a bright end of `MR_BRIGHT`."""
MR_BRIGHT = 1000.0
FEWEST_PEOPLE, FEWEST_VOXELS = 3, 300
"""A class that fewer people or voxels show has the half-width of its row, or of all."""
SLAB = 32
"""Planes whose classes are found at once."""
MOST_VOXELS = 200_000
"""Voxels drawn from a person."""
FEWEST_FOR_A_PACKAGE = 5
"""Held-out people from whom a trained package gets intervals."""


@dataclass(frozen=True)
class Errors:
    """Voxels of one person: class of each (row and column of the half-widths), its absolute error, and its tissue.

    A person with several images counts once. ``tissues`` is name -> mask of the voxels by their values in the output,
    ``truth`` the same by the real values.
    """

    person: str
    classes: NDArray[np.int64]
    errors: NDArray[np.float64]
    tissues: Mapping[str, NDArray[np.bool_]]
    truth: Mapping[str, NDArray[np.bool_]]


def borders(modality: str, bright: float = MR_BRIGHT) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Borders of the classes of values and of ranges for an output; an MR has this bright end."""
    if modality == "CT":
        return CT_VALUES, CT_RANGES
    values, ranges = (tuple(round(v * bright / MR_BRIGHT, 1) for v in found) for found in (MR_VALUES, MR_RANGES))
    return values, ranges


def half_widths(output: Volume, intervals: Intervals) -> Volume:
    """The half-width at each voxel, float32 in the unit of the output."""
    table, made = np.array(intervals.half_widths, np.float32).ravel(), np.empty(output.shape, np.float32)
    sides = _sides(output, intervals.reach_mm)
    for inner, outer, cut in slabs(len(made), SLAB, sides[0] // 2):
        made[inner] = table[_classes(output.array[outer], sides, intervals.values, intervals.ranges)[cut]]
    return Volume(made, output.affine, None, output.unit)


def errors_of(
    person: str, output: Volume, real: NDArray, inside: NDArray[np.bool_], reach_mm: float, bright: float = MR_BRIGHT
) -> Errors:
    """Errors of an output against the real image on its grid, where ``inside``; an MR has this bright end."""
    values, ranges = borders(output.modality or "", bright)
    tissues = CT_TISSUES if output.modality == "CT" else {}
    index = np.flatnonzero(inside)
    if len(index) > MOST_VOXELS:
        index = np.random.default_rng(0).choice(index, MOST_VOXELS, replace=False)
    made, true = (array.ravel()[index].astype(np.float64) for array in (output.array, real))
    by_value = [
        {name: (image >= low) & (image < high) for name, (low, high) in tissues.items()} for image in (made, true)
    ]
    classes = _classes(output.array, _sides(output, reach_mm), values, ranges).ravel()[index]
    return Errors(person, classes, np.abs(made - true), *by_value)


def calibrate(
    found: Sequence[Errors], modality: str, reach_mm: float, level: float = 0.9, bright: float = MR_BRIGHT
) -> Intervals:
    """Intervals from the errors on people kept out of the training, of an MR with the bright end of these errors."""
    values, ranges = borders(modality, bright)
    columns = len(ranges) + 1
    everything = _quantile(found, lambda e: np.ones(len(e.errors), bool), level) or 0.0
    rows = []
    for row in range(len(values) + 1):
        whole = _quantile(found, lambda e, r=row: e.classes // columns == r, level) or everything
        cells = (_quantile(found, lambda e, c=row * columns + n: e.classes == c, level) for n in range(columns))
        rows.append(tuple(round(whole if cell is None else cell, 1) for cell in cells))
    names = list(dict.fromkeys(name for errors in found for name in errors.tissues))
    by_tissue = {name: _quantile(found, lambda e, n=name: e.tissues[n], level) for name in names}
    return Intervals(
        level=level,
        people=len({errors.person for errors in found}),
        values=values,
        ranges=ranges,
        half_widths=tuple(rows),
        reach_mm=reach_mm,
        tissues={name: round(width, 1) for name, width in by_tissue.items() if width is not None},
    )


def of_package(found: Sequence[Errors], modality: str, reach_mm: float) -> Intervals | None:
    """Intervals for a package from the people kept out of its training; None for too few of them."""
    enough = len({errors.person for errors in found}) >= FEWEST_FOR_A_PACKAGE
    return calibrate(found, modality, reach_mm) if enough else None


def coverage(errors: Errors, intervals: Intervals) -> dict[str, float]:
    """Share of the voxels whose error is within the half-width: "all", each tissue that is present, and "real" ones."""
    held = errors.errors <= np.array(intervals.half_widths).ravel()[errors.classes]
    parts = {"all": np.ones(len(held), bool), **errors.tissues}
    parts |= {f"real {name}": part for name, part in errors.truth.items()}
    return {name: float(held[part].mean()) for name, part in parts.items() if part.sum() >= FEWEST_VOXELS}


def sentence(intervals: Intervals, unit: str) -> str:
    """What the half-widths mean, for the user."""
    whose = f"On {intervals.people} people kept out of the training, {intervals.level:.0%} of the voxels"
    parts = [f"{_figures(width)} {unit} in {name}" for name, width in intervals.tissues.items()]
    widths = [width for row in intervals.half_widths for width in row]
    shown = ", ".join(parts) or f"{_figures(min(widths))} to {_figures(max(widths))} {unit}"
    return (
        f"{whose} were at most {shown} from the real image; the uncertainty is this half-width at each voxel, and "
        "holds for images like theirs."
    )


def _figures(width: float) -> str:
    return f"{width:.2g}" if width < 99.5 else f"{round(width, -1):.0f}"


def _quantile(found: Sequence[Errors], part: Callable[[Errors], NDArray[np.bool_]], level: float) -> float | None:
    """The error below which the share ``level`` of the voxels of an average person lies; None for too few."""
    people: dict[str, list[NDArray[np.float64]]] = {}
    for entry in found:
        chosen = entry.errors[part(entry)]
        people.setdefault(entry.person, []).append(chosen)
    kept = {person: np.concatenate(parts) for person, parts in people.items()}
    kept = {person: values for person, values in kept.items() if len(values)}
    if len(kept) < FEWEST_PEOPLE or sum(map(len, kept.values())) < FEWEST_VOXELS:
        return None
    errors = np.concatenate(list(kept.values()))
    weights = np.concatenate([np.full(len(values), 1 / len(values)) for values in kept.values()])
    order = np.argsort(errors)
    reached = np.cumsum(weights[order]) / len(kept)
    return float(errors[order][min(len(order) - 1, np.searchsorted(reached, level))])


def _sides(output: Volume, reach_mm: float) -> list[int]:
    """Voxels along each axis of the neighborhood of a voxel."""
    return [
        1 if n == 1 else 2 * max(1, round(reach_mm / mm)) + 1
        for n, mm in zip(output.shape, output.spacing, strict=True)
    ]


def _classes(
    values: NDArray, sides: Sequence[int], borders: Sequence[float], ranges: Sequence[float]
) -> NDArray[np.int64]:
    from scipy import ndimage

    array = values.astype(np.float32)
    spread = ndimage.maximum_filter(array, sides) - ndimage.minimum_filter(array, sides)
    return np.digitize(array, borders) * (len(ranges) + 1) + np.digitize(spread, ranges)
