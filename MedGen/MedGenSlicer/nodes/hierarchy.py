"""Slicer's subject hierarchy: which nodes belong together."""

from __future__ import annotations

import slicer
import vtk


def subjectHierarchy():
    """The subject hierarchy of the scene."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def attribute(node, name: str) -> str:
    """An attribute of a node's item, "" where it has none."""
    hierarchy = subjectHierarchy()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    return hierarchy.GetItemAttribute(item, name) if item else ""


def placeBeside(node, other) -> None:
    """Put a node under the same parent item as another one, where the hierarchy holds that."""
    hierarchy = subjectHierarchy()
    otherItem = hierarchy.GetItemByDataNode(other) if hierarchy is not None and other is not None else 0
    if not otherItem:
        return
    parent, item = hierarchy.GetItemParent(otherItem), hierarchy.GetItemByDataNode(node)
    if not item:
        hierarchy.CreateItem(parent, node)
    elif hierarchy.GetItemParent(item) != parent:
        hierarchy.SetItemParent(item, parent)


def volumesOfStudy(node) -> list:
    """The scalar volumes in the study of a node; empty where it is in none."""
    hierarchy = subjectHierarchy()
    item = hierarchy.GetItemByDataNode(node)
    study = hierarchy.GetItemAncestorAtLevel(item, "Study") if item else 0
    if not study:
        return []
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(study, children, True)
    found = [hierarchy.GetItemDataNode(children.GetId(index)) for index in range(children.GetNumberOfIds())]
    return [other for other in found if other is not None and other.IsA("vtkMRMLScalarVolumeNode")]
