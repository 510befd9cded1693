"""Stacks of slices on one fine grid: place, coverage, brightness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.degradation.slices import Acquisition, is_aligned
from MedGenLib.enhancement.fusion import AxisFit, StackFit
from MedGenLib.enhancement.inputs import require_thick
from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, Volume

LEAST_COMMON = 0.2
"""Share of the first stack's grid that a further stack has to show."""
SAME = 1e-3
ALIKE = 0.3
"""Least correlation of two stacks of one patient where both show something."""


def fine_grid(stacks: Sequence[Volume], spacing: float | None = None) -> Geometry:
    """Cubic voxels along the axes of the first stack, over its field of view.

    Sides that differ by less than `SAME` from the spacing are kept, so that these voxels stay where they are.

    Parameters
    ----------
    spacing: side of the voxels in mm; by default the smallest of the first stack.

    Raises
    ------
    InputError: it would not be finer, or the stacks are of CT and MR.
    """
    geometry = stacks[0].geometry
    spacing = spacing or round(min(geometry.spacing), 4)
    require_thick(stacks, spacing)
    return geometry.with_spacing([s if abs(s / spacing - 1) < SAME else spacing for s in geometry.spacing])


def fitted(volume: Volume, grid: Geometry, thickness: float | None) -> tuple[NDArray[np.float32], StackFit]:
    """Values of a stack, in the order of the axes of the grid, and its operator.

    A stack whose axes are oblique to the grid is interpolated first, to its own voxel sizes along the axes of the grid.
    """
    if not is_aligned(grid, volume.geometry):
        volume = resample_to(volume, _along(grid, volume), order=3)
    acquired = Acquisition(grid, volume.geometry, thickness)
    values = volume.array.transpose(np.argsort(acquired.order))
    if not all(weights.nnz for weights in acquired.weights):
        raise InputError("A further stack lies beside the first one; give stacks of the same part of one patient.")
    fit = StackFit(tuple(AxisFit.of(weights.toarray()) for weights in acquired.weights))
    return np.ascontiguousarray(values, np.float32), fit


def thick_axes(fits: Sequence[StackFit], stacks: Sequence[NDArray], grid: Geometry) -> tuple[float, float, float]:
    """Largest distance of slices along each axis of the grid, in its voxels; 1 where none is thick."""
    ratios = [[n / m if n > m else 1.0 for n, m in zip(grid.shape, stack.shape, strict=True)] for stack in stacks]
    return tuple(max(ratios[number][axis] for number in range(len(stacks))) for axis in range(3))


def matched(stacks: Sequence[NDArray], fits: Sequence[StackFit], is_ct: bool) -> list[NDArray[np.float32]]:
    """The stacks with the brightness of the first one, where both show something (MR only).

    Raises InputError: too little in common, or stacks that do not look alike.
    """
    first = fits[0].smoothest(stacks[0])
    made = [stacks[0]]
    for number, (stack, fit) in enumerate(zip(stacks[1:], fits[1:], strict=True), 2):
        both = (fits[0].coverage * fit.coverage) > 0
        if both.mean() < LEAST_COMMON * (fits[0].coverage > 0).mean():
            raise InputError(
                f"Stack {number} shows {both.mean():.0%} of the first one; give stacks of the same part of one patient."
            )
        a, b = first[both], fit.smoothest(stack)[both]
        if np.corrcoef(a, b)[0, 1] < ALIKE:
            raise InputError(
                f"Stack {number} does not look like the first one where both show the patient; give stacks of one "
                "patient and contrast, or align them (command line: --register, Python: register=True)."
            )
        gain = 1.0 if is_ct else float(np.median(a[a > a.mean()]) / max(np.median(b[b > b.mean()]), 1e-6))
        made.append(stack * np.float32(gain))
    return made


def registered(volume: Volume, target: Volume) -> Volume:
    """A stack moved rigidly, without interpolation, onto a target by mutual information (SimpleITK).

    The registration follows Mattes et al. 2003 (doi:10.1109/TMI.2003.809072), in two resolutions from the headers'
    positions.
    """
    import SimpleITK

    from MedGenLib.imaging.volume import to_sitk

    fixed, moving = to_sitk(target), to_sitk(volume)
    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, SimpleITK.Euler3DTransform(), SimpleITK.CenteredTransformInitializerFilter.GEOMETRY
    )
    start.SetTranslation((0.0, 0.0, 0.0))
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    matrix = np.eye(4)  # LPS of the target -> LPS of the stack
    matrix[:3, :3] = np.array(start.GetMatrix()).reshape(3, 3)
    center, translation = np.array(start.GetCenter()), np.array(start.GetTranslation())
    matrix[:3, 3] = center + translation - matrix[:3, :3] @ center
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return replace(volume, affine=flip @ np.linalg.inv(matrix) @ flip @ volume.affine)


def _along(grid: Geometry, volume: Volume) -> Geometry:
    """The smallest grid along the axes of another one that covers a volume with its voxel sizes."""
    order = np.abs(grid.direction.T @ volume.direction).argmax(axis=1)
    spacing = np.array(volume.spacing)[order]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape])).reshape(3, -1)
    places = volume.affine[:3, :3] @ corners + volume.origin[:, None]
    along = grid.direction.T @ places
    low, high = along.min(axis=1), along.max(axis=1)
    shape = np.ceil((high - low) / spacing - 1e-6).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = grid.direction * spacing
    affine[:3, 3] = grid.direction @ ((low + high) / 2 - spacing * (shape - 1) / 2)
    return Geometry(tuple(shape), affine)
