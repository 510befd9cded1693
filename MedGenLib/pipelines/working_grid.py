"""The working grid of a model for an input's grid, and its windows. No voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest, SpacingRange

SAME_SPACING = 0.06
"""Relative difference of spacing below which a grid is not resampled."""
THICK = 2.5
"""Ratio of spacing to the finest above which slices lie only across this axis."""


def working_geometry(region: Geometry, manifest: Manifest) -> Geometry:
    """The grid for generation: the region's own if its spacing suits the model, otherwise isotropic.

    Raises InputError for a single voxel.
    """
    thick = [s for s, n in zip(region.spacing, region.shape, strict=True) if n > 1]
    if not thick:
        raise InputError("The mask is a single voxel; give a slice or a volume.")
    limits = manifest.spacing.min, manifest.spacing.max
    target = float(np.clip(np.prod(thick) ** (1 / len(thick)), *limits))
    if all(abs(s / target - 1) <= SAME_SPACING for s in thick):
        return region
    return region.with_spacing((target,) * 3)


def usable_axes(image: Volume | LabelMap | Geometry) -> tuple[int, ...]:
    """Array axes across which slices are translated: all, or only the thick one.

    Raises InputError for a line or a point.
    """
    single = [axis for axis, n in enumerate(image.shape) if n == 1]
    if len(single) > 1:
        raise InputError(
            f"The image has {' x '.join(map(str, image.shape))} voxels, a line or a point; give a slice or a volume."
        )
    if single:
        return (single[0],)
    finest = min(image.spacing)
    thick = [axis for axis, s in enumerate(image.spacing) if s > THICK * finest and s > 2.5]
    return (thick[0],) if len(thick) == 1 else (0, 1, 2)


def slice_axes(image: Volume | Geometry, manifest: Manifest) -> tuple[int, ...]:
    """The usable axes whose slices are as wide as a model knows them: narrow strips of a slab show it too little.

    Where none is, the axis of the widest slices. Raises InputError as `usable_axes`.
    """
    axes, sides = usable_axes(image), image.field_of_view
    width = {axis: min(mm for other, mm in enumerate(sides) if other != axis) for axis in axes}
    least = sorted(manifest.field_of_view.min)[1]
    return tuple(axis for axis in axes if width[axis] >= least) or (max(axes, key=width.__getitem__),)


def slice_spacing(image: Volume | LabelMap | Geometry, limits: SpacingRange) -> tuple[float, float, float]:
    """Spacing in mm of the grid for translation: the model's own if the image's is out of range.

    The axis across thick slices is not resampled.
    """
    axes = usable_axes(image)
    keep = axes if len(axes) == 1 else ()
    return tuple(
        s if axis in keep or limits.min <= s <= limits.max else limits.native for axis, s in enumerate(image.spacing)
    )


def starts(length: int, window: int, overlap: int) -> list[int]:
    """First indices of windows that cover ``length`` with an overlap of at least ``overlap``."""
    if window >= length:
        return [0]
    count = -(-(length - overlap) // (window - overlap))
    last = length - window
    return [round(last * i / (count - 1)) for i in range(count)]
