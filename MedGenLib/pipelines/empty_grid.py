"""The grid of an image generated from a size and a spacing. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import read_label_map
from MedGenLib.packages.manifest import Manifest


def wanted_grid(
    mask: str | Path | LabelMap | None, size: Sequence[int] | None, spacing: Sequence[float] | None, manifest: Manifest
) -> LabelMap | None:
    """An empty label map on the grid for a model without a mask.

    Parameters
    ----------
    mask: mask or image with the grid; its labels are ignored.
    size, spacing: alternatively, voxels and mm from left to right, posterior to anterior and inferior to superior. The
        origin is the center of the image.

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
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for n, s in zip(size, spacing, strict=True)]
    return LabelMap(np.zeros([int(n) for n in size], np.uint8), affine)
