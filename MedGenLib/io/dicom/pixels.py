"""Pixels of DICOM images: decoded, rescaled, and without padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.dicom.headers import integer, numbers, read_raw
from MedGenLib.io.dicom.scan import ImageHeader
from MedGenLib.io.system import quiet_library

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LOWEST_HU = -1024.0
"""Lower CT values are padding outside the reconstruction circle."""
NO_INTERCEPT = (
    "The CT series does not state the rescale intercept, so that its numbers may not be HU; if they are not, "
    "give the offset to HU (command line: --hu-offset -1024)."
)
_AIR_HU, _METAL_HU = -900.0, 3071.0
"""Padding between these could be a part of the body."""


def read_pixels(slices: Sequence[ImageHeader], is_ct: bool, notes: list[str]) -> np.ndarray:
    """(column, row, slice) float32: value = stored x RescaleSlope + RescaleIntercept.

    Pixels with the padding value become air in CT and 0 or the lowest value, if that is below, in MR.

    Raises
    ------
    InputError: pixels are damaged, in color, or a number that they need is none.
    """
    columns, rows = slices[0].size
    array = np.empty((columns, rows, len(slices)), np.float32)
    padded = np.zeros(array.shape, bool)
    rescaled = True
    numbered = enumerate(slices)
    for path, group in groupby(numbered, key=lambda pair: pair[1].path):
        data = read_raw(path)
        stored = _stored(data, path)
        for index, image in group:
            slope, intercept, is_stated = _rescale(data, image)
            rescaled &= is_stated
            plane = stored if image.frame is None else stored[image.frame]
            if plane.T.shape != (columns, rows):
                raise InputError(f"The pixels of {path} do not have the size that its header claims; export it again.")
            array[..., index] = (plane.astype(np.float32) * np.float32(slope) + np.float32(intercept)).T
            padded[..., index] = _padding(plane, data, slope, intercept, is_ct).T
    if is_ct and not rescaled:
        notes.append(NO_INTERCEPT)
    if is_ct:
        np.maximum(array, LOWEST_HU, out=array)
    if padded.any() and not padded.all():
        array[padded] = LOWEST_HU if is_ct else min(0.0, float(array[~padded].min()))
    return array


def _stored(data: Dataset, path: Path) -> np.ndarray:
    if integer(data, "SamplesPerPixel") > 1:
        raise InputError(f"{path} is a color image; give a CT or MR series with one sample per pixel.")
    try:
        return data.pixel_array
    except Exception:  # every decoder raises its own exceptions
        return _stored_by_sitk(data, path)


def _stored_by_sitk(data: Dataset, path: Path) -> np.ndarray:
    """As `_stored`, for compressed pixels that SimpleITK decodes; it rescales them, which is undone."""
    import SimpleITK

    try:
        with quiet_library():
            picture = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32, imageIO="GDCMImageIO")
    except RuntimeError:
        raise InputError(
            f"The pixels of {path} are damaged, or compressed in a way that is not "
            "supported; export the series again without compression."
        ) from None
    slope, intercept, _ = _rescale(data, path)
    values = np.rint((SimpleITK.GetArrayFromImage(picture) - intercept) / slope)
    return values if integer(data, "NumberOfFrames") > 1 else values[0]


def _rescale(data: Dataset, image: ImageHeader | Path) -> tuple[float, float, bool]:
    """Slope, intercept, and whether the file states them."""
    path, frame = (image, None) if isinstance(image, Path) else (image.path, image.frame)
    source = data if frame is None else _transformation(data, frame)
    try:
        slope, intercept = (numbers(source, f"Rescale{name}") for name in ("Slope", "Intercept"))
    except ValueError as error:
        raise InputError(f"{path} {error}; correct it or export the series again.") from None
    slope = slope[0] if slope else 1.0
    return slope or 1.0, intercept[0] if intercept else 0.0, intercept is not None


def _transformation(data: Dataset, frame: int) -> Dataset:
    """The item of a multi-frame image that holds the rescaling of one frame."""
    for group in (data.PerFrameFunctionalGroupsSequence[frame], *data.get("SharedFunctionalGroupsSequence", ())):
        for item in group.get("PixelValueTransformationSequence", ()):
            return item
    return data


def _padding(plane: np.ndarray, data: Dataset, slope: float, intercept: float, is_ct: bool) -> np.ndarray:
    """Where the stored pixels have the padding value, or lie between it and its range limit.

    Values that CT has inside the body are padding only where they reach the border of the image.
    """
    if "PixelPaddingValue" not in data:
        return np.zeros(plane.shape, bool)
    bits = 1 << 8 * max(1, integer(data, "BitsAllocated") // 8)
    lowest = -bits // 2 if integer(data, "PixelRepresentation") else 0
    # The representation of the value may be signed where that of the pixels is not, and the reverse.
    ends = [
        (integer(data, keyword) - lowest) % bits + lowest
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if keyword in data
    ]
    padded = (plane >= min(ends)) & (plane <= max(ends))
    values = [end * slope + intercept for end in ends]
    if is_ct and max(values) > _AIR_HU and min(values) < _METAL_HU and padded.any():
        from scipy.ndimage import binary_propagation

        border = np.pad(np.zeros(np.subtract(plane.shape, 2), bool), 1, constant_values=True)
        padded = binary_propagation(border & padded, mask=padded)
    return padded
