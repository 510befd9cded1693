"""Reading DICOM Segmentation objects as label maps with the library highdicom, and finding RT structure sets."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.colors import hex_color
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.dicom.contours import read_contours
from MedGenLib.io.dicom.headers import read_tags

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CONTOURS = "RTSTRUCT"
_OWN = re.compile(r"Label (\d{1,5}) of the mask")
"""Segment Description of the segments that MedGen writes."""


def find_mask(path: Path) -> Path:
    """The DICOM Segmentation or RT structure set that a path means: the file itself, or the only one in a folder.

    Raises
    ------
    InputError: there is none, or several, or the file is another object.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    headers = [(file, read_tags(file, ["Modality"])) for file in files]
    kinds = [(file, str(header.get("Modality", ""))) for file, header in headers if header is not None]
    masks = [file for file, kind in kinds if kind in ("SEG", _CONTOURS)]
    if len(masks) == 1:
        return masks[0]
    if len(masks) > 1:
        raise InputError(
            f"{path} holds {len(masks)} DICOM segmentations and structure sets; give the file of one of them."
        )
    raise InputError(
        f"{path} holds no DICOM segmentation or structure set, which a mask in DICOM has to be; give that, or a label "
        "map in one file."
    )


def read_mask(path: Path) -> LabelMap:
    """The segments as labels, with their names and colors.

    Segments that MedGen wrote have their labels again; others are numbered. Where segments overlap, the later counts.

    Raises
    ------
    InputError: the file cannot be read, or its frames are not slices of one volume.
    """
    if str(read_tags(path, ["Modality"]).get("Modality", "")) == _CONTOURS:
        return read_contours(path)
    try:
        import highdicom as hd
    except ImportError:
        raise InputError(
            f"{path} is a DICOM segmentation, and reading it needs the Python package highdicom; install it, or save "
            "the labels as .nrrd."
        ) from None
    try:
        # From memory: a damaged length would have so many bytes reserved for it.
        found = hd.seg.segread(BytesIO(path.read_bytes()))
        numbers = list(found.segment_numbers)
        descriptions = [found.get_segment_description(number) for number in numbers]
        values = _values(numbers, descriptions)
        labels, overlap, affine = None, 0, np.eye(4)
        for number, value in zip(numbers, values, strict=True):
            volume = found.get_volume(
                segment_numbers=[number], combine_segments=True, rescale_fractional=False, allow_missing_positions=True
            )
            inside = np.asarray(volume.array) > 0
            affine = volume.affine
            labels = np.zeros(inside.shape, np.min_scalar_type(max(values))) if labels is None else labels
            overlap += int(np.count_nonzero(labels[inside]))
            labels[inside] = value
    except Exception as error:  # highdicom and pydicom raise many types of exceptions for invalid objects
        if isinstance(error, MemoryError):
            raise
        raise InputError(
            f"{path} cannot be read as a segmentation of one volume ({' '.join(str(error).split())[:120]}); export it "
            "again, or save the labels as .nrrd."
        ) from None
    names = {value: str(item.segment_label) for value, item in zip(values, descriptions, strict=True)}
    colors = {value: color for value, item in zip(values, descriptions, strict=True) if (color := _color(item))}
    notes = (f"{overlap} voxels of overlapping segments of {path.name} belong to the later one.",) if overlap else ()
    # highdicom indexes (slice, row, column) and gives positions in LPS.
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
    return LabelMap(labels.transpose(2, 1, 0), ras, names, notes, colors=colors)


def _color(segment: Dataset) -> str | None:
    from highdicom.color import CIELabColor

    stored = segment.get("RecommendedDisplayCIELabValue")
    try:
        return None if stored is None else hex_color(CIELabColor.from_dicom_value(stored).to_rgb(), 255)
    except (TypeError, ValueError):  # not three numbers in the range
        return None


def _values(numbers: list[int], descriptions: list[Any]) -> list[int]:
    """Labels of the segments: those that MedGen stored, else the numbers of the segments."""
    stored = [_OWN.fullmatch(str(item.get("SegmentDescription", ""))) for item in descriptions]
    values = [int(match[1]) for match in stored if match]
    return values if len(set(values)) == len(numbers) and min(values) > 0 else numbers
