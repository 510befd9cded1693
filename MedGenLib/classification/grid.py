"""An image on the grid of a classifier, and in its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedGenLib.checks.input import check_image
from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import PICTURE
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import Volume, by_axis
from MedGenLib.packages.manifest import Manifest

CT_WINDOWS = ((0.0, 1000.0), (40.0, 200.0))
"""Level and half width in HU of the channels of a CT: all tissues, and the usual window of soft tissue."""
PERCENTILES = (0.5, 99.5)
"""Limits of an image whose unit has no meaning."""
CHANNELS = {"hounsfield": len(CT_WINDOWS), "relative": 1}
LEAST_PIXELS = 8


def on_grid(image: Volume, shape: Sequence[int], spacing: float, whole: bool) -> Volume:
    """The image with `shape` voxels along its own axes nearest to RAS, about the same center.

    Parameters
    ----------
    spacing: side of a voxel in mm. whole: the image is scaled to fill the grid instead.
    """
    order = Reorientation.to(image.geometry, "RAS")
    if whole:
        spacing = max(side / n for side, n in zip(order.axes(image.field_of_view), shape, strict=True) if n > 1)
    coarse = resample(replace(image, array=image.array.astype(np.float32)), (spacing,) * 3)
    wanted = np.empty(3, int)
    wanted[list(order.order)] = shape
    grid = coarse.geometry.moved((np.array(coarse.shape) - wanted) // 2, wanted)
    return resample_to(coarse, grid, fill=float(image.array.min()))


def network_input(image: Volume, placed: Volume, name: str) -> np.ndarray:
    """(channels, axes of more than one voxel along RAS) in -1..1; `placed` is `image` by `on_grid`."""
    values = Reorientation.to(placed.geometry, "RAS").apply(placed.array).squeeze()
    if name == "hounsfield":
        channels = [(values - level) / half for level, half in CT_WINDOWS]
    else:
        low, high = np.percentile(image.array, PERCENTILES)
        channels = [2 * (values - low) / max(float(high - low), 1e-6) - 1]
    return np.clip(channels, -1, 1).astype(np.float32)


def thin_axes(image: Volume) -> tuple[bool, ...]:
    """Whether the image is a single slice across each of the RAS axes."""
    return tuple(n == 1 for n in Reorientation.to(image.geometry, "RAS").axes(image.shape))


def notes_on(image: Volume, manifest: Manifest) -> list[str]:
    """What is doubtful in an image for a classifier; InputError if it cannot be classified."""
    name, needed = manifest.name, manifest.input.modality
    wanted = tuple(n == 1 for n in manifest.settings.shape)
    if thin_axes(image) != wanted:
        kind = "single slices or pictures of one plane" if any(wanted) else "volumes"
        raise InputError(
            f"The model '{name}' reads {kind}, but the image has {by_axis(image.shape)} voxels; give another image or "
            "another model."
        )
    if any(1 < n < LEAST_PIXELS for n in image.shape):
        raise InputError(f"The image has only {by_axis(image.shape)} voxels; give a larger one.")
    if needed == PICTURE:
        if image.modality not in (None, PICTURE):
            raise InputError(f"The image is {image.modality}, but the model '{name}' reads pictures; give one.")
        if np.ptp(image.array) == 0:
            raise InputError("All pixels of the image are the same; give another image.")
        return list(image.notes)
    findings = check_image(image, manifest)
    if wrong := next((finding for finding in findings if finding.level == "error"), None):
        raise InputError(wrong.sentence)
    return [*image.notes, *(finding.sentence for finding in findings)]
