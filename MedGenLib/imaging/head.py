"""Whether an image shows a whole head: its cross-section, and the skull below the skin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume

_GRID_MM = 3.0
_LARGEST_CM2 = 400
"""Median cross-section of the body; heads have up to 290, abdomens and chests 600 to 1,000."""
_BONE_HU, _LEAST_BONE = 250, 0.1
"""Share of bone in CT between 3 and 12 mm below the skin; heads have 0.4, other parts of the body at most 0.02."""
_LEAST_SHELL = 0.05
"""Share of the body that lies between 3 and 12 mm below the skin in an image that shows the skin; crops have less."""
BRAIN_LITERS = 2.3
"""Largest volume of a brain without skull; whole heads have 2.7 or more."""
_EVEN_AIR = 0.3
"""Share of voxels with one value around a brain without skull."""
_SCALP_MM, _SIGNAL, _MUCH = (6, 25), 0.15, 0.1
"""Where the scalp lies around a brain, its least signal relative to the brain, and the share of voxels that have it."""
_LAYERS_MM = (3, 6, 9, 12, 15, 18)
_DEEP_MM = (20, 60)
_FEW = 50
_SKULL = 0.075
"""Least contrast of the skull in MR, as returned by `_dark_layer`: at least 0.085 in 171 heads, at most 0.063 in limbs
and trunks of 41 people and in brains without skull."""
_THICKEST_MM, _HIGHEST_MM = 4.0, 6.6
"""Largest voxels along and across an axial plane that show a skull: in thicker ones the layer is averaged away."""
_OUTSIDE_MM, _RAY_MM, _FEW_RAYS = 12, 22, 30
"""Ends of a ray outside and inside of the outline of the body, which may follow the skull below a thin scalp."""


def head_problem(volume: Volume) -> str | None:
    """A sentence if an image of CT or MR seems to show another part of the body, or a head without its skull.

    Single slices, and images whose content gives no answer, have none.
    """
    if min(volume.shape) < 2:
        return None
    volume = replace(volume, modality=modality_of(volume))
    coarse = resample(volume, [max(spacing, _GRID_MM) for spacing in volume.spacing])
    try:
        body = body_envelope_from_image(coarse).array > 0
    except InputError:  # an image without a body is another finding
        return None
    area = _cross_section(coarse, body)
    if area > _LARGEST_CM2:
        return f"The body has a cross-section of {area:.0f} cm2, so this is no head"
    depth = _depth(body, coarse.spacing)
    if volume.modality == "CT":
        below = coarse.array[body & (depth > 3) & (depth <= 12)]
        if below.size < max(_FEW, _LEAST_SHELL * np.count_nonzero(body)) or np.mean(below > _BONE_HU) >= _LEAST_BONE:
            return None
        return "No skull is found below the skin, so this is another part of the body, or the skull was removed"
    if _is_bare_brain(volume, coarse, body, depth):
        return "No skull is found around the brain, so it seems to have been removed (skull-stripping)"
    axial, sides = _axes(volume)
    if volume.spacing[axial] > _HIGHEST_MM or max(volume.spacing[axis] for axis in sides) > _THICKEST_MM:
        return None
    skull = _dark_layer(coarse, body, _air(volume))
    if skull is not None and skull < _SKULL:
        return "No dark skull is found below the skin, so this is another part of the body, or the skull was removed"
    return None


def _cross_section(coarse: Volume, body: np.ndarray) -> float:
    """Median area of the body in the axial planes that show it, in cm2."""
    axial, sides = _axes(coarse)
    areas = body.sum(axis=tuple(sides)) * np.prod([coarse.spacing[axis] for axis in sides]) / 100
    return float(np.median(areas[areas > 0]))


def _axes(image: Volume) -> tuple[int, list[int]]:
    """The axis from foot to head, and the two others."""
    axial = next(axis for axis, letter in enumerate(image.orientation) if letter in "SI")
    return axial, [axis for axis in range(3) if axis != axial]


def _depth(body: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance to the skin in mm; the body continues beyond the border of the image."""
    from scipy.ndimage import distance_transform_edt

    margin = 8
    inner = (slice(margin, -margin),) * body.ndim
    return distance_transform_edt(np.pad(body, margin, "edge"), spacing)[inner]


