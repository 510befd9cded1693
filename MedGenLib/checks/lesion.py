"""Checks of an inserted lesion: it is visible, and the rest of the image is unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.imaging.volume import Volume

RING = 4
"""Voxels around the lesion that it is compared with."""
VISIBLE = 0.5
"""Least difference of the means, in standard deviations of the surroundings."""
_FEWEST = 20


def check_inserted(
    before: Volume, after: Volume, lesion: NDArray[np.bool_], host: NDArray[np.bool_], halo: Sequence[int]
) -> OutputCheck:
    """Check an image with a new lesion against the image without it.

    Figures: "outside_difference", the largest one further than `halo` voxels from the lesion;
    "lesion_mean", "surroundings_mean", "surroundings_sd", of the voxels within `RING` of the
    lesion and inside `host`.
    """
    check = OutputCheck()
    box = around(lesion, [max(h, RING) for h in halo])
    outside = np.ones(lesion.shape, bool)
    outside[box] = ~_grown(lesion[box], halo)
    changed = after.array != before.array
    apart = changed & outside
    difference = 0.0
    if apart.any():
        difference = float(np.abs(after.array[apart].astype(float) - before.array[apart].astype(float)).max())
        check.fail("outside", f"Voxels far from the lesion differ by up to {difference:g}.")
    check.figures["outside_difference"] = difference
    check.figures["changed_voxels"] = int(changed.sum())
    values, where = after.array[box].astype(np.float64), lesion[box]
    if not np.isfinite(values).all():
        check.fail("not-finite", "The lesion holds voxels that are not finite numbers.")
        return check
    ring = host[box] & _grown(where, [RING] * 3) & ~_grown(where, [1] * 3)
    check.figures["lesion_mean"] = inside = float(values[where].mean())
    if int(ring.sum()) < _FEWEST:
        return check
    level, spread = float(values[ring].mean()), float(values[ring].std())
    check.figures |= {"surroundings_mean": level, "surroundings_sd": spread}
    if abs(inside - level) < VISIBLE * spread:
        check.findings.append(
            Finding(
                "warning",
                "hardly-visible",
                f"The lesion hardly differs from what surrounds it (mean {inside:.0f} against "
                f"{level:.0f} {after.unit}); give it a contrast to make it visible.",
            )
        )
    return check


def around(lesion: NDArray[np.bool_], margin: Sequence[int]) -> tuple[slice, ...]:
    """The bounding box of a lesion with a margin in voxels, cut at the border of the grid."""
    index = np.nonzero(lesion)
    return tuple(
        slice(max(0, int(i.min()) - m), min(n, int(i.max()) + m + 1))
        for i, n, m in zip(index, lesion.shape, margin, strict=True)
    )


def _grown(mask: NDArray[np.bool_], by: Sequence[int]) -> NDArray[np.bool_]:
    """Dilation by a box of so many voxels to each side."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, [2 * int(n) + 1 for n in by], mode="constant") > 0
