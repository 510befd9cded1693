"""Changes of an image at the place of a lesion: another tissue, another level."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.checks.lesion import around
from MedGenLib.editing.blending import FAR
from MedGenLib.editing.lesions.placement import Placement
from MedGenLib.editing.lesions.shapes import coverage
from MedGenLib.editing.lesions.texture import Drawing, Texture, drawn
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box, common, inside
from MedGenLib.imaging.volume import Geometry, Volume
from MedGenLib.progress import ProgressCallback

if TYPE_CHECKING:
    from MedGenLib.editing.session import Canvas

EDGE = 2
"""Voxels from the lesion over which a contrast fades, as with the blur of a scanner."""
_EDGE_SIGMA = 0.6


def regenerate(
    canvas: Canvas,
    step: float,
    lesion: NDArray[np.bool_],
    value: int,
    with_contrast: bool,
    preset: str,
    progress: ProgressCallback | None,
    watch: Callable[[int, int, Box, NDArray], None] | None = None,
) -> tuple[list[Finding], tuple[int, int, int], float]:
    """Give the place its label and generate it again.

    Parameters
    ----------
    step: voxel size in mm at which the model works.
    with_contrast: a contrast follows, so that the label may be there already.
    watch: see `Canvas.edit`.

    Returns
    -------
    Findings, and how far from the lesion voxels change: voxels along each axis, and mm in any
    direction.
    """
    edit = canvas.edit(lesion.astype(np.uint8), label=value, preset=preset, progress=progress, watch=watch)
    if edit.changed:
        return edit.findings, edit.halo_voxels, FAR * step
    if not with_contrast:
        raise InputError(
            "All of the place has that label already, so nothing would change; choose another label, a contrast "
            "or texture."
        )
    return edit.findings, (0, 0, 0), 0.0


def add_contrast(canvas: Canvas, lesion: NDArray[np.bool_], contrast: float) -> tuple[tuple[int, int, int], float]:
    """Add a contrast that fades over the edge of the lesion; texture and noise stay.

    Returns how far from the lesion voxels change: voxels along each axis, mm in any direction.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    spacing = canvas.volume.spacing
    reach = tuple(EDGE if n > 1 else 0 for n in lesion.shape)
    farthest = max(r * s for r, s in zip(reach, spacing, strict=True))
    box = around(lesion, reach)
    sigma = [_EDGE_SIGMA if r else 0 for r in reach]
    profile = gaussian_filter(lesion[box].astype(np.float32), sigma, radius=reach, mode="nearest")
    # The corners of the filter reach farther than its sides.
    profile[distance_transform_edt(~lesion[box], spacing) > farthest] = 0
    _put(canvas, canvas.volume.array[box] + contrast * profile / profile.max(), box)
    return reach, farthest


def add_texture(
    canvas: Canvas,
    source: Volume,
    place: Placement,
    host: NDArray[np.bool_],
    texture: Texture,
    contrast: float,
    seed: int,
) -> tuple[tuple[int, int, int], float]:
    """Give a lesion its texture and contrast, with the partial volume of its border.

    The tissue that the canvas has at the lesion already replaces that of ``source`` by as much as a voxel is lesion.
    Returns how far from the lesion voxels change: voxels along each axis, mm in any direction.
    """
    from scipy.ndimage import distance_transform_edt

    spacing, geometry = source.spacing, source.geometry
    far, axes = texture.reach_mm(place.size_mm), zip(spacing, host.shape, strict=True)
    reach = [ceil(far / step) + 2 if n > 1 else 0 for step, n in axes]
    box = around(place.lesion, reach)
    lesion = place.lesion[box]
    corner = geometry.affine[:3, :3] @ [part.start for part in box] + geometry.origin - place.at
    offsets = np.moveaxis(np.indices(lesion.shape), 0, -1) @ geometry.affine[:3, :3].T + corner
    drawing = Drawing(lesion, _share(place, geometry, box), offsets, spacing, place.size_mm, seed)
    weight, level = (part * host[box] for part in drawn(texture, drawing))
    before, after = source.array[box].astype(np.float64), canvas.volume.array[box].astype(np.float64)
    distance, nearest = distance_transform_edt(~lesion, spacing, return_indices=True)
    tissue = after[tuple(nearest)] if (after != before)[lesion].any() else before
    base = np.where(lesion, before, after)
    unit = 1.0 if source.modality == "CT" else float(np.median(before[lesion])) / 100
    touched = weight > 0
    _put(canvas, np.where(touched, base + weight * (tissue - base + contrast) + unit * level, after), box)
    apart = np.abs(nearest - np.indices(lesion.shape))
    return tuple(int(part[touched].max()) for part in apart), float(distance[touched].max())


def _share(place: Placement, geometry: Geometry, box: Box) -> NDArray[np.float64]:
    """Share of each voxel of a box inside the lesion."""
    from scipy.ndimage import gaussian_filter

    lesion = place.lesion[box].astype(np.float64)
    if place.solid is None:
        return gaussian_filter(lesion, [_EDGE_SIGMA if n > 1 else 0 for n in lesion.shape], truncate=3)
    share = np.zeros(lesion.shape)
    full, values = coverage(place.solid, geometry, place.at, place.size_mm)
    both = common(box, full)
    share[inside(both, box)] = values[inside(both, full)]
    return np.maximum(share, 0.5 * lesion)


def _put(canvas: Canvas, values: NDArray, box: Box) -> None:
    """Nothing becomes darker than air, nor brighter than the number format can hold; whole numbers stay whole."""
    before = canvas.volume.array
    if np.array_equal(before[box], np.rint(before[box])):
        values = np.rint(values)
    highest = np.inf
    if np.issubdtype(before.dtype, np.integer):
        highest = np.iinfo(before.dtype).max
    canvas.put(np.clip(values, before.min(), highest).astype(before.dtype), box)
