"""Alignment of loosely registered pairs: the target is warped onto what a first translator makes of its source.

Both are then images of one kind, so that their difference guides the registration. A translator that learns from many
such pairs is not pulled to one side, because each lies differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import occupied

CLOSED = 2
"""Voxels of a gap in an MR that is not the end of its field of view."""
NEAR_MM, NEAR_RADIANS = 20.0, 0.2
"""A rigid movement beyond these is kept only if the images differ less after it."""
RESOLUTIONS = (4, 2, 1)
ITERATIONS = 40
"""Steps of the demons in each resolution."""
SMOOTHNESS = 2.0
"""Standard deviation in voxels of the Gaussian that smooths the displacements."""
EXTREMES = (0.5, 99.5)
"""Percentiles of the target beyond which no difference counts."""


def field_of_view(mr: np.ndarray) -> np.ndarray:
    """Where an MR has signal, with what lies within it (x, y, z of the LPS grid; holes are filled slice by slice)."""
    margin = CLOSED + 1
    inner = (slice(margin, -margin),) * 3
    closed = ndimage.binary_closing(np.pad(mr > 0, margin), iterations=CLOSED)[inner]
    return np.stack([ndimage.binary_fill_holes(part) for part in np.moveaxis(closed, 2, 0)], axis=2)


def within_field(values: Mapping[str, np.ndarray], modalities: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The images in the box of the field of view of all MR; outside of it both are background (0, or -1000 HU of CT).

    Raises InputError for an MR without signal.
    """
    known = np.ones(next(iter(values.values())).shape, bool)
    for side, array in values.items():
        if modalities[side] != "CT":
            known &= field_of_view(array)
    box = box_of(known)
    return {
        side: np.where(known, array, background(modalities[side]))[box].astype(np.float32)
        for side, array in values.items()
    }


def box_of(known: np.ndarray) -> Box:
    """The smallest box of what is known; InputError where nothing is."""
    if (ends := occupied(known)) is None:
        raise InputError("The MR of a pair has no signal where both images lie; leave the pair out.")
    return tuple(slice(*edge) for edge in ends)


def background(modality: str) -> float:
    """HU of air, or no signal."""
    return -1000.0 if modality == "CT" else 0.0


@dataclass(frozen=True)
class Aligned:
    """A target on the place of its source; ``moved_mm`` is the median movement, ``squeezed`` the least Jacobian."""

    target: np.ndarray
    moved_mm: float
    squeezed: float


def align(made: np.ndarray, target: np.ndarray, known: np.ndarray, spacing: tuple[float, ...]) -> Aligned:
    """Warp a target onto a translation: rigid (mean squares), then diffeomorphic demons (SimpleITK).

    The demons are those of Vercauteren et al. 2009 (doi:10.1016/j.neuroimage.2008.10.040).

    Parameters
    ----------
    made, target: (x, y, z) of one grid in one unit.
    known: where the translation is known; beyond it nothing pulls.
    spacing: voxel sides in mm.
    """
    low, high = np.percentile(target, EXTREMES)
    fixed, moving = (_image(np.clip(a, low, high), spacing) for a in (made, target))
    mask = _image(known.astype(np.uint8), spacing)
    rigid = _rigid(fixed, moving, mask)
    starts = [rigid] if _is_small(rigid) else [rigid, sitk.Euler3DTransform()]
    found = []
    for start in starts:
        field = _demons(fixed, sitk.Resample(moving, fixed, start, sitk.sitkLinear, float(low)), mask)
        whole = sitk.CompositeTransform([start, sitk.DisplacementFieldTransform(sitk.Image(field))])
        warped = sitk.Resample(moving, fixed, whole, sitk.sitkLinear, float(low))
        found.append((np.abs(_array(warped) - _array(fixed))[known].mean(), field, whole))
    _, field, whole = min(found, key=lambda entry: entry[0])
    warped = sitk.Resample(_image(target, spacing), fixed, whole, sitk.sitkLinear, float(target.min()))
    squeezed = _array(sitk.DisplacementFieldJacobianDeterminant(field))[known].min()
    moved = _array(sitk.TransformToDisplacementField(whole, sitk.sitkVectorFloat32, *_grid(fixed)))[known]
    return Aligned(_array(warped), float(np.median(np.linalg.norm(moved, axis=-1))), float(squeezed))


def _image(array: np.ndarray, spacing: tuple[float, ...]) -> sitk.Image:
    kind = array.dtype if array.dtype == np.uint8 else np.float32
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, kind))
    image.SetSpacing([float(mm) for mm in spacing])
    return image


def _array(image: sitk.Image) -> np.ndarray:
    """(x, y, z), and the components of a vector at the end."""
    return sitk.GetArrayFromImage(image).swapaxes(0, 2)


def _grid(image: sitk.Image) -> tuple[Any, ...]:
    return image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()


def _rigid(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([n / 2 for n in fixed.GetSize()]))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, True)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.02, 60)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.Execute(fixed, moving)
    return transform


def _is_small(transform: sitk.Euler3DTransform) -> bool:
    turns, shifts = np.abs(transform.GetParameters()).reshape(2, 3)
    return bool(turns.max() <= NEAR_RADIANS and shifts.max() <= NEAR_MM)


def _demons(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The displacement field on the fixed grid, from coarse to fine."""
    field = None
    for factor in RESOLUTIONS:
        size = [max(1, n // factor) for n in fixed.GetSize()]
        grid = sitk.Image(size, sitk.sitkFloat32)
        sides = [mm * n / few for mm, n, few in zip(fixed.GetSpacing(), fixed.GetSize(), size, strict=True)]
        grid.SetSpacing(sides)
        grid.SetOrigin([(side - mm) / 2 for side, mm in zip(sides, fixed.GetSpacing(), strict=True)])
        first, second = (
            sitk.Resample(sitk.SmoothingRecursiveGaussian(image, factor) if factor > 1 else image, grid)
            for image in (fixed, moving)
        )
        inside = sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor)
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(ITERATIONS)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(SMOOTHNESS)
        goal = sitk.Mask(first, inside) + sitk.Mask(second, 1 - inside)
        field = demons.Execute(goal, second, *([] if field is None else [sitk.Resample(field, grid)]))
    return sitk.Cast(field, sitk.sitkVectorFloat64)
