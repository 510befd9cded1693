"""Reading a DICOM image series from a folder.

Names follow DICOM PS3.3 C.7.6.2 (Image Plane Module): the image position is that of the first pixel
of a slice, in LPS mm; the image orientation holds the directions of increasing column and row index.
The array of the volume is indexed (i = column, j = row, k = slice), with k increasing along the
normal of the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume, affine_from_lps
from MedGenLib.io.system import plan_memory, silent_stderr

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
_SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal have the same position."""
_EVEN_GAP = 0.01
"""Relative deviation from the median up to which gaps are even; other series are interpolated."""
_LOST_GAP = 3.0
"""A gap of more than this times the median means missing slices, which are not interpolated."""
_UPRIGHT = 1e-3
"""In-plane shift per mm along the normal (0.06 degrees) above which slices are tilted."""
_ORIENTATION_TOLERANCE = 1e-3
_LOWEST_HU = -1024.0
"""Lower CT values are padding outside the reconstruction circle."""


@dataclass(frozen=True)
class ImageHeader:
    """Geometry of the image in one file, from its header."""

    path: Path
    position: np.ndarray
    row: np.ndarray  # LPS direction of increasing column index
    column: np.ndarray  # LPS direction of increasing row index
    size: tuple[int, int]  # columns, rows
    pixel: tuple[float, float]  # spacing in mm between columns, between rows
    thickness: float | None
    instance: tuple[str, str]  # SOP class UID, SOP instance UID

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


def list_series(folder: str | Path | Sequence[str | Path]) -> list[Series]:
    """Image series in a folder and its subfolders, or among these files, sorted by series number.

    Files that are not DICOM, and DICOM objects without an image plane (reports, structures, dose
    reports), are skipped.

    Raises
    ------
    InputError: a DICOM file is damaged or has several frames (enhanced DICOM), which is not supported.
    """
    found: dict[str, list] = {}
    for path in _files(folder):
        header = _read_header(path)
        if header is not None:
            found.setdefault(str(header.SeriesInstanceUID), []).append((header, path))
    series = []
    for uid, files in found.items():
        first = files[0][0]
        images = tuple(_image(header, path) for header, path in files)
        order = (int(first.get("SeriesNumber") or 0), uid)
        series.append(
            (
                order,
                Series(
                    uid,
                    str(first.get("SeriesDescription") or ""),
                    str(first.get("Modality") or ""),
                    len(images),
                    images,
                ),
            )
        )
    return [entry for _, entry in sorted(series, key=lambda pair: pair[0])]


def read_series(folder: str | Path, series: str | None = None) -> Volume:
    """Volume of a DICOM series: float32, HU in CT, modality "CT", "MR" or None.

    Slices are sorted by position along their normal, and rescale slope and intercept are applied to
    each. Of identical images at one position, one is kept. Gaps that differ by more than 1 % are
    resampled linearly to their median; a gap of more than 3 times the median is an error, because
    slices are missing. Slices shifted in-plane (gantry tilt) are resampled onto an upright grid
    that covers all of them. `notes` lists what was changed.

    Parameters
    ----------
    series: SeriesInstanceUID or its end, or the number of the series in `list_series`, from 1.

    Raises
    ------
    InputError: there is no series, several and no choice, or the images do not form one volume.
    MemoryPlanError: the volume does not fit into memory.
    """
    chosen = choose(list_series(folder), series, f"The folder {folder}")
    _check_alike(chosen.images, Path(folder))
    slices = sorted(chosen.images, key=lambda s: float(s.position @ chosen.images[0].normal))
    columns, rows = slices[0].size
    plan_memory(8 * columns * rows * len(slices), f"The series in {folder}")
    array = np.stack([_pixels(s) for s in slices], axis=2)
    notes: list[str] = []
    slices, array = _without_duplicates(slices, array, notes)
    if chosen.modality == "CT":
        np.maximum(array, _LOWEST_HU, out=array)
    array, affine = _stack(slices, array, notes)
    modality = chosen.modality if chosen.modality in ("CT", "MR") else None
    return Volume(array, affine, modality, "HU" if modality == "CT" else "a.u.", tuple(notes))


