"""Reading a DICOM image series from a folder.

Names follow DICOM PS3.3 C.7.6.2 (Image Plane Module): the image position is that of the first pixel
of a slice, in LPS mm; the image orientation holds the directions of increasing column and row index.
The array of the volume is indexed (i = column, j = row, k = slice), with k increasing along the
normal of the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume, affine_from_lps
from MedGenLib.io.dicom.headers import read_tags
from MedGenLib.io.dicom.pixels import read_pixels
from MedGenLib.io.dicom.scan import ImageHeader, choose, scan
from MedGenLib.io.sequence import DICOM_TAGS, contrast_in_dicom
from MedGenLib.io.system import plan_memory

_SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal have the same position."""
_EVEN_GAP = 0.01
"""Relative deviation from the median up to which gaps are even; other series are interpolated."""
_LOST_GAP = 3.0
"""A gap of more than this times the median means missing slices, which are not interpolated."""
_UPRIGHT = 1e-3
"""In-plane shift per mm along the normal (0.06 degrees) above which slices are tilted."""
_ORIENTATION_TOLERANCE = 1e-3


def read_series(folder: str | Path, series: str | None = None) -> Volume:
    """Volume of a DICOM series: float32, HU in CT, modality "CT", the contrast of an MR image if the
    header states it, else "MR", or None.

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
    found = scan(folder)
    chosen = choose(found, series, f"The folder {folder}")
    _check_alike(chosen.images, Path(folder))
    slices = sorted(chosen.images, key=lambda s: float(s.position @ chosen.images[0].normal))
    columns, rows = slices[0].size
    plan_memory(9 * columns * rows * len(slices), f"The series in {folder}")
    notes = found.notes(chosen.uid)
    array = read_pixels(slices, chosen.modality == "CT", notes)
    slices, array = _without_duplicates(slices, array, notes)
    array, affine = _stack(slices, array, notes)
    modality = chosen.modality if chosen.modality in ("CT", "MR") else None
    if modality == "MR":
        modality = contrast_in_dicom(read_tags(slices[0].path, DICOM_TAGS)) or modality
    return Volume(array, affine, modality, "HU" if modality == "CT" else "a.u.", tuple(notes))


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
                f"The series holds different images at the same position ({slices[keep[-1]].place} and "
                f"{slices[index].place}), such as time points or echoes; keep or export one set of them."
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
    sideways = np.linalg.norm(shifts - shifts[0], axis=1)
    if (sideways > _UPRIGHT * np.maximum(positions, 1.0)).any():
        angle = np.degrees(np.arctan2(np.linalg.norm(shifts[-1]), positions[-1]))
        notes.append(
            f"The slices are tilted by {angle:.1f} degrees (gantry tilt); they were resampled onto an upright grid."
        )
        array, moved = _upright(array, shifts, first.pixel)
        origin = origin + moved[0] * first.row + moved[1] * first.column
    elif len(slices) > 1:
        third = offsets[-1] / np.linalg.norm(offsets[-1])
        positions = np.linalg.norm(offsets, axis=1)
    array, gap = _even(positions, array, slices, notes)
    affine = affine_from_lps((*first.pixel, gap), origin, np.stack([first.row, first.column, third], axis=1))
    return np.ascontiguousarray(array), affine


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
    positions: np.ndarray, array: np.ndarray, slices: Sequence[ImageHeader], notes: list[str]
) -> tuple[np.ndarray, float]:
    """Slices at even positions, and the gap between them in mm."""
    if len(positions) == 1:
        thickness = slices[0].thickness
        if thickness is None:
            notes.append("The single slice does not state its thickness; 1 mm is assumed.")
        return array, thickness or 1.0
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() <= max(_EVEN_GAP * usual, _SAME_POSITION_MM):
        return array, float(positions[-1] / (len(positions) - 1))
    widest = int(gaps.argmax())
    place = f"after its slice {widest + 1} of {len(positions)} ({slices[widest].path.name})"
    if gaps[widest] > _LOST_GAP * usual:
        raise InputError(
            f"The series has a gap of {gaps[widest]:.1f} mm {place}, where {usual:.1f} mm are usual; slices are "
            "missing, so copy it again."
        )
    steps = max(1, round(float(positions[-1]) / usual))
    even = np.linspace(0.0, positions[-1], steps + 1)
    notes.append(
        f"The gaps between slices range from {gaps.min():.2f} to {gaps.max():.2f} mm, the widest {place}; the "
        f"series was interpolated to {even[1]:.2f} mm."
    )
    below = np.searchsorted(positions, even, side="right").clip(1, len(positions) - 1) - 1
    weight = ((even - positions[below]) / gaps[below]).astype(np.float32)
    return array[..., below] * (1 - weight) + array[..., below + 1] * weight, float(even[1])
