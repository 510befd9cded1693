"""The structures of a mask: number, name, color, terminology. No voxel is touched."""

from __future__ import annotations

from dataclasses import dataclass

import slicer
import vtk

from MedGenSlicer.nodes.kinds import isLabelMap, isSegmentation


@dataclass(frozen=True)
class SegmentInfo:
    """One structure of a mask.

    value: its number in the label map that is sent; segmentID: empty for label maps; color: red, green, blue from
    0 to 1, or None; terminology: the type that the terminology names ("Liver"), empty where there is none.
    """

    value: int
    name: str
    color: tuple[float, float, float] | None = None
    terminology: str = ""
    segmentID: str = ""


def segmentsOf(node) -> list[SegmentInfo]:
    """The segments of a segmentation, or the named labels of a label map's own color table."""
    if isLabelMap(node):
        return [SegmentInfo(value, name, color) for value, (name, color) in _ownColors(node).items()]
    segmentation = node.GetSegmentation() if isSegmentation(node) else None
    if segmentation is None:
        return []
    count = segmentation.GetNumberOfSegments()
    segments = [segmentation.GetNthSegment(index) for index in range(count)]
    own = [segment.GetLabelValue() for segment in segments]
    # A segment's own label value is what the user knows it by; several layers may use the same one.
    if len(set(own)) < count or min(own, default=1) < 1 or max(own, default=1) > 65534:
        own = list(range(1, count + 1))
    return [
        SegmentInfo(
            value,
            segment.GetName() or "",
            tuple(segment.GetColor()),
            terminologyOf(segment),
            segmentation.GetNthSegmentID(index),
        )
        for index, (value, segment) in enumerate(zip(own, segments, strict=True))
    ]


def terminologyOf(segment) -> str:
    """The type in a segment's terminology entry ("Liver"), empty where there is none or it says only "Tissue"."""
    text = vtk.mutable("")
    if not segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text):
        return ""
    # Context~category^..~type code^scheme^meaning~modifier^^~anatomic context~region~modifier
    parts = str(text).split("~")
    meaning = parts[2].split("^")[-1] if len(parts) > 2 else ""
    return "" if meaning == "Tissue" else meaning


def _ownColors(node) -> dict[int, tuple[str, tuple[float, float, float]]]:
    """Names in a label map's color table, if it is the user's own: Slicer's built-in tables name every number
    something ("bone", "jake"), which says nothing about this mask."""
    display = node.GetDisplayNode()
    table = display.GetColorNode() if display is not None else None
    if table is None or not table.GetSaveWithScene() or not table.IsA("vtkMRMLColorTableNode"):
        return {}
    result = {}
    for value in range(1, min(table.GetNumberOfColors(), 65535)):
        name = table.GetColorName(value)
        if name and name != "(none)":
            color = [0.0] * 4
            table.GetColor(value, color)
            result[value] = (name, tuple(color[:3]))
    return result
