"""Results in Slicer's views: over their input, beside it, in 3D."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.kinds import isLabelMap, isMask


def showOver(inputNode, outputNode, opacity: float = 0.5) -> None:
    """Show a result in the slice views over its input; `setOpacity` then blends between them."""
    slicer.util.setSliceViewerLayers(
        background=None if isMask(inputNode) else inputNode,
        foreground=outputNode,
        label=inputNode if isLabelMap(inputNode) else None,
        foregroundOpacity=float(opacity),
        fit=False,
    )
    manager = slicer.app.layoutManager()
    if manager is not None and hasattr(manager, "resetSliceViews"):
        manager.resetSliceViews()


def setOpacity(opacity: float) -> None:
    """Opacity of the result over its input, 0 to 1, in every slice view."""
    slicer.util.setSliceViewerLayers(foregroundOpacity=float(opacity))


def compareSideBySide(inputNode, outputNode) -> None:
    """Input in the left view, result in the right one, moving together.

    Raises
    ------
    InputError: Slicer runs without views.
    """
    manager = _layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    orientation = None
    for view, node in (("Red", None if isMask(inputNode) else inputNode), ("Yellow", outputNode)):
        widget = manager.sliceWidget(view)
        if widget is None:
            continue
        composite = widget.sliceLogic().GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(node.GetID() if node is not None else None)
        composite.SetForegroundVolumeID(None)
        composite.SetLinkedControl(True)
        orientation = orientation or widget.sliceLogic().GetSliceNode().GetOrientation()
        widget.sliceLogic().GetSliceNode().SetOrientation(orientation)
    manager.resetSliceViews()


def show3D(node) -> None:
    """Volume rendering of a result, with a preset for its modality.

    Raises
    ------
    InputError: Slicer runs without views, or without the Volume Rendering module.
    """
    _layoutManager()
    module = getattr(slicer.modules, "volumerendering", None)
    if module is None:
        raise InputError(_("The module Volume Rendering is not part of this Slicer; use the slice views."))
    logic = module.logic()
    display = logic.CreateDefaultVolumeRenderingNodes(node)
    made = provenance.read(node)
    preset = logic.GetPresetByName("CT-Bone" if made is not None and made.modality == "CT" else "MR-Default")
    if preset is not None and display.GetVolumePropertyNode() is not None:
        display.GetVolumePropertyNode().Copy(preset)
    display.SetVisibility(True)


def showInstead(node, copy) -> None:
    """The slice views that show the volume show its copy."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if view.GetBackgroundVolumeID() == node.GetID():
            view.SetBackgroundVolumeID(copy.GetID())
        if view.GetForegroundVolumeID() == node.GetID():
            view.SetForegroundVolumeID(copy.GetID())


def _layoutManager():
    manager = slicer.app.layoutManager()
    if manager is None:
        raise InputError(_("Slicer runs without views, so there is nothing to show the result in."))
    return manager
