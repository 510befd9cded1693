"""Reading a DICOM image series from a folder.

Attributes are named as in DICOM PS3.3 C.7.6.2 (Image Plane Module): positions are those of a
slice's first pixel, in LPS mm; the image orientation holds the directions of growing column and
growing row. The array of the volume is indexed (i = column, j = row, k = slice), with k growing
along the normal of the slices.
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
_SAME_PLACE_MM = 0.01
"""Slices closer than this along the normal lie at the same place."""
_EVEN_GAP = 0.01
"""Gaps within this part of their median are even; others are interpolated onto even ones."""
_LOST_GAP = 3.0
"""A gap of more than this times the median means lost slices, which are not invented."""
_UPRIGHT = 1e-3
"""Sideways shift per mm along the normal (0.06 degrees) from which on slices are tilted."""
_ORIENTATION_TOLERANCE = 1e-3
_LOWEST_HU = -1024.0
"""What a CT holds below is padding outside the scanner's circle."""


@dataclass(frozen=True)
class ImageHeader:
    """Where one file's image lies, from its header."""

    path: Path
    position: np.ndarray
    row: np.ndarray  # direction of growing column
    column: np.ndarray  # direction of growing row
    size: tuple[int, int]  # columns, rows
    pixel: tuple[float, float]  # mm between columns, between rows
    thickness: float | None
    instance: tuple[str, str]  # SOP class, SOP instance

    @property
    def normal(self) -> np.ndarray:
        normal = np.cross(self.row, self.column)
        return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class Series:
    """One image series of a folder.

    Attributes
    ----------
    uid: SeriesInstanceUID.
    description: SeriesDescription, or "".
    modality: as DICOM names it: "CT", "MR", ...
    slices: number of images.
    """

    uid: str
    description: str
    modality: str
    slices: int
    images: tuple[ImageHeader, ...] = field(repr=False, compare=False, default=())


def list_series(folder: str | Path | Sequence[str | Path]) -> list[Series]:
    """The image series in a folder and its subfolders, or among these files, by series number.

    Files that are not DICOM, and DICOM without an image in the patient (reports, structures, dose
    sheets), are passed over.

    Raises
    ------
    InputError: a DICOM file is damaged, or holds many frames (enhanced DICOM), which is not read.
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
    """The volume of a DICOM series: float32, HU in CT, modality "CT", "MR" or None.

    Slices are sorted by position along their normal, and rescale slope and intercept are applied to
    each. Of two equal images at one place one is kept. Gaps that differ by more than 1 % are
    interpolated linearly onto even ones of their median; a gap of more than 3 times the median is
    refused as lost slices. Slices shifted sideways (gantry tilt) are moved in their planes onto an
    upright grid, wide enough for all. What was done is said in `notes`.

    Parameters
    ----------
    series: SeriesInstanceUID or its end, or the series' number in `list_series` from 1.

    Raises
    ------
    InputError: no series, several without a choice, or images that do not make one volume.
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
    """The data set of a DICOM file with these attributes only; None for a file of another kind.

    Raises
    ------
    InputError: the file cannot be read, or is damaged.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
    except InvalidDicomError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the file.") from None
    except Exception:  # pydicom lets many kinds through when the bytes make no sense
        raise InputError(f"{path} is a damaged DICOM file; copy it again or remove it.") from None


def _read_header(path: Path):
    """The data set without its pixels; None when it is no image that lies in the patient."""
    header = read_tags(path, _TAGS)
    if header is None:
        return None
    if header.get("Modality") == "SEG":  # a mask, which lies beside its images
        return None
    if int(header.get("NumberOfFrames") or 1) > 1 and "Rows" in header:
        raise InputError(
            f"{path} is a multi-frame DICOM file, which is not read; convert it to "
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
            "mm, but both need more than 0; correct the header."
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


def choose(all_series: Sequence[Series], wanted: str | None, place: str) -> Series:
    """The one series that is there, or that of this number or UID.

    Parameters
    ----------
    place: starts the sentence of an error, such as "The folder scans".
    """
    if not all_series:
        raise InputError(
            f"{place} holds no DICOM image series; give the folder with the slices of one series, or an image file."
        )
    if wanted is None and len(all_series) == 1:
        return all_series[0]
    listed = "; ".join(
        f'{number} = {s.modality} "{s.description}", {s.slices} slices, {s.uid}'
        for number, s in enumerate(all_series, start=1)
    )
    if wanted is None:
        raise InputError(
            f"{place} holds {len(all_series)} series ({listed}); choose one with --series and its number or UID."
        )
    wanted = str(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(all_series):
        return all_series[int(wanted) - 1]
    matches = [s for s in all_series if s.uid.endswith(wanted)]
    if len(matches) != 1:
        raise InputError(f'{place} has no single series "{wanted}"; it holds {listed}.')
    return matches[0]


def _check_alike(slices: Sequence[ImageHeader], folder: Path) -> None:
    first = slices[0]
    for other in slices[1:]:
        turned = max(np.abs(first.row - other.row).max(), np.abs(first.column - other.column).max())
        if turned > _ORIENTATION_TOLERANCE:
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
        raise InputError(f"{image.path} is a colour image; give a grey CT or MR series.")
    try:
        stored = data.pixel_array
    except Exception:  # every decoder has errors of its own
        return _pixels_by_sitk(image)
    slope = float(data.get("RescaleSlope") or 1.0)
    intercept = float(data.get("RescaleIntercept") or 0.0)
    return (stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)).T


def _pixels_by_sitk(image: ImageHeader) -> np.ndarray:
    """The same for compressed pixels: SimpleITK knows the codecs, and rescales by itself."""
    import SimpleITK

    try:
        with silent_stderr():
            picture = SimpleITK.ReadImage(str(image.path), SimpleITK.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError:
        raise InputError(
            f"The pixels of {image.path} are damaged, or packed in a way that is not "
            "read; export the series again without compression."
        ) from None
    return SimpleITK.GetArrayFromImage(picture)[0].T


def _without_duplicates(
    slices: list[ImageHeader], array: np.ndarray, notes: list[str]
) -> tuple[list[ImageHeader], np.ndarray]:
    places = np.array([s.position @ slices[0].normal for s in slices])
    keep = [0]
    for index in range(1, len(slices)):
        if places[index] - places[keep[-1]] > _SAME_PLACE_MM:
            keep.append(index)
        elif not np.array_equal(array[..., index], array[..., keep[-1]]):
            raise InputError(
                f"The series holds different images at the same place ({slices[keep[-1]].path} and "
                f"{slices[index].path}), such as time points or echoes; keep one set of them."
            )
    if len(keep) < len(slices):
        notes.append(f"{len(slices) - len(keep)} of {len(slices)} DICOM images were doubles of others and left out.")
    return [slices[n] for n in keep], array[..., keep]


def _stack(slices: list[ImageHeader], array: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine of an even, upright grid from slices sorted by place."""
    first = slices[0]
    normal = first.normal
    offsets = np.array([s.position - first.position for s in slices])
    places = offsets @ normal
    # What is left of the offset lies in the slice: along its rows (0) and its columns (1).
    sideways = (offsets - np.outer(places, normal)) @ np.stack([first.row, first.column], axis=1)
    origin, third = first.position, normal
    if _is_tilted(places, sideways):
        angle = np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), places[-1]))
        notes.append(
            f"The slices are tilted by {angle:.1f} degrees (gantry tilt); they were moved onto an upright grid."
        )
        array, moved = _upright(array, sideways, first.pixel)
        origin = origin + moved[0] * first.row + moved[1] * first.column
    elif len(slices) > 1:
        third = offsets[-1] / np.linalg.norm(offsets[-1])
        places = np.linalg.norm(offsets, axis=1)
    array, gap = _even(places, array, first.thickness, notes)
    affine = affine_from_lps((*first.pixel, gap), origin, np.stack([first.row, first.column, third], axis=1))
    return np.ascontiguousarray(array), affine


