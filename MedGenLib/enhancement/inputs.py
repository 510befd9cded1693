"""Reading of the images of an enhancement, and what is refused before the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import PICTURE, hu_problem, looks_like_labels, modality_family, modality_of
from MedGenLib.imaging.volume import Volume, by_axis, check_finite
from MedGenLib.io.pictures import read_image

NEARLY_CUBIC = 1.25
"""Ratio of the largest to the smallest side of a voxel below which there is nothing to refine."""
FURTHER = ("second", "third")
"""Options with further stacks."""
OF_MR = {"debias": "uneven brightness of coils", "deghost": "ghosts of k-space"}
"""Tasks for artifacts that only MR images have."""


def read_any(
    path: str | Path, series: str | None = None, modality: str | None = None, hu_offset: float | None = None
) -> Volume:
    """`read_volume`, also of pictures and single DICOM images; those that are neither CT nor MR are a `PICTURE`."""
    return read_image(path, modality, series, hu_offset, unstated=PICTURE)


def read_stacks(image: str | Path | Volume, options: Mapping[str, Any]) -> list[Volume]:
    """The images of a run, the first one first, in float32 and with their modality.

    Raises InputError: an image that the task cannot use.
    """
    given = [image, *(options[name] for name in FURTHER if options[name] is not None)]
    if len(given) > 1 and options["task"] != "superres":
        raise InputError(f"The task {options['task']} takes one image; give further stacks with superres only.")
    volumes = [one if isinstance(one, Volume) else read_any(one) for one in given]
    return [_usable(volume, options["task"]) for volume in volumes]


def _usable(volume: Volume, task: str) -> Volume:
    check_finite(volume)
    if looks_like_labels(volume):
        raise InputError("The image has so few values that it looks like a mask; give a CT or an MR image.")
    modality = modality_of(volume)
    if modality is None:
        raise InputError(
            "The image is neither CT in HU nor MR by its values; state what it is (command line: --modality, Python: "
            "read_volume(..., modality=...))."
        )
    volume = replace(volume, modality=modality, unit="HU" if modality == "CT" else volume.unit)
    if modality == "CT" and (problem := hu_problem(volume)):
        raise InputError(problem)
    require_suits(modality, task)
    if float(np.ptp(volume.array)) == 0:
        raise InputError("All voxels of the image have the same value; give an image of a patient.")
    return volume.with_array(volume.array.astype(np.float32))


def require_suits(modality: str | None, task: str) -> None:
    """Raise InputError for a task that an image of this modality does not need."""
    if modality == PICTURE and task != "denoise":
        raise InputError(
            "The image is a picture or radiograph, of which only noise can be removed; choose the task denoise, or "
            "give CT or MR slices."
        )
    if modality == "CT" and (artifact := OF_MR.get(task)):
        raise InputError(f"A CT has no {artifact}; give an MR image, or remove the noise of this one.")


def require_thick(stacks: Sequence[Volume], spacing: float) -> None:
    """Raise InputError unless the stacks can be made finer, by voxels of this size in mm."""
    first = stacks[0]
    if any(1 in stack.shape for stack in stacks):
        raise InputError("A single slice has no neighbors to refine between; give stacks of at least two slices.")
    if len(stacks) == 1 and max(first.spacing) < NEARLY_CUBIC * spacing:
        raise InputError(
            f"The image has voxels of {by_axis(first.spacing, '.3g')} mm, so that cubes of {spacing:.3g} mm are not "
            "finer; give thick slices, or smaller cubes."
        )
    families = {modality_family(stack.modality) for stack in stacks}
    if len(families) > 1:
        raise InputError("The stacks are CT and MR images; give stacks of one modality and contrast.")
