"""Anatomical order of a head CT: air, scalp, skull, brain.

Means of tissues do not notice bone in the brain or a missing arc of the skull. Here the brain is found as the largest
piece of soft tissue; bone and air enclosed by it are measured, and rays from its center to the air outside must cross
bone and then scalp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Volume

SOFT_HU = (-20.0, 100.0)
BONE_HU, AIR_HU = 250.0, -300.0
OPENING_MM = 4.0
"""Radius of the opening that separates the brain from the soft tissue outside of the skull."""
CLOSING_MM = 8.0
"""Radius of the closing, so that a fault near the surface of the brain counts."""
FEWEST_MM2 = 3000.0
"""Area of the largest section of the brain below which an image is not judged."""
RAYS = 720
LEAST_SLICES = 8
UPWARD, FACING = 0.15, 0.6
"""Least vertical component of a ray, and the largest one to the front in an axial slice: face and neck have no closed
skull."""
THICKEST_MM = 3.0
"""Thickness of the slices of a volume above which it is not judged, as they blur the skull base into the brain."""
STEP_MM = 2.0
LIMITS = {
    "bone_in_brain": (0.0125, 0.005),
    "air_in_brain": (0.01, 0.002),
    "open_skull": (0.15, 0.1),
    "bare_skull": (0.15, 0.1),
}
"""Largest share in a single slice and in a volume, see `head_order`; Testing/benchmarks/anatomy.py measures how often
real head CT exceeds them."""
SENTENCES = {
    "bone_in_brain": "The brain encloses bone: {0} of its volume (limit {1}).",
    "air_in_brain": "The brain encloses air: {0} of its volume (limit {1}).",
    "open_skull": "The skull is open: {0} of the rays from the brain to the air outside cross no bone (limit {1}).",
    "bare_skull": "The scalp is missing: {0} of the rays go from the skull to the air without soft tissue (limit {1}).",
}


@dataclass(frozen=True)
class _Grid:
    """HU in RAS order with its spacing in mm."""

    hu: NDArray[np.float32]
    spacing: NDArray[np.float64]

    @property
    def flat(self) -> list[int]:
        """Axes of one voxel."""
        return [axis for axis, n in enumerate(self.hu.shape) if n < LEAST_SLICES]


def check_head(check: OutputCheck, volume: Volume) -> None:
    """Add the figures of `head_order`, and a failure for each that is above its limit."""
    figures = head_order(volume)
    if not figures:
        return
    check.figures["anatomy"] = figures
    slab = min(volume.shape) < LEAST_SLICES
    for name, value in figures.items():
        limit = LIMITS[name][0 if slab else 1]
        if value > limit:
            check.fail("anatomy", SENTENCES[name].format(f"{value:.1%}", f"{limit:.1%}"))


def head_order(volume: Volume) -> dict[str, float]:
    """Shares of a head CT that contradict the order of the tissues.

    Empty if it shows no section of the brain or too little of the air around it, or is a volume of thick slices.

    ``bone_in_brain`` (without bone that is connected to the skull) and ``air_in_brain`` are relative to the volume of
    the brain with its holes filled; ``open_skull`` and ``bare_skull`` are shares of the rays from its center. Of a
    single slice the rays lie in its plane.
    """
    thin = [n < LEAST_SLICES for n in volume.shape]
    if not any(thin) and max(volume.spacing) > THICKEST_MM:
        return {}
    steps = [1 if any(thin) else max(1, round(STEP_MM / s)) for s in volume.spacing]
    reorientation = Reorientation.to(volume.geometry, "RAS")
    hu = reorientation.apply(volume.array[tuple(slice(None, None, n) for n in steps)].astype(np.float32))
    spacing = np.array(reorientation.axes([s * n for s, n in zip(volume.spacing, steps, strict=True)]))
    # Radii are often whole numbers of voxels: a last digit of the spacing must not decide what lies within them.
    grid = _Grid(hu, np.round(spacing, 3))
    brain = _brain(grid)
    rays = _rays(grid, brain) if brain is not None else {}
    if not rays:
        return {}
    filled = _filled(brain, grid)
    inside = filled & ~brain
    whole = np.count_nonzero(filled)
    made = {
        "bone_in_brain": np.count_nonzero(inside & _apart(hu > BONE_HU, filled)) / whole,
        "air_in_brain": np.count_nonzero(inside & (hu < AIR_HU)) / whole,
        **rays,
    }
    return {name: round(float(value), 4) for name, value in made.items()}


def _brain(grid: _Grid) -> NDArray[np.bool_] | None:
    """The largest piece of opened soft tissue; None if no section of it has `FEWEST_MM2`."""
    soft = (grid.hu > SOFT_HU[0]) & (grid.hu < SOFT_HU[1])
    core = _distance(soft, grid) > OPENING_MM
    pieces, count = ndimage.label(core)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    core = pieces == sizes.argmax()
    brain = soft & (_distance(~core, grid) <= OPENING_MM)
    areas = [
        brain.sum(tuple(a for a in range(3) if a != axis)).max() * np.delete(grid.spacing, axis).prod()
        for axis in (grid.flat or range(3))
    ]
    return brain if max(areas) >= FEWEST_MM2 else None


def _distance(mask: NDArray[np.bool_], grid: _Grid) -> NDArray[np.float64]:
    """Distance to the outside of the mask, within the plane of a single slice."""
    if not grid.flat:
        return ndimage.distance_transform_edt(mask, grid.spacing)
    spacing = np.where(np.isin(range(3), grid.flat), 1e6, grid.spacing)
    return ndimage.distance_transform_edt(mask, spacing)


def _filled(brain: NDArray[np.bool_], grid: _Grid) -> NDArray[np.bool_]:
    """The brain with what it encloses after a closing, plane by plane in a slab."""
    wide = _distance(~brain, grid) <= CLOSING_MM
    if grid.flat:
        axis = grid.flat[0]
        planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(wide, axis, 0)]
        wide = np.moveaxis(np.stack(planes), 0, axis)
    else:
        wide = ndimage.binary_fill_holes(wide)
    return brain | (_distance(wide, grid) > CLOSING_MM)


def _apart(bone: NDArray[np.bool_], filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bone that is not connected to the skull, as the petrous ridges are."""
    pieces, _ = ndimage.label(bone)
    return bone & ~np.isin(pieces, np.unique(pieces[bone & ~filled]))


