"""Resampling with SimpleITK: to another voxel size, and onto the grid of another image.

A model runs at its own spacing, and its output has to come back exactly onto the user's grid:

    coarse = resample(image, (2, 2, 2))
    ...
    result = resample_to(output, image.geometry)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedGenLib.imaging.volume import Geometry, Grid, LabelMap, Volume, lps_from_affine, to_sitk

_FWHM_PER_SIGMA = 2.3548  # 2 sqrt(2 ln 2)


def resample(image: Grid, spacing: Sequence[float], order: int = 1) -> Grid:
    """The image at another voxel size, same center, covering at least the same field of view.

    Parameters
    ----------
    spacing: voxel size along i, j, k in mm. An axis of one voxel is left alone.
    order: 0 nearest, 1 linear, 3 cubic B-spline. A LabelMap always takes the nearest label.

    An image is smoothed first along axes that become coarser, so that detail finer than the new
    voxels does not come back as false texture.
    """
    target = image.geometry.with_spacing(spacing)
    if order and isinstance(image, Volume):
        image = _smooth(image, target)
    return resample_to(image, target, order)


def resample_to(
    image: Grid, reference: Geometry | Volume | LabelMap, order: int = 1, fill: float | None = None
) -> Grid:
    """The image on the grid of `reference`, voxel for voxel.

    Parameters
    ----------
    reference: a grid, or an image whose grid is meant.
    order: as in `resample`.
    fill: value where the image does not reach; its minimum (0 in a LabelMap) when None.
    """
    import SimpleITK

    target = reference if isinstance(reference, Geometry) else reference.geometry
    if image.geometry.is_close(target, tolerance=1e-6):
        return replace(image, affine=target.affine)
    labels = isinstance(image, LabelMap)
    if fill is None:
        fill = 0 if labels else float(image.array.min())
    methods = {0: SimpleITK.sitkNearestNeighbor, 1: SimpleITK.sitkLinear, 3: SimpleITK.sitkBSpline}
    order = 0 if labels else order
    if order not in methods:
        raise ValueError(f"order is {order}, but 0, 1 and 3 are the ones there are")
    if order == 3 and min(image.shape) < 4:
        order = 1  # a cubic spline needs four samples
    spacing, origin, direction = lps_from_affine(target.affine)
    result = SimpleITK.Resample(
        to_sitk(image),
        target.shape,
        SimpleITK.Transform(),
        methods[order],
        origin.tolist(),
        spacing.tolist(),
        direction.ravel().tolist(),
        float(fill),
    )
    array = SimpleITK.GetArrayFromImage(result).transpose(2, 1, 0)
    return replace(image, array=np.ascontiguousarray(array), affine=target.affine)


def _smooth(volume: Volume, target: Geometry) -> Volume:
    """Blur so that a point becomes as wide (FWHM) as a voxel of the target."""
    from scipy.ndimage import gaussian_filter

    ratio = np.divide(target.spacing, volume.spacing).clip(1.0)
    sigma = np.sqrt(ratio**2 - 1) / _FWHM_PER_SIGMA
    if sigma.max() < 0.1:
        return volume
    return replace(volume, array=gaussian_filter(volume.array.astype(np.float32), sigma, mode="nearest"))
