"""The voxels of a segmentation node, on its reference grid or on the grid of a volume.

Nothing is changed: no representation is made on the node, nothing is added to the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes.geometry import GridPlace, isSameGrid, matrixIn
from MedGenSlicer.nodes.segments import SegmentInfo
from MedGenSlicer.nodes.voxels import heldArrayOf, overlap

BINARY_LABELMAP = "Binary labelmap"


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


def referenceGrid(node, segmentation, notes: list[str]):
    """The grid of a segmentation, as an image without voxels and as a `GridPlace`.

    It is the reference geometry that the segmentation stores; without one, that of its reference volume; without
    either, the box around its segments.

    Parameters
    ----------
    segmentation: the vtkSegmentation of the node, or a copy with binary label maps.
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
        stored = segmentation.DetermineCommonLabelmapGeometry(
            slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS, vtk.vtkStringArray()
        )
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


def withBinaryLabelmaps(node):
    """The segmentation with binary label maps: the node's own, or a converted copy where it has none."""
    segmentation = node.GetSegmentation()
    if segmentation.ContainsRepresentation(BINARY_LABELMAP):
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    if not copy.CreateRepresentation(BINARY_LABELMAP):
        sentence = _(
            "The segments of '{name}' cannot be turned into voxels; create their binary labelmap in the module "
            "Segmentations."
        )
        raise InputError(sentence.format(name=node.GetName()))
    return copy


def drawnSegments(segmentation, segments: list[SegmentInfo]):
    """(SegmentInfo, vtkSegment, its vtkOrientedImageData) of the segments that hold voxels."""
    for info in segments:
        segment = segmentation.GetSegment(info.segmentID)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is not None and not image.IsEmpty():
            yield info, segment, image


def layersOf(segmentation, segments: list[SegmentInfo], reference) -> list[Layer]:
    """The layers of a segmentation with binary label maps, on a reference grid."""
    layers: list[Layer] = []
    arrays: dict[str, tuple[np.ndarray, tuple[int, int, int]]] = {}
    previous = None
    for info, segment, image in drawnSegments(segmentation, segments):
        key = image.GetAddressAsString("")
        if key not in arrays:
            arrays[key] = onGrid(image, reference)
        if key != previous:
            layers.append(Layer(*arrays[key], {}))
        layers[-1].values[segment.GetLabelValue()] = info.value
        previous = key
    if not layers:
        raise InputError(_("The segmentation is empty: no segment has a voxel; draw some first."))
    return layers


def merged(layers: list[Layer], shape: tuple[int, int, int], name: str) -> tuple[np.ndarray, list[str]]:
    """All layers in one (i, j, k) array, where the later one counts in an overlap; and sentences for the user."""
    largest = max(max(layer.values.values()) for layer in layers)
    result = np.zeros(shape[::-1], np.min_scalar_type(largest))
    outside = overlapping = 0
    for layer in layers:
        table = np.zeros(max(int(layer.array.max()), 1) + 1, result.dtype)
        for value, target in layer.values.items():
            if value < len(table):
                table[value] = target
        labels = np.take(table, layer.array)
        inside, target = overlap(labels.shape, layer.start[::-1], result.shape)
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
    extent, wanted = image.GetExtent(), reference.GetExtent()
    matrix, referenceMatrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    reference.GetImageToWorldMatrix(referenceMatrix)
    toReference = np.linalg.solve(
        slicer.util.arrayFromVTKMatrix(referenceMatrix), slicer.util.arrayFromVTKMatrix(matrix)
    )
    shift = toReference[:3, 3]
    size = max(abs(number) for number in extent) + 1
    aligned = np.abs(toReference[:3, :3] - np.eye(3)).max() * size < 1e-2 and np.abs(shift - shift.round()).max() < 1e-2
    if not aligned:
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            image, reference, resampled, False
        )
        image, extent, shift = resampled, resampled.GetExtent(), np.zeros(3)
    start = tuple(int(round(shift[axis])) + extent[2 * axis] - wanted[2 * axis] for axis in range(3))
    return heldArrayOf(image), start