def _rays(grid: _Grid, brain: NDArray[np.bool_]) -> dict[str, float]:
    center = np.array([index.mean() for index in np.nonzero(brain)])
    directions = _directions(grid.flat)
    reach = np.arange(0, float(np.linalg.norm(np.array(grid.hu.shape) * grid.spacing)))
    places = center[:, None, None] + (directions.T / grid.spacing[:, None])[:, :, None] * reach
    inside = np.all((places >= -0.5) & (places <= np.array(grid.hu.shape)[:, None, None] - 0.5), axis=0)
    hu = ndimage.map_coordinates(grid.hu, places, order=0, mode="nearest")
    rows = [_order(line[known]) for line, known in zip(hu, inside, strict=True)]
    rows = [row for row in rows if row is not None]
    if len(rows) < len(directions) / 4:
        return {}
    closed, covered = np.array(rows).T
    return {"open_skull": 1 - closed.mean(), "bare_skull": 1 - covered[closed].mean() if closed.any() else 0.0}


def _directions(flat: list[int]) -> NDArray[np.float64]:
    """Unit vectors over the upper part of a sphere, or of the circle in the plane of a slice.

    Those of an axial slice point to all sides except the face.
    """
    numbers = np.arange(RAYS)
    if flat:
        angle = 2 * np.pi * numbers / RAYS
        found = np.zeros((RAYS, 3))
        found[:, [axis for axis in range(3) if axis != flat[0]]] = np.column_stack([np.cos(angle), np.sin(angle)])
        return found[found[:, 1] < FACING] if flat[0] == 2 else found[found[:, 2] > UPWARD]
    height = 1 - numbers / RAYS * (1 - UPWARD)
    angle = numbers * np.pi * (3 - np.sqrt(5))  # Fibonacci sphere
    return np.column_stack([np.sqrt(1 - height**2) * np.cos(angle), np.sqrt(1 - height**2) * np.sin(angle), height])


def _order(hu: NDArray[np.float32]) -> tuple[bool, bool] | None:
    """Whether a ray crosses bone, and soft tissue after the last bone; None if it does not reach the air outside."""
    tissue = np.flatnonzero(hu > AIR_HU)
    if not tissue.size or tissue[-1] == len(hu) - 1:
        return None
    bone = np.flatnonzero(hu > BONE_HU)
    return bool(bone.size), bool(bone.size) and bool((hu[bone[-1] + 1 : tissue[-1] + 1] < BONE_HU).any())