def _is_tilted(places: np.ndarray, sideways: np.ndarray) -> bool:
    shift = np.linalg.norm(sideways - sideways[0], axis=1)
    return bool((shift > _UPRIGHT * np.maximum(places, 1.0)).any())


def _upright(array: np.ndarray, sideways: np.ndarray, pixel: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Slices moved to where they lie on one grid, and that grid's first pixel (mm sideways)."""
    from scipy.ndimage import shift

    start = sideways.min(axis=0)
    voxels = (sideways - start) / pixel
    more = np.ceil(voxels.max(axis=0) - 1e-6).astype(int)
    fill = float(array.min())
    wide = np.pad(array, [(0, more[0]), (0, more[1]), (0, 0)], constant_values=fill)
    for index, by in enumerate(voxels):
        wide[..., index] = shift(wide[..., index], by, order=1, mode="constant", cval=fill)
    return wide, start


def _even(places: np.ndarray, array: np.ndarray, thickness: float | None, notes: list[str]) -> tuple[np.ndarray, float]:
    """Slices at even places, and the gap between them in mm."""
    if len(places) == 1:
        if thickness is None:
            notes.append("The single slice does not say how thick it is; 1 mm is assumed.")
        return array, thickness or 1.0
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() <= max(_EVEN_GAP * usual, _SAME_PLACE_MM):
        return array, float(places[-1] / (len(places) - 1))
    widest = int(gaps.argmax())
    if gaps[widest] > _LOST_GAP * usual:
        raise InputError(
            f"The series has a gap of {gaps[widest]:.1f} mm after its slice {widest + 1} of "
            f"{len(places)}, where {usual:.1f} mm are usual; slices are missing, so copy it again."
        )
    steps = max(1, round(float(places[-1]) / usual))
    even = np.linspace(0.0, places[-1], steps + 1)
    notes.append(
        f"The gaps between slices run from {gaps.min():.2f} to {gaps.max():.2f} mm; the "
        f"series was interpolated to {even[1]:.2f} mm."
    )
    below = np.searchsorted(places, even, side="right").clip(1, len(places) - 1) - 1
    weight = ((even - places[below]) / gaps[below]).astype(np.float32)
    return array[..., below] * (1 - weight) + array[..., below + 1] * weight, float(even[1])