def _files(folder: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(folder, (str, Path)):
        return sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [Path(path) for path in folder]


def read_tags(path: Path, tags: Sequence[str | int]):
    """Data set of a DICOM file with these attributes only; None if the file is not DICOM.

    Raises
    ------
    InputError: the file cannot be read or is damaged.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
    except InvalidDicomError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the file.") from None
    except Exception:  # pydicom raises many types of exceptions for invalid bytes
        raise InputError(f"{path} is a damaged DICOM file; copy it again or remove it.") from None


def _read_header(path: Path):
    """Data set without pixels; None if the file holds no image with patient coordinates."""
    header = read_tags(path, _TAGS)
    if header is None:
        return None
    if header.get("Modality") == "SEG":  # a segmentation beside its images
        return None
    if int(header.get("NumberOfFrames") or 1) > 1 and "Rows" in header:
        raise InputError(
            f"{path} is a multi-frame DICOM file, which is not supported; convert it to "
            "NIfTI first, for instance with dcm2niix."
        )
    needed = ("SeriesInstanceUID", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    return header if all(header.get(tag) not in (None, "") for tag in needed) else None


def _image(header, path: Path) -> ImageHeader:
    orientation = np.array(header.ImageOrientationPatient, dtype=np.float64)
    position = np.array(header.ImagePositionPatient, dtype=np.float64)
    between_rows, between_columns = (float(s) for s in header.PixelSpacing)
    values = np.concatenate([orientation, position, [between_rows, between_columns]])
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if values.shape != (11,) or not np.isfinite(values).all() or not np.allclose(lengths, 1, 0.01):
        raise InputError(f"{path} has no valid image position and orientation; remove it or export the series again.")
    if min(between_rows, between_columns) <= 0:
        raise InputError(
            f"{path} claims a pixel spacing of {between_rows:g} x {between_columns:g} "
            "mm, but both need a value above 0; correct the header."
        )
    thickness = header.get("SliceThickness")
    return ImageHeader(
        path,
        position,
        row / lengths[0],
        column / lengths[1],
        (int(header.Columns), int(header.Rows)),
        (between_columns, between_rows),
        float(thickness) if thickness else None,
        (str(header.get("SOPClassUID", "")), str(header.get("SOPInstanceUID", ""))),
    )


def choose(all_series: Sequence[Series], wanted: str | None, subject: str) -> Series:
    """The only series, or the one with this number (from 1) or end of its UID.

    Parameters
    ----------
    subject: start of an error sentence, such as "The folder scans".

    Raises
    ------
    InputError: no series, several without a choice, or no single match.
    """
    if not all_series:
        raise InputError(
            f"{subject} holds no DICOM image series; give the folder with the slices of one series, or an image file."
        )
    if wanted is None and len(all_series) == 1:
        return all_series[0]
    listed = "; ".join(
        f'{number} = {s.modality} "{s.description}", {s.slices} slices, {s.uid}'
        for number, s in enumerate(all_series, start=1)
    )
    if wanted is None:
        raise InputError(
            f"{subject} holds {len(all_series)} series ({listed}); choose one with --series and its number or UID."
        )
    wanted = str(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(all_series):
        return all_series[int(wanted) - 1]
    matches = [s for s in all_series if s.uid.endswith(wanted)]
    if len(matches) != 1:
        raise InputError(f'{subject} has no single series "{wanted}"; it holds {listed}.')
    return matches[0]


def _check_alike(slices: Sequence[ImageHeader], folder: Path) -> None:
    first = slices[0]
    for other in slices[1:]:
        rotated = max(np.abs(first.row - other.row).max(), np.abs(first.column - other.column).max())
        if rotated > _ORIENTATION_TOLERANCE:
            difference = "orientations"
        elif other.size != first.size:
            difference = "sizes"
        elif not np.allclose(other.pixel, first.pixel, rtol=1e-3):
            difference = "pixel spacings"
        else:
            continue
        raise InputError(
            f"The series in {folder} mixes images of different {difference} "
            f"({first.path.name} and {other.path.name}); remove those that do not "
            "belong to the volume."
        )


def _pixels(image: ImageHeader) -> np.ndarray:
    """(column, row) float32, rescaled: value = stored x RescaleSlope + RescaleIntercept."""
    import pydicom

    data = pydicom.dcmread(image.path)
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise InputError(f"{image.path} is a color image; give a CT or MR series with one sample per pixel.")
    try:
        stored = data.pixel_array
    except Exception:  # every decoder raises its own exceptions
        return _pixels_by_sitk(image)
    slope = float(data.get("RescaleSlope") or 1.0)
    intercept = float(data.get("RescaleIntercept") or 0.0)
    return (stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)).T


def _pixels_by_sitk(image: ImageHeader) -> np.ndarray:
    """As `_pixels`, for compressed pixels: SimpleITK decodes and rescales them."""
    import SimpleITK

    try:
        with silent_stderr():
            picture = SimpleITK.ReadImage(str(image.path), SimpleITK.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError:
        raise InputError(
            f"The pixels of {image.path} are damaged, or compressed in a way that is not "
            "supported; export the series again without compression."
        ) from None
    return SimpleITK.GetArrayFromImage(picture)[0].T


def _without_duplicates(
    slices: list[ImageHeader], array: np.ndarray, notes: list[str]
) -> tuple[list[ImageHeader], np.ndarray]:
    positions = np.array([s.position @ slices[0].normal for s in slices])
    keep = [0]
    for index in range(1, len(slices)):
        if positions[index] - positions[keep[-1]] > _SAME_POSITION_MM:
            keep.append(index)
        elif not np.array_equal(array[..., index], array[..., keep[-1]]):
            raise InputError(
                f"The series holds different images at the same position ({slices[keep[-1]].path} and "
                f"{slices[index].path}), such as time points or echoes; keep one set of them."
            )
    if len(keep) < len(slices):
        notes.append(f"{len(slices) - len(keep)} of {len(slices)} DICOM images were duplicates and were left out.")
    return [slices[n] for n in keep], array[..., keep]


def _stack(slices: list[ImageHeader], array: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine of an even, upright grid from slices sorted by position."""
    first = slices[0]
    normal = first.normal
    offsets = np.array([s.position - first.position for s in slices])
    positions = offsets @ normal
    # The in-plane part of the offsets, along increasing column (0) and row index (1).
    shifts = (offsets - np.outer(positions, normal)) @ np.stack([first.row, first.column], axis=1)
    origin, third = first.position, normal
    if _is_tilted(positions, shifts):
        angle = np.degrees(np.arctan2(np.linalg.norm(shifts[-1]), positions[-1]))
        notes.append(
            f"The slices are tilted by {angle:.1f} degrees (gantry tilt); they were resampled onto an upright grid."
        )
        array, moved = _upright(array, shifts, first.pixel)
        origin = origin + moved[0] * first.row + moved[1] * first.column
    elif len(slices) > 1:
        third = offsets[-1] / np.linalg.norm(offsets[-1])
        positions = np.linalg.norm(offsets, axis=1)
    array, gap = _even(positions, array, first.thickness, notes)
    affine = affine_from_lps((*first.pixel, gap), origin, np.stack([first.row, first.column, third], axis=1))
    return np.ascontiguousarray(array), affine


def _is_tilted(positions: np.ndarray, shifts: np.ndarray) -> bool:
    distance = np.linalg.norm(shifts - shifts[0], axis=1)
    return bool((distance > _UPRIGHT * np.maximum(positions, 1.0)).any())


def _upright(array: np.ndarray, shifts: np.ndarray, pixel: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Slices resampled onto one upright grid, and the in-plane offset (mm) of its first pixel."""
    from scipy.ndimage import shift

    start = shifts.min(axis=0)
    voxels = (shifts - start) / pixel
    more = np.ceil(voxels.max(axis=0) - 1e-6).astype(int)
    fill = float(array.min())
    wide = np.pad(array, [(0, more[0]), (0, more[1]), (0, 0)], constant_values=fill)
    for index, by in enumerate(voxels):
        wide[..., index] = shift(wide[..., index], by, order=1, mode="constant", cval=fill)
    return wide, start


def _even(
    positions: np.ndarray, array: np.ndarray, thickness: float | None, notes: list[str]
) -> tuple[np.ndarray, float]:
    """Slices at even positions, and the gap between them in mm."""
    if len(positions) == 1:
        if thickness is None:
            notes.append("The single slice does not state its thickness; 1 mm is assumed.")
        return array, thickness or 1.0
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() <= max(_EVEN_GAP * usual, _SAME_POSITION_MM):
        return array, float(positions[-1] / (len(positions) - 1))
    widest = int(gaps.argmax())
    if gaps[widest] > _LOST_GAP * usual:
        raise InputError(
            f"The series has a gap of {gaps[widest]:.1f} mm after its slice {widest + 1} of "
            f"{len(positions)}, where {usual:.1f} mm are usual; slices are missing, so copy it again."
        )
    steps = max(1, round(float(positions[-1]) / usual))
    even = np.linspace(0.0, positions[-1], steps + 1)
    notes.append(
        f"The gaps between slices range from {gaps.min():.2f} to {gaps.max():.2f} mm; the "
        f"series was interpolated to {even[1]:.2f} mm."
    )
    below = np.searchsorted(positions, even, side="right").clip(1, len(positions) - 1) - 1
    weight = ((even - positions[below]) / gaps[below]).astype(np.float32)
    return array[..., below] * (1 - weight) + array[..., below + 1] * weight, float(even[1])
