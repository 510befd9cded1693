"""A deep copy of a scene as plain values, so that a test can say that nothing in it was changed."""

import functools
import hashlib
import re

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_VOLATILE = re.compile(r"0x[0-9a-f]+|\w* ?Time: \d+|Reference Count: \d+", re.IGNORECASE)
_VOLATILE_LINE = re.compile(
    "MTime|Time ?Stamp|Tag|Generation|Priority|Command|EventName|Event: |Registered Events|Observers|Release Data"
    "|Executive|Pipeline|Information|Update Number",
    re.IGNORECASE,
)
"""What VTK prints about an object that is no part of its content."""


def snapshotOfScene(without=()) -> dict:
    """Node ID -> everything that a node holds, as plain values; `without`: nodes to leave out."""
    left = {node.GetID() for node in without if node is not None}
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
    return {node.GetID(): snapshotOfNode(node) for node in nodes if node.GetID() not in left}


def snapshotOfNode(node) -> dict:
    found = {
        "class": node.GetClassName(),
        "name": node.GetName(),
        "description": node.GetDescription(),
        "attributes": {name: node.GetAttribute(name) for name in node.GetAttributeNames() or ()},
        "references": _references(node),
    }
    if node.IsA("vtkMRMLSubjectHierarchyNode"):
        found["tree"] = _tree(node)
        return found  # it prints the order of its cache, which asking may change
    found["text"] = _text(node)
    if node.IsA("vtkMRMLVolumeNode"):
        found["image"] = _image(node.GetImageData())
        found["grid"] = [tuple(node.GetOrigin()), tuple(node.GetSpacing()), _matrix(node.GetIJKToRASMatrix)]
    if node.IsA("vtkMRMLTransformNode") and node.IsLinear():
        found["matrix"] = _matrix(node.GetMatrixTransformToParent)
    if node.IsA("vtkMRMLSegmentationNode"):
        found["segmentation"] = _segmentation(node.GetSegmentation())
    return found


def differences(before: dict, after: dict) -> list[str]:
    """What differs between two snapshots, in words; empty when they are the same."""
    found = [f"{key} is gone" for key in before if key not in after]
    found += [f"{key} is new" for key in after if key not in before]
    for key in before:
        if key in after and before[key] != after[key]:
            parts = [part for part in before[key] if before[key][part] != after[key].get(part)]
            found.append(
                f"{key} ({before[key]['class']}) changed: "
                + "; ".join(f"{part}: {_difference(before[key][part], after[key].get(part))}" for part in parts)
            )
    return found


def _difference(before, after) -> str:
    if isinstance(before, list) and isinstance(after, list):
        return f"{[item for item in before if item not in after]} -> {[item for item in after if item not in before]}"
    return f"{before} -> {after}"


def _references(node) -> dict:
    roles = [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]
    return {
        role: [node.GetNthNodeReferenceID(role, index) for index in range(node.GetNumberOfNodeReferences(role))]
        for role in roles
    }


def _tree(node) -> list:
    items = vtk.vtkIdList()
    node.GetItemChildren(node.GetSceneItemID(), items, True)
    return [
        (
            node.GetItemName(item),
            node.GetItemName(node.GetItemParent(item)),
            {name: node.GetItemAttribute(item, name) for name in node.GetItemAttributeNames(item)},
        )
        for item in (items.GetId(index) for index in range(items.GetNumberOfIds()))
    ]


def _text(node) -> list:
    if node.IsA("vtkMRMLColorNode") and not node.GetSaveWithScene():
        return []  # Slicer's own tables: thousands of lines
    return [kept for line in str(node).splitlines() if (kept := _content(line))]


@functools.lru_cache(maxsize=100_000)
def _content(line: str) -> str:
    """What a printed line says about the content of an object."""
    return "" if _VOLATILE_LINE.search(line) else _VOLATILE.sub("", line).rstrip()


def _segmentation(segmentation) -> dict:
    found = {
        "order": list(segmentation.GetSegmentIDs()),
        "source": segmentation.GetSourceRepresentationName(),
        "geometry": segmentation.GetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        ),
    }
    for segmentID in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentID)
        tag = vtk.mutable("")
        segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
        shapes = {}
        for name in ("Binary labelmap", "Closed surface", "Fractional labelmap", "Planar contour"):
            data = segment.GetRepresentation(name)
            if data is not None:
                shapes[name] = _image(data) if data.IsA("vtkImageData") else _surface(data)
        found[segmentID] = (segment.GetName(), tuple(segment.GetColor()), segment.GetLabelValue(), str(tag), shapes)
    return found


def _image(image):
    if image is None:
        return None
    scalars = image.GetPointData().GetScalars()
    data = None if scalars is None else (str(vtk_to_numpy(scalars).dtype), _hash(vtk_to_numpy(scalars)))
    matrix = _matrix(image.GetImageToWorldMatrix) if hasattr(image, "GetImageToWorldMatrix") else None
    return tuple(image.GetExtent()), tuple(image.GetOrigin()), tuple(image.GetSpacing()), matrix, data


def _surface(data):
    points = data.GetPoints()
    return (
        data.GetNumberOfPoints(),
        data.GetNumberOfCells(),
        _hash(vtk_to_numpy(points.GetData())) if points is not None and points.GetNumberOfPoints() else None,
    )


def _matrix(getter) -> bytes:
    matrix = vtk.vtkMatrix4x4()
    getter(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix).tobytes()


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
