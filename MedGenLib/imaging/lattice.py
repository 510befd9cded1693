"""Masks whose voxels are those of an image, but fewer, more, or in another order, as after cropping to the segments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedGenLib.imaging.volume import Geometry, LabelMap, by_axis

_OFF = 0.05
"""Largest distance from the lattice in voxels."""

Box = tuple[slice, slice, slice]


def extended(mask: LabelMap, grid: Geometry) -> LabelMap:
    """The mask on the grid without resampling, if it lies on the same lattice; otherwise the mask itself.

    Voxels of the grid that it does not reach are 0, which a note says.
    """
    found = placed(mask, grid)
    return mask if found is None else found[0]


def placed(mask: LabelMap, grid: Geometry) -> tuple[LabelMap, Box] | None:
    """The mask on the grid, and the part of the grid that it covers; None if it lies on another lattice or apart."""
    to_index = np.linalg.inv(grid.affine) @ mask.affine
    turn, start = np.rint(to_index[:3, :3]).astype(int), np.rint(to_index[:3, 3]).astype(int)
    is_turn = (np.abs(turn).sum(0) == 1).all() and (np.abs(turn).sum(1) == 1).all()
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in mask.shape])).reshape(3, -1)
    exact = to_index[:3, :3] @ corners + to_index[:3, 3:]
    if not is_turn or np.abs(exact - (turn @ corners + start[:, None])).max() > _OFF:
        return None
    order = np.abs(turn).argmax(1)
    flips = [axis for axis in range(3) if turn[axis, order[axis]] < 0]
    array = np.flip(mask.array.transpose(order), flips)
    first = [start[axis] - (array.shape[axis] - 1) * (axis in flips) for axis in range(3)]
    low = [max(0, n) for n in first]
    high = [min(size, n + length) for size, n, length in zip(grid.shape, first, array.shape, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    whole = np.zeros(grid.shape, mask.array.dtype)
    whole[box] = array[tuple(slice(a - n, b - n) for a, b, n in zip(low, high, first, strict=True))]
    size = tuple(part.stop - part.start for part in box)
    notes = mask.notes
    if size != grid.shape:
        notes = (
            *notes,
            f"The mask covers {by_axis(size)} of the {by_axis(grid.shape)} voxels of the image; what lies beyond is "
            "taken as unlabeled.",
        )
    return replace(mask, array=whole, affine=grid.affine, notes=notes, forms=None), box
