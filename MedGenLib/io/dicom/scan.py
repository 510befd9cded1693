"""Finding the image series among DICOM files, and what is passed over.

A file is a slice (or, multi-frame, several), an object of another kind, which is passed over, or broken.
A broken file whose series is known stops the reading of that series; one that says nothing, because
it is empty or its link is dead, is named in a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError, listed
from MedGenLib.io.dicom.headers import integer, numbers, optional_number, read_raw, text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = (
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "NumberOfFrames",
    "SOPClassUID",
    "SOPInstanceUID",
)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SLICES = tuple(_STORAGE + end for end in ("2", "4", "128"))
"""CT, MR and PET Image Storage."""
_FRAMES = tuple(_STORAGE + end for end in ("2.1", "2.2", "4.1", "4.4", "128.1", "130"))
"""Enhanced and Legacy Converted CT, MR and PET Image Storage."""
_OTHERS = ("RTDOSE", "RTIMAGE", "SEG", "RWV", "REG", "PR", "SR", "KO", "DOC", "M3D")
"""Modalities that may have rows and a position, but are no slices of a scan."""
_NAMED = 3


@dataclass(frozen=True)
class ImageHeader:
    """Geometry of one image, from the header of its file."""

    path: Path
    position: np.ndarray
    row: np.ndarray  # LPS direction of increasing column index
    column: np.ndarray  # LPS direction of increasing row index
    size: tuple[int, int]  # columns, rows
    pixel: tuple[float, float]  # spacing in mm between columns, between rows
    thickness: float | None
    instance: tuple[str, str]  # SOP class UID, SOP instance UID
    frame: int | None = None  # of a multi-frame file, from 0

    @property
    def place(self) -> str:
        """The file, and which frame of it."""
        return f"{self.path}" if self.frame is None else f"{self.path}, frame {self.frame + 1}"

    @property
    def normal(self) -> np.ndarray:
        """LPS unit vector across the slice."""
        normal = np.cross(self.row, self.column)
        return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class Series:
    """One image series of a folder.

    Attributes
    ----------
    uid: SeriesInstanceUID.
    description: SeriesDescription, or "".
    modality: Modality of DICOM: "CT", "MR", ...
    slices: number of images.
    """

    uid: str
    description: str
    modality: str
    slices: int
    images: tuple[ImageHeader, ...] = field(repr=False, compare=False, default=())


@dataclass(frozen=True)
class Passed:
    """A file without a usable image.

    Attributes
    ----------
    reason: what it is: "RTDOSE", or "is empty".
    uid: its SeriesInstanceUID, or "".
    is_broken: it should be an image or could be one.
    """

    path: Path
    reason: str
    uid: str = ""
    is_broken: bool = True


@dataclass(frozen=True)
class FolderScan:
    """The series among DICOM files, in the order of their numbers, and the files that were passed over."""

    series: tuple[Series, ...]
    passed: tuple[Passed, ...]

    @cached_property
    def broken(self) -> list[Passed]:
        return [entry for entry in self.passed if entry.is_broken]

    def require_whole(self, uid: str) -> None:
        """Raise InputError if a broken file belongs to the series, or to no series while there is none."""
        for entry in self.broken:
            if entry.uid == uid or not self.series:
                more = f" (and {len(self.broken) - 1} more files)" if len(self.broken) > 1 else ""
                raise InputError(f"{entry.path} {entry.reason}{more}; copy or export it again, or remove it.")

    def notes(self, uid: str) -> list[str]:
        """Sentences on the files that were passed over."""
        sentences = []
        lost = [entry for entry in self.broken if not entry.uid or entry.uid == uid]
        if lost:
            sentences.append(
                f"{_counted(len(lost))} passed over ({listed((f'{e.path.name} {e.reason}' for e in lost), _NAMED)}); "
                "if slices of the series are among them, copy it again."
            )
        others = [entry for entry in self.passed if not entry.is_broken]
        if others:
            texts = listed((f"{e.path.name}: {e.reason}" for e in others), _NAMED)
            sentences.append(f"{_counted(len(others))} passed over as no slices of a scan ({texts}).")
        return sentences


def _counted(count: int) -> str:
    return "1 file was" if count == 1 else f"{count} files were"


def list_series(folder: str | Path | Sequence[str | Path]) -> list[Series]:
    """Image series in a folder and its subfolders, or among these files, sorted by series number.

    Files that are not DICOM, and DICOM objects that are no slices (reports, structures, doses), are passed over.

    Raises
    ------
    InputError: a DICOM file is damaged.
    """
    return list(scan(folder).series)


def scan(folder: str | Path | Sequence[str | Path]) -> FolderScan:
    """Image series as in `list_series`, with the files that were passed over."""
    files = _files(folder)
    found: dict[str, list[tuple[Dataset, list[ImageHeader]]]] = {}
    passed, strangers, suffixes = [], [], set()
    for path in files:
        entry = _understood(path)
        if entry is None:
            strangers.append(path)
        elif isinstance(entry, Passed):
            passed.append(entry)
        else:
            found.setdefault(text(entry[0], "SeriesInstanceUID"), []).append(entry)
            suffixes.add(path.suffix.lower())
    passed += [
        Passed(path, "is no DICOM file") for path in strangers if path.suffix and path.suffix.lower() in suffixes
    ]
    series = []
    for uid, entries in found.items():
        first = entries[0][0]
        images = tuple(image for _, several in entries for image in several)
        facts = uid, text(first, "SeriesDescription"), text(first, "Modality"), len(images), images
        series.append(((integer(first, "SeriesNumber"), uid), Series(*facts)))
    return FolderScan(tuple(entry for _, entry in sorted(series, key=lambda pair: pair[0])), tuple(passed))


def _files(folder: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(folder, (str, Path)):
        return [Path(path) for path in folder]
    # A "._" file holds what macOS keeps beside a file on foreign disks.
    paths = (path for path in Path(folder).rglob("*") if not path.name.startswith("._"))
    return sorted(path for path in paths if path.is_file() or (path.is_symlink() and not path.exists()))


def _understood(path: Path) -> tuple[Dataset, list[ImageHeader]] | Passed | None:
    """The header and the images of a file, why it has none, or None if it is not DICOM."""
    if not path.exists():
        return Passed(path, "is a link to a file that does not exist" if path.is_symlink() else "does not exist")
    if path.stat().st_size == 0:
        return Passed(path, "is empty")
    header = read_raw(path, _TAGS)
    if header is None:
        return Passed(path, "holds zeros only") if _begins_with_zeros(path) else None
    uid, modality, kind = (text(header, key) for key in ("SeriesInstanceUID", "Modality", "SOPClassUID"))
    is_slice = kind in _SLICES or not kind and modality in ("", "CT", "MR", "PT")
    if modality in _OTHERS or not is_slice and "Rows" not in header and kind not in _FRAMES:
        return Passed(path, modality or "without an image", uid, is_broken=False)
    try:
        if kind in _FRAMES:
            return header, _frames(path, header)
        if integer(header, "NumberOfFrames") > 1:
            return Passed(path, f"multi-frame {modality}".strip(), uid, is_broken=False)
        return header, [_image(header, path)]
    except _Incomplete as error:
        if is_slice or kind in _FRAMES:
            return Passed(path, str(error), uid)
        return Passed(path, f"{modality or 'image'} without a place in the patient", uid, is_broken=False)
    except ValueError as error:
        return Passed(path, str(error), uid)


class _Incomplete(ValueError):
    """An attribute that an image needs is absent."""


def _begins_with_zeros(path: Path) -> bool:
    with open(path, "rb") as stream:
        start = stream.read(512)
    return len(start) == 512 and not any(start)


def _needed(header: Dataset, keyword: str, count: int) -> np.ndarray:
    values = numbers(header, keyword, count)
    if values is None:
        raise _Incomplete(f"has no {keyword}")
    return np.array(values)


def _image(header: Dataset, path: Path, frame: int | None = None) -> ImageHeader:
    """Geometry from the attributes of a single-frame image; raises ValueError if they cannot be used."""
    if not text(header, "SeriesInstanceUID"):
        raise _Incomplete("has no SeriesInstanceUID")
    size = integer(header, "Columns"), integer(header, "Rows")
    if min(size) < 1:
        raise _Incomplete("has no Rows and Columns")
    position = _needed(header, "ImagePositionPatient", 3)
    orientation = _needed(header, "ImageOrientationPatient", 6)
    between_rows, between_columns = _needed(header, "PixelSpacing", 2)
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, 0.01) or abs(row @ column) > 0.01:
        raise ValueError("has no valid image position and orientation")
    if min(between_rows, between_columns) <= 0:
        raise ValueError(
            f"claims a pixel spacing of {between_rows:g} x {between_columns:g} mm, but both need a value above 0"
        )
    thickness = optional_number(header, "SliceThickness")
    return ImageHeader(
        path,
        position,
        row / lengths[0],
        column / lengths[1],
        size,
        (float(between_columns), float(between_rows)),
        thickness if thickness and thickness > 0 else None,
        (text(header, "SOPClassUID"), text(header, "SOPInstanceUID")),
        frame,
    )


def _frames(path: Path, header: Dataset) -> list[ImageHeader]:
    """Geometry of every frame of an enhanced image, from its functional groups."""
    from pydicom.dataset import Dataset

    groups = read_raw(path, _FUNCTIONAL_GROUPS)
    try:
        shared = (groups.get(_FUNCTIONAL_GROUPS[0]) or [Dataset()])[0]
        frames = list(groups.get(_FUNCTIONAL_GROUPS[1]) or [])
    except Exception:  # pydicom raises many types of exceptions for invalid values
        frames = []
    if not frames:
        raise _Incomplete("has no frames with a place in the patient")
    images = []
    for number, own in enumerate(frames):
        flat = Dataset({tag: header.get_item(tag) for tag in list(header.keys())})
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            for item in (own.get(keyword) or shared.get(keyword) or [])[:1]:
                flat.update(item)
        images.append(_image(flat, path, number))
    return images


def choose(found: FolderScan, wanted: str | None, subject: str) -> Series:
    """The only series, or the one with this number (from 1) or end of its UID.

    Parameters
    ----------
    subject: start of an error sentence, such as "The folder scans".

    Raises
    ------
    InputError: no series, several without a choice, no single match, or broken files in the chosen one.
    """
    chosen = _chosen(found, wanted, subject)
    found.require_whole(chosen.uid)
    return chosen


def _chosen(found: FolderScan, wanted: str | None, subject: str) -> Series:
    all_series = found.series
    if not all_series:
        found.require_whole("")
        others = listed((f"{entry.path.name}: {entry.reason}" for entry in found.passed), _NAMED)
        raise InputError(
            f"{subject} holds no DICOM image series{f', only other files ({others})' if others else ''}; give the "
            "folder with the slices of one series, or an image file."
        )
    if wanted is None and len(all_series) == 1:
        return all_series[0]
    known = _shown(all_series)
    if wanted is None:
        raise InputError(
            f"{subject} holds {len(all_series)} series ({known}); choose one with --series and its number or UID."
        )
    wanted = str(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(all_series):
        return all_series[int(wanted) - 1]
    matches = [s for s in all_series if s.uid.endswith(wanted)]
    if len(matches) != 1:
        raise InputError(f'{subject} has no single series "{wanted}"; it holds {known}.')
    return matches[0]


_SHOWN = 12
"""Series that a sentence lists."""


def _shown(all_series: Sequence[Series]) -> str:
    shown = [
        f'{number} = {s.modality} "{s.description}", {s.slices} slices, {s.uid}'
        for number, s in enumerate(all_series[:_SHOWN], start=1)
    ]
    more = len(all_series) - _SHOWN
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
