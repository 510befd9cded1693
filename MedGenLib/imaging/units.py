"""Whether the voxels of a grid can be in mm, and which unit they more likely have."""

from __future__ import annotations

from collections.abc import Sequence

from MedGenLib.imaging.volume import Geometry, by_axis

_UNITS = (("meters", 1000.0), ("centimeters", 10.0), ("micrometers", 0.001))
"""Units that a header may mean, and their factor to mm."""
_SPACING_MM, _EXTENT_MM = (0.02, 30.0), (3.0, 4000.0)
"""Voxels and fields of view of images of people."""
_USUAL_SPACING_MM, _USUAL_EXTENT_MM = (0.05, 12.0), (3.0, 2500.0)
_FAR = 4.0
"""Factor from the range of a model at which another unit is more likely."""

Range = tuple[float, float]


def unit_doubt(
    grid: Geometry, spacing_mm: Range = _USUAL_SPACING_MM, extents_mm: Sequence[Range] = (_USUAL_EXTENT_MM,)
) -> str | None:
    """A sentence if voxels or field of view have sizes that no image of a person has, or that fit in another unit.

    Parameters
    ----------
    spacing_mm: voxel sizes of a model.
    extents_mm: fields of view of a model, smallest and largest along each axis.
    """
    used = [mm for mm, n in zip(grid.spacing, grid.shape, strict=True) if n > 1] or grid.spacing
    extent = max(mm for mm, n in zip(grid.field_of_view, grid.shape, strict=True) if n > 1 or max(grid.shape) == 1)
    low, high = max(low for low, _ in extents_mm), max(high for _, high in extents_mm)
    likely = next(
        (
            unit
            for unit, factor in _UNITS
            if spacing_mm[0] / 2 <= factor * min(used)
            and factor * max(used) <= 2 * spacing_mm[1]
            and low / 2 <= factor * extent <= 2 * high
        ),
        None,
    )
    possible = _SPACING_MM[0] <= min(used) and max(used) <= _SPACING_MM[1] and _EXTENT_MM[0] <= extent <= _EXTENT_MM[1]
    small = max(used) < spacing_mm[0] / _FAR and extent < low
    large = min(used) > spacing_mm[1] * _FAR and extent > high
    if possible and not (likely and (small or large)):
        return None
    guess = f", which would be usual in {likely}" if likely else ""
    return (
        f"The voxels measure {by_axis(grid.spacing, '.6g')} mm and the image {by_axis(grid.field_of_view, '.6g')} mm"
        f"{guess}; correct the spacing or its unit in the header."
    )
