"""Inputs of an insertion: the image, its tissues, a painted lesion, names of organs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.modality import hu_problem, modality_of, same_modality
from MedGenLib.imaging.volume import LabelMap, Volume, as_stored, check_finite
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.vocabulary import table
from MedGenLib.packages.manifest import Manifest


def read_image(image: str | Path | Volume, manifest: Manifest) -> Volume:
    """The image, with the modality that the model makes.

    Raises
    ------
    InputError: it cannot be read, has voxels that are not finite, or is of another modality.
    """
    volume = image if isinstance(image, Volume) else as_stored(read_volume(image))
    check_finite(volume)
    modality, made = modality_of(volume), manifest.output.modality
    if modality is not None and not same_modality(modality, made):
        raise InputError(
            f"The image is {modality}, but the model '{manifest.name}' makes {made}; choose a "
            "model for such images (medgen models list)."
        )
    if made == "CT" and (problem := hu_problem(volume)):
        raise InputError(problem)
    return volume.with_array(volume.array, made, manifest.output.unit)


def read_painted(lesion: str | Path | LabelMap, volume: Volume) -> NDArray[np.bool_]:
    """A painted lesion (i, j, k).

    Raises
    ------
    InputError: it is empty, or lies on another grid than the image.
    """
    mask = lesion if isinstance(lesion, LabelMap) else read_label_map(lesion)
    mask = extended(mask, volume.geometry)
    _require_grid(mask, volume, "mask of the lesion")
    if not mask.array.any():
        raise InputError("The mask of the lesion is empty; paint it first.")
    return mask.array > 0


def read_tissues(
    labels: str | Path | LabelMap | None, volume: Volume, manifest: Manifest, device: str
) -> tuple[LabelMap, str]:
    """Labels on the grid of the image or a part of it, and their origin in words.

    Raises
    ------
    InputError: other grid, or none are given and the model cannot find its labels in an image.
    """
    if labels is not None:
        tissues = labels if isinstance(labels, LabelMap) else read_label_map(labels)
        _require_grid(extended(tissues, volume.geometry), volume, "label volume")
        return tissues, "given"
    thresholds = manifest.statistics.resegment and manifest.output.unit == "HU"
    if not thresholds and not manifest.statistics.segmenter:
        raise InputError(
            f"The model '{manifest.name}' cannot find its labels in an image; give a label volume with it (--labels)."
        )
    from MedGenLib.segmentation.segmenters import segmenter

    return segmenter(manifest.name, device)(volume), f"found by {manifest.name}"


def names_of(tissues: LabelMap, mapping: Mapping[int | str, int | str] | str | None) -> dict[int, str]:
    """Names of the labels of a segmentation: its own, else those of the table that its numbers come from."""
    source = mapping if isinstance(mapping, str) else dict(mapping or {}).get("table")
    known = table(str(source)).names if source else {}
    return {**known, **tissues.names}


def _require_grid(mask: LabelMap, volume: Volume, what: str) -> None:
    if mask.geometry.is_close(volume.geometry):
        return
    raise InputError(
        f"The {what} ({mask.geometry}) lies on another grid than the image ({volume.geometry})"
        f"{volume.geometry.apart(mask.geometry)}; resample it onto the image."
    )
