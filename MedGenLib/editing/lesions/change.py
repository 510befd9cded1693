"""Changes of an image at the place of a lesion: another tissue, another level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.checks.lesion import around
from MedGenLib.editing.blending import FAR
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
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
) -> tuple[list[Finding], tuple[int, int, int], float]:
    """Give the place its label and generate it again.

    Parameters
    ----------
    step: voxel size in mm at which the model works.
    with_contrast: a contrast follows, so that the label may be there already.

    Returns
    -------
    Findings, and how far from the lesion voxels change: voxels along each axis, and mm in any
    direction.
    """
    edit = canvas.edit(lesion.astype(np.uint8), label=value, preset=preset, progress=progress)
    if edit.changed:
        return edit.findings, edit.halo_voxels, FAR * step
    if not with_contrast:
        raise InputError(
            "All of the place has that label already, so nothing would change; choose another label or give a contrast."
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
    before = canvas.volume.array
    values = before[box] + contrast * profile / profile.max()
    if np.array_equal(before[box], np.rint(before[box])):
        values = np.rint(values)
    # Nothing becomes darker than air, nor brighter than the number format can hold.
    highest = np.inf
    if np.issubdtype(before.dtype, np.integer):
        highest = np.iinfo(before.dtype).max
    canvas.put(np.clip(values, before.min(), highest).astype(before.dtype), box)
    return reach, farthest
