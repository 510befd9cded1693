"""A lesion that grows: the same shape at the same place, larger at each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.checks.lesion import around
from MedGenLib.editing.lesions.placement import Host, Placement
from MedGenLib.editing.lesions.shapes import MaskShape, Shape, coverage
from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import inside, union
from MedGenLib.imaging.volume import Geometry, LabelMap

_FACTORS = (0.85, 0.95, 1.05, 1.2)
"""Sizes at which a voxel is covered or not: the mean coverage puts voxels in order, from the center to the outside."""


LONGEST = 100.0
"""Doublings, after which no lesion is in an image any more."""


@dataclass(frozen=True)
class Growth:
    """Times of a series, and the volumes at them relative to the first."""

    frames: int
    doubling_days: float
    days_between: float

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Growth:
        """Of the options of an insertion; one frame where it does not grow."""
        return cls(options["grow"] or 1, options["doubling_days"], options["days_between"])

    @property
    def days(self) -> list[float]:
        return [number * self.days_between for number in range(self.frames)]

    @property
    def factors(self) -> list[float]:
        return [2 ** min(day / self.doubling_days, LONGEST) for day in self.days]

    @property
    def widest(self) -> float:
        """Last size relative to the first."""
        return self.factors[-1] ** (1 / 3)

    def places(self, first: Placement, host: Host) -> list[Placement]:
        """The lesion at each time. Each contains the one before, with as many voxels as the doubling time asks for.

        Raises
        ------
        InputError: it leaves its host or the image.
        """
        if self.frames == 1:
            return [first]
        places = [replace(first, day=0.0)]
        solid = first.solid or MaskShape.of(LabelMap(first.lesion, host.geometry.affine))
        voxels = int(first.lesion.sum())
        for day, factor in zip(self.days[1:], self.factors[1:], strict=True):
            size = first.size_mm * factor ** (1 / 3)
            lesion = _with_voxels(round(voxels * factor), solid, places[-1].lesion, first.at, size, host.geometry)
            at_border = any(np.take(lesion, [0, -1], axis).any() for axis, n in enumerate(lesion.shape) if n > 1)
            if first.findings or (lesion & ~host.array).any() or at_border:
                raise InputError(
                    f"The lesion outgrows {host.name} by day {day:g}, when it has {size:.3g} mm; choose another place, "
                    "a smaller size, fewer times or a longer doubling time."
                )
            places.append(replace(first, lesion=lesion, size_mm=size, solid=solid, day=day))
        return places


def _with_voxels(
    count: int, solid: Shape, before: NDArray[np.bool_], at: NDArray, size_mm: float, geometry: Geometry
) -> NDArray[np.bool_]:
    """The lesion before and the innermost voxels of a solid around it, so many in all."""
    covered = [coverage(solid, geometry, at, size_mm * factor) for factor in _FACTORS]
    whole = union([around(before, [0] * 3), *(box for box, _ in covered)])
    order = before[whole] * (len(_FACTORS) + 1.0)
    for box, share in covered:
        order[inside(box, whole)] += share
    lesion, chosen = np.zeros(before.shape, bool), np.zeros(order.shape, bool)
    chosen.flat[np.argsort(-order, axis=None, kind="stable")[:count]] = True
    lesion[whole] = chosen & (order > 0)
    return lesion
