"""Files nodes into the subject hierarchy, which a Qt plugin does in the application.

The hierarchy must not be asked for while a scene is read or closed: it merges too early then and
is rebuilt from nothing.
"""

import slicer
import vtk


def _busy(scene) -> bool:
    return bool(scene.IsBatchProcessing() or scene.IsImporting() or scene.IsRestoring() or scene.IsClosing())


def _file(scene, node) -> None:
    shown = node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode") or node.IsA("vtkMRMLTextNode")
    if not shown or node.GetHideFromEditors():
        return
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if not tree.GetItemByDataNode(node):
        tree.CreateItem(tree.GetSceneItemID(), node)


def watch(scene) -> list:
    """Observe ``scene``; the caller keeps what is returned for as long as the scene."""

    def added(_scene, _event, node):
        if not _busy(scene):
            _file(scene, node)

    def removed(_scene, _event, node):
        tree = None if _busy(scene) else scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
        item = tree.GetItemByDataNode(node) if tree and node is not tree else 0
        if item:
            tree.RemoveItem(item, False, False)

    def settled(_scene, _event):
        for index in range(0 if _busy(scene) else scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            if node is not None:
                _file(scene, node)

    added.CallDataType = removed.CallDataType = vtk.VTK_OBJECT
    cls = slicer.vtkMRMLScene
    scene.AddObserver(cls.NodeAddedEvent, added)
    scene.AddObserver(cls.NodeAboutToBeRemovedEvent, removed)
    for event in (cls.EndImportEvent, cls.EndBatchProcessEvent):
        scene.AddObserver(event, settled, -100.0)  # after the hierarchy itself
    return [added, removed, settled]
