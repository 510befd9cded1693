"""Shapes of lesions: procedural shapes, drawn from a seed, and shapes from masks.

A shape is a solid around its center, in units of its greatest diameter. It is rasterized in
millimeters of the patient: oblique or anisotropic voxels do not distort it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import Geometry, LabelMap

PARTS = 3
"""Sampling points along each axis of a voxel; a voxel belongs to the shape if half of them do."""
_PLENTY = 24
"""Voxels across a shape above which one point in each voxel is enough."""
_DIRECTIONS = 2000


class Shape(Protocol):
    """A solid around its center.

    Attributes
    ----------
    size_mm: its own greatest diameter in mm; None for a shape of any size.
    reach: distance from the center to the furthest point, in greatest diameters.
    """

    size_mm: float | None
    reach: float

    def contains(self, points: NDArray) -> NDArray[np.bool_]:
        """Which points (n, 3) lie inside; along RAS, in greatest diameters from the center."""
        ...


@dataclass(frozen=True)
class StarShape:
    """A star-shaped solid: one radius in every direction from the center.

    Attributes
    ----------
    radius: unit vectors (n, 3) -> relative radius (n,).
    scale: factor that makes the greatest diameter 1.
    """

    radius: Callable[[NDArray], NDArray]
    scale: float
    reach: float
    size_mm: float | None = None

    @classmethod
    def of(cls, radius: Callable[[NDArray], NDArray]) -> StarShape:
        directions = spread_directions(_DIRECTIONS)
        surface = radius(directions)[:, None] * directions
        along = surface @ directions.T
        scale = 1 / float((along.max(0) - along.min(0)).max())
        return cls(radius, scale, scale * float(np.linalg.norm(surface, axis=1).max()))

    def contains(self, points: NDArray) -> NDArray[np.bool_]:
        distance = np.linalg.norm(points, axis=1)
        inside = distance < 1e-6  # the center, which has no direction
        near = ~inside & (distance <= 1.02 * self.reach)  # between two directions the radius may be larger
        away = distance[near]
        inside[near] = away <= self.scale * self.radius(points[near] / away[:, None])
        return inside


@dataclass(frozen=True)
class MaskShape:
    """The shape of one label of a mask.

    Attributes
    ----------
    depth: distance in mm to the surface, above 0 inside, on the mask's voxels about the shape.
    to_index: (3, 3) and (3,), mm from the center -> index of `depth`.
    """

    depth: NDArray[np.float32]
    to_index: tuple[NDArray, NDArray]
    size_mm: float
    reach: float

    @classmethod
    def of(cls, mask: LabelMap, value: int | None = None) -> MaskShape:
        """Of one label, or of all labels.

        Raises
        ------
        InputError: no voxel has it.
        """
        from scipy.ndimage import distance_transform_edt

        wanted = mask.array > 0 if value is None else mask.array == value
        if not wanted.any():
            raise InputError("The mask of the lesion's shape is empty; draw it or choose another.")
        index = np.argwhere(wanted)
        low, high = index.min(0), index.max(0) + 1
        part = np.pad(wanted[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 1)
        inner, outer = (distance_transform_edt(m, mask.spacing) for m in (part, ~part))
        axes = mask.affine[:3, :3]
        center = index.mean(0)
        offsets = (index - center) @ axes.T
        # A voxel extends by half its size on both sides.
        along = offsets @ spread_directions(500).T
        size = float((along.max(0) - along.min(0)).max()) + float(np.mean(mask.spacing))
        reach = float(np.linalg.norm(offsets, axis=1).max()) + max(mask.spacing)
        start = center - low + 1
        return cls((inner - outer).astype(np.float32), (np.linalg.inv(axes), start), size, reach / size)

    def contains(self, points: NDArray) -> NDArray[np.bool_]:
        from scipy.ndimage import map_coordinates

        rotation, start = self.to_index
        index = (points * self.size_mm) @ rotation.T + start
        return map_coordinates(self.depth, index.T, order=1, mode="constant", cval=-1e6) > 0


def sphere(generator: np.random.Generator) -> StarShape:
    """A ball, for every seed."""
    return StarShape.of(lambda d: np.ones(len(d)))


def ellipsoid(generator: np.random.Generator) -> StarShape:
    """Axes of 1, 0.6 to 0.9 and 0.5 to 0.8, in a random direction."""
    axes = np.array([1.0, generator.uniform(0.6, 0.9), generator.uniform(0.5, 0.8)])
    rotation = _rotation(generator)
    return StarShape.of(lambda d: 1 / np.linalg.norm(d @ rotation / axes, axis=1))


def lobulated(generator: np.random.Generator) -> StarShape:
    """A round body with five to eight broad lobes."""
    return _bumpy(generator, count=int(generator.integers(5, 9)), width=0.45, height=(0.25, 0.6))


def spiculated(generator: np.random.Generator) -> StarShape:
    """A round body with twelve to twenty thin rays, as of a carcinoma that draws at the lung."""
    return _bumpy(generator, count=int(generator.integers(12, 21)), width=0.13, height=(0.4, 1.0))


PROCEDURAL: dict[str, Callable[[np.random.Generator], StarShape]] = {
    "sphere": sphere,
    "ellipsoid": ellipsoid,
    "lobulated": lobulated,
    "spiculated": spiculated,
}


def rasterize(shape: Shape, geometry: Geometry, center: NDArray, size_mm: float) -> NDArray[np.bool_]:
    """The voxels (i, j, k) of a grid of which a shape fills at least half.

    The voxel that contains the center always belongs to it, so that no lesion is lost between two
    thick slices. `center` is in RAS mm, `size_mm` the greatest diameter.
    """
    drawn = np.zeros(geometry.shape, bool)
    # With many voxels across, one point in each is enough.
    parts = 1 if size_mm / max(geometry.spacing) > _PLENTY else PARTS
    box, share = coverage(shape, geometry, center, size_mm, parts)
    drawn[box] = share >= 0.5
    inverse = np.linalg.inv(geometry.affine)
    own = np.rint(inverse[:3, :3] @ center + inverse[:3, 3]).astype(int)
    if ((own >= 0) & (own < geometry.shape)).all():
        drawn[tuple(own)] = True
    return drawn


def coverage(
    shape: Shape, geometry: Geometry, center: NDArray, size_mm: float, parts: int = PARTS
) -> tuple[Box, NDArray[np.float64]]:
    """The box (i, j, k) around a shape, and the share (0 to 1) of each of its voxels that is inside.

    ``parts`` are sampling points along each axis of a voxel.
    """
    inverse = np.linalg.inv(geometry.affine)
    middle = inverse[:3, :3] @ center + inverse[:3, 3]
    room = shape.reach * size_mm / np.array(geometry.spacing) + 1
    low = np.maximum(np.floor(middle - room), 0).astype(int)
    high = np.maximum(np.minimum(np.ceil(middle + room) + 1, geometry.shape).astype(int), low)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return box, _share(shape, geometry, center, size_mm, low, high, parts)


def _share(
    shape: Shape, geometry: Geometry, center: NDArray, size_mm: float, low: NDArray, high: NDArray, parts: int
) -> NDArray[np.float64]:
    """Share (0 to 1) of every voxel of a box that lies inside, plane by plane."""
    within = (np.arange(parts) + 0.5) / parts - 0.5
    sides = [(np.arange(a, b)[:, None] + within).ravel() for a, b in zip(low, high, strict=True)]
    axes, origin = geometry.affine[:3, :3], geometry.origin
    share = np.empty(high - low)
    for number in range(len(share)):
        first = sides[0][number * parts : (number + 1) * parts]
        index = np.stack(np.meshgrid(first, *sides[1:], indexing="ij"), -1).reshape(-1, 3)
        inside = shape.contains((index @ axes.T + origin - center) / size_mm)
        cells = inside.reshape(parts, high[1] - low[1], parts, high[2] - low[2], parts)
        share[number] = cells.mean((0, 2, 4))
    return share


def _bumpy(generator: np.random.Generator, count: int, width: float, height: tuple[float, float]) -> StarShape:
    """A ball with bumps: sums of exp((cos(angle) - 1) / width^2) about evenly spread directions."""
    # Evenly spread and then jittered: random directions alone would cluster.
    towards = spread_directions(count) + generator.normal(0, 0.25, (count, 3))
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True) @ _rotation(generator)
    heights = generator.uniform(*height, count)

    def radius(directions: NDArray) -> NDArray:
        return 1 + np.exp((directions @ towards.T - 1) / width**2) @ heights

    return StarShape.of(radius)


def spread_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3) spread evenly over the sphere (Fibonacci lattice)."""
    n = np.arange(count) + 0.5
    z = 1 - 2 * n / count
    angle = np.pi * (1 + 5**0.5) * n
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)


def _rotation(generator: np.random.Generator) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    return Rotation.random(random_state=generator).as_matrix()
