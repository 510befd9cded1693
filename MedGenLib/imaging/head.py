"""Whether an image shows a whole head: its cross-section, and the skull below the skin."""

from __future__ import annotations

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
_EVEN_AIR, _BRAIN_LITERS = 0.3, 2.3
"""Share of voxels with one value around a brain without skull, and its largest volume; whole heads have 2.7 or more."""
_SCALP_MM, _SIGNAL, _MUCH = (6, 25), 0.15, 0.1
"""Where the scalp lies around a brain, its least signal relative to the brain, and the share of voxels that have it."""
_LAYERS_MM = (3, 6, 9, 12, 15, 18)
_DEEP_MM = (20, 60)
_FEW = 50


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
    return None


def _cross_section(coarse: Volume, body: np.ndarray) -> float:
    """Median area of the body in the axial planes that show it, in cm2."""
    axial = next(axis for axis, letter in enumerate(coarse.orientation) if letter in "SI")
    sides = [axis for axis in range(3) if axis != axial]
    areas = body.sum(axis=tuple(sides)) * np.prod([coarse.spacing[axis] for axis in sides]) / 100
    return float(np.median(areas[areas > 0]))


def _depth(body: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance to the skin in mm; the body continues beyond the border of the image."""
    from scipy.ndimage import distance_transform_edt

    margin = 8
    inner = (slice(margin, -margin),) * 3
    return distance_transform_edt(np.pad(body, margin, "edge"), spacing)[inner]


def _is_bare_brain(volume: Volume, coarse: Volume, body: np.ndarray, depth: np.ndarray) -> bool:
    """Whether the signal rises steadily from the surface inward, where scalp and skull would make it fall."""
    from scipy.ndimage import distance_transform_edt

    air = float(np.median(volume.array[:2, :2, :2]))
    liters = np.count_nonzero(body) * np.prod(coarse.spacing) / 1e6
    if np.mean(volume.array == air) < _EVEN_AIR or liters > _BRAIN_LITERS:
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
