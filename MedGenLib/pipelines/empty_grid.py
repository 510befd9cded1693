"""The grid of an image generated from a size and a spacing. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import read_label_map
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.fixed_grid import centered_geometry


def wanted_grid(
    mask: str | Path | LabelMap | None, size: Sequence[int] | None, spacing: Sequence[float] | None, manifest: Manifest
) -> LabelMap | None:
    """An empty label map on the grid for a model without a mask.

    Parameters
    ----------
    mask: mask or image with the grid; its labels are ignored.
    size, spacing: alternatively, voxels and mm from left to right, posterior to anterior and inferior to superior. The
        origin is the center of the image. A model with one grid needs neither.

    Returns
    -------
    None if the model has a mask.

    Raises
    ------
    InputError: no grid is given, or both mask and size; a size or spacing for a model with a mask.
    """
    if manifest.input.kind != "none":
        if size is not None or spacing is not None:
            raise InputError(f"The model '{manifest.name}' takes its grid from the mask; leave size and spacing out.")
        if mask is None:
            raise InputError(f"The model '{manifest.name}' needs a mask; give one.")
        return None
    if manifest.settings.grid is not None:
        if mask is not None:
            raise InputError(f"The model '{manifest.name}' makes images without a mask; leave it out.")
        return _of_model(size, spacing, manifest)
    if mask is not None and (size is not None or spacing is not None):
        raise InputError("The grid is given twice; give either a mask or a size and spacing.")
    if mask is not None:
        labels = mask if isinstance(mask, LabelMap) else read_label_map(mask)
        return LabelMap(np.zeros(labels.shape, np.uint8), labels.affine)
    return _centered(size, (1.0, 1.0, 1.0) if spacing is None else spacing, manifest)


def _centered(size: Sequence[int] | None, spacing: Sequence[float], manifest: Manifest) -> LabelMap:
    if size is None:
        raise InputError(
            f"The model '{manifest.name}' has no mask; give the size of the image in voxels and "
            "its spacing in mm (--size 256 256 128 --spacing 1 1 1)."
        )
    return _empty(size, spacing)


def _of_model(size: Sequence[int] | None, spacing: Sequence[float] | None, manifest: Manifest) -> LabelMap:
    """The grid of the model where nothing else is wanted, or one of its extent."""
    grid, native = manifest.settings.grid, manifest.spacing.native
    spacing = (native,) * 3 if spacing is None else spacing
    return _empty(
        [max(1, round(n * native / s)) for n, s in zip(grid, spacing, strict=True)] if size is None else size, spacing
    )


def _empty(size: Sequence[int], spacing: Sequence[float]) -> LabelMap:
    geometry = centered_geometry(tuple(size), tuple(spacing))
    return LabelMap(np.zeros(geometry.shape, np.uint8), geometry.affine)
