"""The mass effect of a lesion: the surroundings are displaced along rays from its center.

With the volume v of the ball up to a point, the point moves from v to

    inside:  v * (R / r)^3          up to r, the radius before
    outside: L^3 - (L^3 - v) * J    with J = (L^3 - R^3) / (L^3 - r^3), up to the reach L

(all as cubes of radii). R is the radius of a ball as large as the lesion. So the surroundings are compressed evenly by
J, which is above 0, nothing moves at L or beyond, and the inverse has the same form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from MedGenLib.imaging.boxes import Box, wider
from MedGenLib.imaging.volume import Geometry

_MOST = 0.5
"""Displacement of the border by the whole mass effect, relative to the radius."""
_REACH = 3.0
"""Distance from the center beyond which nothing moves, in radii."""


@dataclass(frozen=True)
class Push:
    """A displacement of the surroundings of a lesion.

    Attributes
    ----------
    center: RAS mm.
    before, after, reach: radii in mm: of the tissue that the lesion pushes aside, of the lesion, and the one beyond
        which nothing moves.
    """

    center: NDArray[np.float64]
    before: float
    after: float
    reach: float

    @classmethod
    def of(cls, center: NDArray[np.float64], volume_mm3: float, effect: float) -> Push:
        """Of a lesion with a mass effect of 0 to 1."""
        radius = float((volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3))
        return cls(np.asarray(center, float), radius * (1 - _MOST * effect), radius, _REACH * radius)

    @property
    def least_jacobian(self) -> float:
        """The smallest local change of volume, which is that of all surroundings."""
        return (self.reach**3 - self.after**3) / (self.reach**3 - self.before**3)

    def moved(self, points: ArrayLike) -> NDArray[np.float64]:
        """Where points (n, 3) of the input, RAS mm, are in the result."""
        return self._mapped(np.asarray(points, float), self.before, self.after)

    def sources(self, points: ArrayLike) -> NDArray[np.float64]:
        """Where points (n, 3) of the result, RAS mm, are in the input."""
        return self._mapped(np.asarray(points, float), self.after, self.before)

    def _mapped(self, points: NDArray, old: float, new: float) -> NDArray[np.float64]:
        offsets = points - self.center
        radius = np.linalg.norm(offsets, axis=-1)
        limit = self.reach**3
        outside = limit - (limit - radius**3) * (limit - new**3) / (limit - old**3)
        mapped = np.where(radius <= old, radius * new / old, np.cbrt(outside))
        factor = np.where((radius > 0) & (radius < self.reach), mapped / np.where(radius > 0, radius, 1), 1.0)
        return self.center + offsets * factor[..., None]

    def warp(self, array: NDArray, geometry: Geometry, labels: bool = False) -> NDArray:
        """An image, or labels, with displaced surroundings; voxels that do not move keep their value."""
        from scipy.ndimage import map_coordinates, spline_filter

        box, moving, index = self._moving(geometry)
        result, wide = array.copy(), wider(box, 4, array.shape)
        start = np.array([part.start for part in wide])[:, None]
        if labels:
            result[box][moving] = map_coordinates(array[wide], index - start, order=0, mode="nearest")
            return result
        values = spline_filter(array[wide].astype(np.float64), mode="mirror")
        found = map_coordinates(values, index - start, order=3, mode="mirror", prefilter=False)
        found = found.clip(array[wide].min(), array[wide].max())  # a spline overshoots at edges
        result[box][moving] = np.rint(found) if np.issubdtype(array.dtype, np.integer) else found
        return result

    def _moving(self, geometry: Geometry) -> tuple[Box, NDArray[np.bool_], NDArray[np.float64]]:
        """A box, which of its voxels move, and the index (3, n) of the place in the input that each of them shows."""
        inverse, last = np.linalg.inv(geometry.affine), np.array(geometry.shape) - 1
        middle = inverse[:3, :3] @ self.center + inverse[:3, 3]
        room = self.reach * np.linalg.norm(inverse[:3, :3], axis=1)
        low, high = (edge.astype(int).clip(0, last) for edge in (np.floor(middle - room), np.ceil(middle + room)))
        box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        grid = np.moveaxis(np.indices(high - low + 1), 0, -1)
        points = (grid + low) @ geometry.affine[:3, :3].T + geometry.origin
        moving = np.linalg.norm(points - self.center, axis=-1) < self.reach
        sources = self.sources(points[moving])
        return box, moving, np.linalg.solve(geometry.affine[:3, :3], (sources - geometry.origin).T)
