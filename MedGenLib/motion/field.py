"""The displacement of a breath: along foot-head inside the chest and the abdomen, and along back-front of all.

A point first moves to the front and then towards the head:

    y' = y + v(y, z),  z' = z + u(x, y', z)

Each step stretches one axis only. Its Jacobian is exactly 1 plus one derivative, so tissue may slide along the wall
without folding, and each step is inverted exactly, column by column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.motion.anatomy import Chest

STEEPEST = 0.7
"""Largest stretch or compression of a column; tissue would fold at 1."""
_REACH_MM = 40.0
"""A lung of this height moves half as much at its base as a very high one."""
_BETWEEN_MM = 15.0
"""Smoothness of the diaphragm between the bases of the lungs."""
_STIFF = 4.0
"""Stiffness of soft tissue relative to lung."""
_HOLD = 0.2
"""Stiffness of the wall below and above moving tissue, relative to that tissue: it mostly slides along."""
_LUNG_HU = -400


def diaphragm(chest: Chest) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Voxels of the diaphragm, and their displacement relative to its dome, 0 to 1.

    Below the lungs it is their base; below the heart it continues between them.
    """
    from scipy import ndimage

    found = chest.base >= 0
    share = chest.height / (chest.height + _REACH_MM)
    x, y, z = chest.dome
    share = np.minimum(share / share[x, y], 1.0)
    nearest = ndimage.distance_transform_edt(~found, chest.spacing[:2], return_distances=False, return_indices=True)
    levels, shares = (
        np.where(found, part, ndimage.gaussian_filter(part[tuple(nearest)], _BETWEEN_MM / chest.spacing[:2]))
        for part in (chest.base.astype(float), share)
    )
    x, y = np.nonzero(chest.moving.any(axis=2))
    z = np.rint(levels[x, y]).astype(int)
    kept = found[x, y] | chest.moving[x, y, z] & ~chest.lungs[x, y, z]
    held, given = np.zeros(chest.moving.shape, bool), np.zeros(chest.moving.shape)
    place = x[kept], y[kept], z[kept]
    held[place], given[place] = True, shares[place[:2]]
    return held, given


def solve(chest: Chest, hu: NDArray) -> NDArray[np.float32]:
    """Displacement along foot-head, 1 at the dome of the diaphragm, on the coarse grid.

    Inside the moving part it is the equilibrium of an elastic body that is soft where it is lung: the base of the lungs
    is displaced, tissue slides along the wall, and it is held where it meets the wall, or the border of the image,
    below or above itself. The value of the nearest moving voxel continues into the wall.
    """
    from scipy import ndimage
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import cg

    moving = chest.moving.copy()
    moving[:, :, chest.levels[1] + 1 :] = False
    held, given = diaphragm(chest)
    free = moving & ~held
    number = np.full(moving.shape, -1)
    number[free] = np.arange(np.count_nonzero(free))
    stiff = np.where(hu > _LUNG_HU, _STIFF, 1.0)
    right, diagonal = np.zeros(moving.shape), np.zeros(moving.shape)
    entries: list[tuple[NDArray, NDArray, NDArray]] = []
    for axis in range(3):
        low, high = _shifted(axis)
        link = 2 * stiff[low] * stiff[high] / (stiff[low] + stiff[high]) / chest.spacing[axis] ** 2
        inside = moving[low] & moving[high]
        link = link * (inside if axis < 2 else np.where(inside, 1.0, _HOLD))
        for one, other in ((low, high), (high, low)):
            diagonal[one] += link
            right[one] += link * given[other]
        both = free[low] & free[high]
        entries.append((number[low][both], number[high][both], -link[both]))
    for border in (0, -1):  # nothing moves in or out at the border of the image
        diagonal[:, :, border] += stiff[:, :, border] / chest.spacing[2] ** 2
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    own = np.arange(np.count_nonzero(free))
    center = np.maximum(diagonal[free], 1e-9)
    matrix = coo_matrix(
        (
            np.concatenate([values, values, center]),
            (np.concatenate([rows, columns, own]), np.concatenate([columns, rows, own])),
        )
    ).tocsr()
    inverse = coo_matrix((1 / center, (own, own))).tocsr()
    found, _ = cg(matrix, right[free], rtol=1e-4, maxiter=2000, M=inverse)
    result = given.copy()
    result[free] = found
    nearest = ndimage.distance_transform_edt(~moving, chest.spacing, return_distances=False, return_indices=True)
    return ndimage.gaussian_filter(result[tuple(nearest)].clip(0, None), 1).astype(np.float32)


def _shifted(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)


def limit_slope(field: NDArray[np.float32], step: float) -> None:
    """Reduce a field in place until it changes by no more than ``step`` from level to level; it is 0 at both ends."""
    field[:, :, [0, -1]] = 0
    for level in range(1, field.shape[2]):
        np.minimum(field[:, :, level], field[:, :, level - 1] + step, out=field[:, :, level])
    for level in range(field.shape[2] - 2, -1, -1):
        np.minimum(field[:, :, level], field[:, :, level + 1] + step, out=field[:, :, level])


@dataclass(frozen=True)
class Motion:
    """The displacement of the whole breath on the grid of the image, in voxels.

    Attributes
    ----------
    up: (R, A, S) towards the head when the diaphragm rises by its whole amplitude.
    ahead: (A, S) to the front when the chest rises by its whole amplitude.
    """

    up: NDArray[np.float32]
    ahead: NDArray[np.float64]

    def sources(self, rise: float, chest: float, x: int) -> tuple[NDArray, NDArray, NDArray]:
        """A and S index from which each voxel of the sagittal plane ``x`` comes, and its volume there relative to here.

        Parameters
        ----------
        rise, chest: shares of the whole displacements; below 0 the diaphragm falls, the chest sinks.
        """
        up = self.up[x]
        levels = np.arange(up.shape[1], dtype=np.float64)
        source_z = np.broadcast_to(levels, up.shape).astype(np.float32)
        if rise:
            for y in np.flatnonzero(up.any(axis=1)):
                source_z[y] = np.interp(levels, levels + rise * up[y], levels)
        volume = np.gradient(source_z, axis=1)
        rows = np.broadcast_to(np.arange(up.shape[0], dtype=np.float32)[:, None], up.shape)
        if not chest:
            return rows, source_z, volume
        table = self._rows_before(chest)
        below = np.minimum(source_z.astype(np.intp), table.shape[1] - 2)
        own, share = np.arange(table.shape[0])[:, None], source_z - below
        volume *= np.gradient(table, axis=0)[own, below]
        return table[own, below] * (1 - share) + table[own, below + 1] * share, source_z, volume

    def _rows_before(self, chest: float) -> NDArray[np.float32]:
        """(A, S) A index before the step to the front."""
        rows = np.arange(self.ahead.shape[0], dtype=np.float64)
        beyond = np.append(rows, 2 * rows[-1] + 1)  # what moves in from outside of the image has its place, too
        columns = [np.interp(rows, beyond + chest * np.append(ahead, ahead[-1]), beyond) for ahead in self.ahead.T]
        return np.stack(columns, axis=1).astype(np.float32)

    def moved(self, points: NDArray, rise: float, chest: float) -> NDArray[np.float64]:
        """Places (n, 3) of points given by their index R, A, S."""
        from scipy.ndimage import map_coordinates

        x, y, z = np.asarray(points, float).T
        y = y + chest * map_coordinates(self.ahead, [y, z], order=1, mode="nearest")
        z = z + rise * map_coordinates(self.up, [x, y, z], order=1, mode="nearest")
        return np.stack([x, y, z], axis=1)
