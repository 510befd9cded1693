"""Which voxels of an image an edit replaces: those of changed labels, a thin rim, but no structure beside the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from MedGenLib.imaging.normalization import TissueRange, TissueStandard

NEAR, FAR = 0.5, 3.0
"""Working voxels from a changed voxel up to which the image is new, and from which it is unchanged."""
BESIDE, INSIDE = np.arcsinh([0.5, 1.5]), np.arcsinh([2.0, 3.0])
"""Standardized difference from the center of a label up to which a voxel is of that label, and from which it belongs
to a structure that the mask does not describe; in the rim and where the label changes."""
NEIGHBORS = 3


def falling(changed: NDArray[np.bool_], steps: tuple[float, ...]) -> NDArray[np.float32]:
    """Weight of the new image: 1 up to `NEAR` from the changed voxels, 0 from `FAR` on, linear between.

    ``steps`` are the working voxels in one voxel along each axis.
    """
    distance = ndimage.distance_transform_edt(~changed, steps).astype(np.float32)
    return np.clip((FAR - distance) / (FAR - NEAR), 0, 1)


def undescribed(
    values: NDArray, before: NDArray, after: NDArray, codec: TissueStandard, limits: TissueRange | None
) -> NDArray[np.float32]:
    """Share (0 to 1) to which voxels belong to a structure that the mask did not describe and may still be there.

    Such are spongy bone marked as soft tissue, vessels and calcifications. Where the label changes, the new label has
    to allow the value.

    Parameters
    ----------
    values: of the image, in the unit of the model.
    before, after: labels, old and new; there are no structures outside of the labels.
    """
    level = _level(values.astype(np.float32), before)
    low, high = np.where(before == after, BESIDE[:, None, None, None], INSIDE[:, None, None, None])
    share = (np.abs(codec.encode(level, before)) - low) / (high - low)
    if limits is not None:
        allowed = (level >= np.asarray(limits.low)[after]) & (level <= np.asarray(limits.high)[after])
    else:
        allowed = np.abs(codec.encode(level, after)) <= BESIDE[1]
    possible = (before > 0) & (after > 0) & ((before == after) | allowed)
    return np.where(possible, share.clip(0, 1), 0).astype(np.float32)


def without_specks(values: NDArray[np.float32], labels: NDArray, limits: TissueRange) -> NDArray[np.float32]:
    """Values below those of the brightest label wherever a voxel has another label.

    The range of a tissue holds for local medians: vessels thinner than the mask's labels are kept, but single voxels
    as bright as bone are not what the mask says.
    """
    brightest = max(limits.low)
    return np.where(np.asarray(limits.low)[labels] < brightest, np.minimum(values, np.float32(brightest)), values)


def _level(values: NDArray[np.float32], labels: NDArray) -> NDArray[np.float32]:
    """Mean of the neighbors of the same label, which is free of noise and of the blurred edges of other labels."""
    size = [NEIGHBORS if n > 1 else 1 for n in values.shape]
    level = np.zeros_like(values)
    for label in np.unique(labels):
        mine = labels == label
        count = ndimage.uniform_filter(mine.astype(np.float32), size)
        total = ndimage.uniform_filter(np.where(mine, values, 0), size)
        level[mine] = total[mine] / count[mine]
    return level
