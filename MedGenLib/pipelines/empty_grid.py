"""The grid of an image that is made of nothing but a size and a spacing. No torch."""

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
    """An empty label map on the grid that a model without a mask shall fill.

    Parameters
    ----------
    mask: anything whose grid is wanted; its labels are not looked at.
    size, spacing: instead of it, voxels and mm from left to right, back to front and foot to head.
        The image's middle is the origin.

    Returns
    -------
    None where the model takes a mask.

    Raises
    ------
    InputError: nothing says which grid is wanted, or two things do; a size or spacing for a model
        that takes a mask.
    """
    if manifest.input.kind != "none":
        if size is not None or spacing is not None:
            raise InputError(f"The model '{manifest.name}' takes its grid from the mask; leave size and spacing out.")
        if mask is None:
            raise InputError(f"The model '{manifest.name}' needs a mask; name one.")
        return None
    if mask is not None and (size is not None or spacing is not None):
        raise InputError("Give either a mask, whose grid is taken, or a size and spacing.")
    if mask is not None:
        labels = mask if isinstance(mask, LabelMap) else read_label_map(mask)
        return LabelMap(np.zeros(labels.shape, np.uint8), labels.affine)
    return _centred(size, (1.0, 1.0, 1.0) if spacing is None else spacing, manifest)


def _centred(size: Sequence[int] | None, spacing: Sequence[float], manifest: Manifest) -> LabelMap:
    if size is None:
        raise InputError(
            f"The model '{manifest.name}' takes no mask; give the size of the image in voxels and "
            "its spacing in mm (--size 256 256 128 --spacing 1 1 1)."
        )
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for n, s in zip(size, spacing, strict=True)]
    return LabelMap(np.zeros([int(n) for n in size], np.uint8), affine)
