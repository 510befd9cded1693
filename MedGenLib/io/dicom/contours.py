"""Reading the contours of an RT structure set as a label map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.colors import hex_color
from MedGenLib.imaging.volume import Geometry, LabelMap, affine_from_lps
from MedGenLib.io.dicom.headers import integer, read_raw, text
from MedGenLib.io.dicom.reading import read_series
from MedGenLib.io.dicom.scan import scan
from MedGenLib.io.system import plan_memory

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CLOSED = "CLOSED_PLANAR"
_PIXEL_MM, _MARGIN = 1.0, 2
"""Voxels in the plane, and voxels around the contours, where no images give a grid."""
_FLAT = 0.3
"""Largest distance of the points of a contour from their plane in voxels."""


def read_contours(path: Path) -> LabelMap:
    """The structures as labels, with their names and colors.

    The grid is that of the images that the set refers to, where they lie in its folder. A voxel has a label if its
    center lies inside; contours within contours are holes; where structures overlap, the smaller counts.

    Raises
    ------
    InputError: there are no closed contours, or they do not lie in the planes of the grid.
    """
    data = read_raw(path)
    names = {integer(item, "ROINumber"): text(item, "ROIName") for item in data.get("StructureSetROISequence", ())}
    found = {number: _rings(item) for item in data.get("ROIContourSequence", ()) for number in (_number(item),)}
    rings = {number: several for number, several in found.items() if several}
    if not rings:
        raise InputError(f"{path} holds no closed contours; export the structures again, or save a label map.")
    notes = []
    if empty := [names.get(number) or str(number) for number in {**names, **found} if number not in rings]:
        notes.append(f"Structures without closed contours were passed over: {', '.join(empty)}.")
    grid = _grid_of_images(path, data)
    if grid is None:
        grid = _grid_around([ring for several in rings.values() for ring in several])
        notes.append(f"The images of {path.name} are not in its folder; its contours were filled on {grid}.")
    plan_memory(4 * int(np.prod(grid.shape)), f"The grid of the contours in {path}")
    inside = {number: _filled(several, grid, path) for number, several in rings.items()}
    values = {number: number if 0 < number < 2**16 else order for order, number in enumerate(inside, 1)}
    labels = np.zeros(grid.shape, np.min_scalar_type(max(values.values())))
    overlap = 0
    for number in sorted(inside, key=lambda number: -np.count_nonzero(inside[number])):
        overlap += int(np.count_nonzero(labels[inside[number]]))
        labels[inside[number]] = values[number]
    if overlap:
        notes.append(f"{overlap} voxels of overlapping structures of {path.name} belong to the smaller one.")
    named = {value: names.get(number, "") for number, value in values.items()}
    parts = {_number(item): text(item, "ROIDisplayColor").split("\\") for item in data.get("ROIContourSequence", ())}
    colors = {value: color for number, value in values.items() if (color := hex_color(parts[number], 255))}
    return LabelMap(labels, grid.affine, named, tuple(notes), colors=colors)


def _number(item: Dataset) -> int:
    return integer(item, "ReferencedROINumber")


def _rings(item: Dataset) -> list[np.ndarray]:
    """The closed contours of a structure, each (points, 3) in LPS mm."""
    rings = []
    for contour in item.get("ContourSequence", ()):
        if text(contour, "ContourGeometricType") != _CLOSED:
            continue
        try:
            points = np.array(text(contour, "ContourData").split("\\"), float).reshape(-1, 3)
        except ValueError:
            raise InputError(
                f"A contour of the structure {_number(item)} holds no points in mm; export the structures again."
            ) from None
        if len(points) > 2 and np.isfinite(points).all():
            rings.append(points)
    return rings


def _grid_of_images(path: Path, data: Dataset) -> Geometry | None:
    """The grid of the series in the same folder that the structure set refers to."""
    wanted = {
        text(series, "SeriesInstanceUID")
        for frame in data.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for series in study.get("RTReferencedSeriesSequence", ())
    }
    here = [series.uid for series in scan(path.parent).series if series.uid in wanted]
    return read_series(path.parent, here[0]).geometry if here else None


def _grid_around(rings: list[np.ndarray]) -> Geometry:
    """Axial planes at the gap of the contours."""
    points = np.concatenate(rings)
    heights = np.unique(np.round([ring[:, 2].mean() for ring in rings], 2))
    gap = float(np.median(np.diff(heights))) if len(heights) > 1 else _PIXEL_MM
    low, high = points.min(0), points.max(0)
    size = np.ceil((high[:2] - low[:2]) / _PIXEL_MM).astype(int) + 2 * _MARGIN + 1
    count = round(float(heights[-1] - heights[0]) / gap) + 1
    origin = (*(low[:2] - _MARGIN * _PIXEL_MM), heights[0])
    return Geometry((*size.tolist(), count), affine_from_lps((_PIXEL_MM, _PIXEL_MM, gap), origin, np.eye(3)))


def _filled(rings: list[np.ndarray], grid: Geometry, path: Path) -> np.ndarray:
    """The voxels whose centers lie inside; a ring within a ring is a hole."""
    from skimage.draw import polygon

    inside = np.zeros(grid.shape, bool)
    to_index = np.linalg.inv(grid.affine)
    for ring in rings:
        i, j, k = to_index[:3, :3] @ (ring * (-1, -1, 1)).T + to_index[:3, 3:]
        plane = round(float(k.mean()))
        if np.abs(k - k.mean()).max() > _FLAT:
            raise InputError(
                f"The contours of {path} do not lie in the planes of the images; export a label map instead."
            )
        if 0 <= plane < grid.shape[2]:
            place = polygon(i, j, grid.shape[:2])
            inside[(*place, plane)] ^= True
    return inside