def _air(volume: Volume) -> float:
    return float(np.median(volume.array[:2, :2, :2]))


def _dark_layer(coarse: Volume, body: np.ndarray, air: float) -> float | None:
    """Contrast of the darkest point of a ray from the skin inward to the signal on both sides: 0 (none) to 1 (as air).

    Median over the rays of an axial plane, then over the planes; None if no plane shows the skin and the tissue below.
    """
    axial, sides = _axes(coarse)
    planes, inside = (np.moveaxis(array, axial, 0) for array in (coarse.array - air, body))
    area = inside.sum(axis=(1, 2))
    spacing = [coarse.spacing[axis] for axis in sides]
    profiles = [_profiles(planes[n], inside[n], spacing) for n in np.flatnonzero(area > area.max() / 2)]
    found = []
    for rays in profiles:
        if rays is not None:
            outer, inner = np.maximum.accumulate(rays), np.maximum.accumulate(rays[::-1])[::-1]
            beside = np.minimum(outer, inner)
            deepest, most = (beside - rays).max(axis=0), beside.max(axis=0)
            found.append(np.median(deepest[most > 0] / most[most > 0]) if (most > 0).any() else 0.0)
    return float(np.median(found)) if found else None


def _profiles(plane: np.ndarray, body: np.ndarray, spacing: Sequence[float]) -> np.ndarray | None:
    """Values of a plane at each mm of rays across the outline of the body inward, one column per ray; None for few."""
    from scipy.ndimage import distance_transform_edt, map_coordinates

    if body.all():
        return None
    depth, nearest = distance_transform_edt(np.pad(body, 1, "edge"), spacing, return_indices=True)
    depth, nearest = depth[1:-1, 1:-1], nearest[:, 1:-1, 1:-1] - 1
    ends = np.argwhere((depth > _RAY_MM) & (depth <= _RAY_MM + 1.5 * max(spacing)))
    skin = nearest[:, *ends.T].T
    seen = ((skin >= 0) & (skin < plane.shape)).all(axis=1)
    ends, skin = ends[seen], skin[seen]
    if len(ends) < _FEW_RAYS:
        return None
    step = (ends - skin) / depth[*ends.T][:, None]
    return np.array([map_coordinates(plane, (skin + mm * step).T, order=1) for mm in range(-_OUTSIDE_MM, _RAY_MM)])


def _is_bare_brain(volume: Volume, coarse: Volume, body: np.ndarray, depth: np.ndarray) -> bool:
    """Whether the signal rises steadily from the surface inward, where scalp and skull would make it fall."""
    from scipy.ndimage import distance_transform_edt

    air = _air(volume)
    liters = np.count_nonzero(body) * np.prod(coarse.spacing) / 1e6
    if np.mean(volume.array == air) < _EVEN_AIR or liters > BRAIN_LITERS:
        return False
    layers = [body & (depth > low) & (depth <= high) for low, high in zip(_LAYERS_MM, _LAYERS_MM[1:], strict=False)]
    deep = body & (depth > _DEEP_MM[0]) & (depth <= _DEEP_MM[1])
    if min(np.count_nonzero(layer) for layer in (*layers, deep)) < _FEW:
        return False
    brain = abs(float(np.median(coarse.array[deep])) - air)
    apart = distance_transform_edt(~body, coarse.spacing)
    around = coarse.array[(apart > _SCALP_MM[0]) & (apart < _SCALP_MM[1])]
    if around.size and np.mean(np.abs(around - air) > _SIGNAL * brain) > _MUCH:
        return False
    signal = np.array([np.median(coarse.array[layer]) for layer in layers])
    return bool((np.diff(signal) > -0.02 * brain).all())
