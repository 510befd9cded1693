"""A result in 3D."""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.results.kept_views import setLayout


class Rendering:
    """Volume rendering of a result, with a preset for its modality; that of other results is hidden meanwhile.

    Attributes
    ----------
    layout: the layout that was set because the one before had no 3D view, None where it had.

    Raises
    ------
    InputError: Slicer comes without the Volume Rendering module.
    """

    def __init__(self, node) -> None:
        module = getattr(slicer.modules, "volumerendering", None)
        if module is None:
            raise InputError(_("The module Volume Rendering is not part of this Slicer; use the slice views."))
        self._node, self._logic = node, module.logic()
        self.layout: int | None = None
        self._hidden = [display for display in _displays() if display.GetVisibility()]
        self._cameras = [(camera, _copyOf(camera.GetCamera())) for camera in _nodes("vtkMRMLCameraNode")]

    def show(self) -> None:
        """Show it in the 3D views.

        Raises
        ------
        InputError: there is no 3D view, and no layout gives one.
        """
        self._openView()
        for display in self._hidden:
            display.SetVisibility(False)
        display = self._logic.GetFirstVolumeRenderingDisplayNode(self._node)
        if display is None:
            display = self._logic.CreateDefaultVolumeRenderingNodes(self._node)
            made = provenance.read(self._node)
            preset = self._logic.GetPresetByName(
                "CT-Bone" if made is not None and made.modality == "CT" else "MR-Default"
            )
            if preset is not None and display.GetVolumePropertyNode() is not None:
                display.GetVolumePropertyNode().Copy(preset)
        display.SetVisibility(True)
        slicer.app.layoutManager().resetThreeDViews()

    def hide(self) -> None:
        """Hide it again; other results and the cameras are as before."""
        shown = self._logic.GetFirstVolumeRenderingDisplayNode(self._node) if self._node.GetScene() else None
        if shown is not None:
            shown.SetVisibility(False)
        for display in self._hidden:
            if display.GetScene() is not None:
                display.SetVisibility(True)
        for node, camera in self._cameras:
            if node.GetScene() is not None:
                node.GetCamera().DeepCopy(camera)

    def _openView(self) -> None:
        if isAnyViewShown():
            return
        manager = slicer.app.layoutManager()
        self.layout = manager.layout
        setLayout(manager.layout)  # a slice view that was shown alone may have hidden it
        if not isAnyViewShown():
            self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
            setLayout(self.layout)
        if not isAnyViewShown():
            manager.layoutLogic().GetLayoutNode().Modified()  # makes the views that were deleted
        if not isAnyViewShown():
            raise InputError(_("No layout of this scene has a 3D view; choose one that has, then press 3D again."))


def isAnyViewShown() -> bool:
    """Whether the layout shows a 3D view."""
    return any(view.IsMappedInLayout() for view in _nodes("vtkMRMLViewNode"))


def _displays() -> list:
    """Volume renderings of the results of MedGen."""
    return [
        display
        for display in _nodes("vtkMRMLVolumeRenderingDisplayNode")
        if provenance.read(display.GetDisplayableNode()) is not None
    ]


def _nodes(className: str) -> list:
    return list(slicer.util.getNodesByClass(className))


def _copyOf(camera) -> vtk.vtkCamera:
    copy = vtk.vtkCamera()
    copy.DeepCopy(camera)
    return copy
