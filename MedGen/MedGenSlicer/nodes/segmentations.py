"""The voxels of a segmentation node, on its reference grid or on the grid of a volume.

Nothing is changed: no representation is made on the node, nothing is added to the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes import surfaces
from MedGenSlicer.nodes.geometry import GridPlace, isSameGrid, matrixIn
from MedGenSlicer.nodes.segments import SegmentInfo, segmentsOf
from MedGenSlicer.nodes.surfaces import CLOSED_SURFACE, drawnSurfaces
from MedGenSlicer.nodes.voxels import Holder, arrayOf, imageData, overlap

BINARY_LABELMAP = "Binary labelmap"


Make = Callable[[], tuple[np.ndarray, tuple[int, int, int]]]


@dataclass(frozen=True)
class LayerSource:
    """What a layer is made from, as it was when it was captured.

    make(): voxels (k, j, i) and the place of the first one in the grid (i, j, k); may be called in another thread.
    values: what each of its values becomes.
    """

    make: Make
    values: dict[int, int]


@dataclass(frozen=True)
class Layer:
    """Consecutive segments that share one array: voxels (k, j, i), the place of its first voxel in the grid
    (i, j, k), and what each of its values becomes."""

    array: np.ndarray
    start: tuple[int, int, int]
    values: dict[int, int]


def referenceVolume(node):
    """The volume that a segmentation was drawn on, None where that is not known."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    # Asking for a reference of a role that a node does not have adds the role to the node.
    if role not in [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]:
        return None
    volume = node.GetNodeReference(role)
    return volume if volume is not None and volume.GetImageData() is not None else None


def referenceGrid(node, notes: list[str]):
    """The grid of a segmentation, as an image without voxels and as a `GridPlace`.

    It is the reference geometry that the segmentation stores; without one, that of its reference volume; without
    either, the box around its segments.

    Parameters
    ----------
    notes: gets sentences for the user.
    """
    image = slicer.vtkOrientedImageData()
    stored = node.GetSegmentation().GetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    )
    volume = referenceVolume(node)
    if not stored and volume is not None:
        stored = slicer.vtkSegmentationConverter.SerializeImageGeometry(matrixIn(node, volume), volume.GetImageData())
    if not stored:
        notes.append(
            _(
                "'{name}' has no source geometry, so the box around its segments was used; choose one in the Segment "
                "Editor to get more of the surroundings."
            ).format(name=node.GetName())
        )
        stored = _boxOf(node)
    if not stored:
        raise InputError(_("'{name}' is empty: no segment has a voxel; draw some first.").format(name=node.GetName()))
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(stored, image, False)
    place = GridPlace.ofOrientedImage(image)
    if volume is not None and volume.GetParentTransformNode() is node.GetParentTransformNode():
        exact = GridPlace.ofVolume(volume)
        # The geometry is stored as text; the volume itself has all its digits.
        if image.GetDimensions() == volume.GetImageData().GetDimensions() and isSameGrid(
            place.matrix, exact.matrix, image.GetDimensions()
        ):
            place = exact
    return image, place


def _boxOf(node) -> str:
    """The box around all segments as a serialized geometry, "" where there is none. It is kept until a segment
    changes: finding where the voxels of label maps begin takes a look at them."""
    segmentation, segments = node.GetSegmentation(), segmentsOf(node)
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP):
        return surfaces.boxAround([surface for _info, surface in drawnSurfaces(segmentation, segments)])
    images = [image for _info, _segment, image in drawnSegments(segmentation, segments)]
    key = tuple((image.GetAddressAsString(""), image.GetMTime()) for image in images)
    if key not in _boxes:
        _boxes.clear()
        _boxes[key] = segmentation.DetermineCommonLabelmapGeometry(
            slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS, vtk.vtkStringArray()
        )
    return _boxes[key]


_boxes: dict[tuple, str] = {}


def drawnSegments(segmentation, segments: list[SegmentInfo]):
    """(SegmentInfo, vtkSegment, its vtkOrientedImageData) of the segments that hold voxels."""
    for info in segments:
        segment = segmentation.GetSegment(info.segmentID)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is not None and not image.IsEmpty():
            yield info, segment, image


def sourcesOf(node, segments: list[SegmentInfo], reference) -> list[LayerSource]:
    """The layers of a segmentation on a reference grid, from its binary label maps or else its closed surfaces; quick.

    Raises
    ------
    InputError: no segment holds anything, or the segments are stored in another way.
    """
    segmentation = node.GetSegmentation()
    if segmentation.ContainsRepresentation(BINARY_LABELMAP):
        sources = _labelmapSources(segmentation, segments, reference)
    elif segmentation.ContainsRepresentation(CLOSED_SURFACE):
        sources = [
            LayerSource(surfaces.onGrid(surface, reference), {1: info.value})
            for info, surface in drawnSurfaces(segmentation, segments)
        ]
    else:
        sentence = _(
            "The segments of '{name}' are neither voxels nor surfaces; create their binary labelmap in the module "
            "Segmentations."
        )
        raise InputError(sentence.format(name=node.GetName()))
    if not sources:
        raise InputError(_("The segmentation is empty: no segment has a voxel; draw some first."))
    return sources


def _labelmapSources(segmentation, segments: list[SegmentInfo], reference) -> list[LayerSource]:
    sources: list[LayerSource] = []
    made: dict[str, Make] = {}
    previous = None
    hold = Holder()
    for info, segment, image in drawnSegments(segmentation, segments):
        key = image.GetAddressAsString("")
        if key not in made:
            made[key] = labelmapOnGrid(image, reference, hold)
        if key != previous:
            sources.append(LayerSource(made[key], {}))
        sources[-1].values[segment.GetLabelValue()] = info.value
        previous = key
    return sources


def merged(sources: list[LayerSource], shape: tuple[int, int, int], name: str) -> tuple[np.ndarray, list[str]]:
    """All layers in one (i, j, k) array, where the later one counts in an overlap; and sentences for the user."""
    largest = max(max(source.values.values()) for source in sources)
    result = np.zeros(shape[::-1], np.min_scalar_type(largest))
    outside = overlapping = 0
    for source in sources:  # one after the other: together they may need a multiple of the memory
        array, start = source.make()
        if not array.size:
            continue
        table = np.zeros(max(int(array.max()), 1) + 1, result.dtype)
        for value, target in source.values.items():
            if value < len(table):
                table[value] = target
        labels = np.take(table, array)
        inside, target = overlap(labels.shape, start[::-1], result.shape)
        outside += int(np.count_nonzero(labels)) - int(np.count_nonzero(labels[inside]))
        drawn = labels[inside] > 0
        overlapping += int(np.count_nonzero(drawn & (result[target] > 0)))
        np.copyto(result[target], labels[inside], where=drawn)
    notes = []
    if outside:
        notes.append(
            _("{count} voxels of '{name}' lie outside of its reference geometry and were left out.").format(
                count=outside, name=name
            )
        )
    if overlapping:
        notes.append(
            _("Segments of '{name}' overlap in {count} voxels; the later one in the list was taken.").format(
                count=overlapping, name=name
            )
        )
    return result.transpose(2, 1, 0), notes


def onGrid(image, reference) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Voxels (k, j, i) of a label map on the reference's grid, and the index (i, j, k) of the first one."""
    return labelmapOnGrid(image, reference, Holder())()


def labelmapOnGrid(image, reference, hold: Holder) -> Make:
    """The same as a function, which may be called in another thread."""
    extent, wanted = image.GetExtent(), reference.GetExtent()
    matrix, referenceMatrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    reference.GetImageToWorldMatrix(referenceMatrix)
    toReference = np.linalg.solve(
        slicer.util.arrayFromVTKMatrix(referenceMatrix), slicer.util.arrayFromVTKMatrix(matrix)
    )
    array = hold(image)
    shift = toReference[:3, 3]
    size = max(abs(number) for number in extent) + 1
    aligned = np.abs(toReference[:3, :3] - np.eye(3)).max() * size < 1e-2 and np.abs(shift - shift.round()).max() < 1e-2
    if not aligned:
        return lambda: _resampled(array, extent, toReference, wanted)
    start = tuple(int(round(shift[axis])) + extent[2 * axis] - wanted[2 * axis] for axis in range(3))
    return lambda: (array, start)


def _resampled(
    array: np.ndarray, extent: tuple[int, ...], toReference: np.ndarray, wanted: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The nearest voxels on the part of the wanted grid that the array reaches."""
    corners = np.array(np.meshgrid(extent[:2], extent[2:4], extent[4:], [1.0])).reshape(4, -1)
    inReference = (toReference @ corners)[:3]
    first = np.maximum(np.floor(inReference.min(axis=1)).astype(int) - 1, wanted[::2])
    last = np.minimum(np.ceil(inReference.max(axis=1)).astype(int) + 1, wanted[1::2])
    start = tuple(int(number) for number in first - wanted[::2])
    if (last < first).any():
        return np.zeros((0, 0, 0), array.dtype), start
    image = imageData(array)
    image.SetExtent(extent)
    transform = vtk.vtkTransform()
    transform.SetMatrix(np.linalg.inv(toReference).ravel())
    reslice = vtk.vtkImageReslice()  # Slicer's own resampling takes ten times as long and holds Python's lock
    reslice.SetInputData(image)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent([int(number) for pair in zip(first, last, strict=True) for number in pair])
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToNearestNeighbor()
    reslice.Update()
    return arrayOf(reslice.GetOutput()), start
