"""slicer.app.layoutManager(): three slice views with real slice logics and no window."""

import numpy as np
import slicer
import vtk
from PySide6 import QtGui
from vtkmodules.util.numpy_support import vtk_to_numpy

SIZE = 256  # pixels of a slice view
ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


class SliceWidget:
    def __init__(self, name, orientation, scene, applicationLogic):
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(applicationLogic)
        self._logic.SetMRMLScene(scene)
        node = self._logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        node.SetDimensions(SIZE, SIZE, 1)

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self):
        self._logic.FitSliceToBackground()

    def image(self):
        """The blended slice (of the bridge only: the application would grab the view)."""
        self._logic.UpdatePipeline()
        blend = self._logic.GetImageDataConnection()
        if blend is None:
            return QtGui.QImage()
        blend.GetProducer().Update()
        data = blend.GetProducer().GetOutput()
        width, height, _ = data.GetDimensions()
        pixels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]
        pixels = np.ascontiguousarray(pixels.astype(np.uint8))
        return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


class LayoutManager:
    """The layouts are remembered, not drawn; there is no 3D view, as without a main window."""

    threeDViewCount = tableViewCount = plotViewCount = 0

    def __init__(self, scene, applicationLogic):
        self._widgets = {
            name: SliceWidget(name, orientation, scene, applicationLogic) for name, orientation in ORIENTATIONS.items()
        }
        self._logics = vtk.vtkCollection()
        for widget in self._widgets.values():
            self._logics.AddItem(widget.sliceLogic())
        applicationLogic.SetSliceLogics(self._logics)
        self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
        self._layoutNode = slicer.vtkMRMLLayoutNode()
        self._layoutNode.SetScene(scene)

    def layoutLogic(self):
        return self

    def GetLayoutNode(self):
        return self._layoutNode

    def setLayout(self, layout):
        if layout != self.layout:
            self.removeAllMaximizedViewNodes()
        self.layout = layout

    def addMaximizedViewNode(self, node):
        self._layoutNode.AddMaximizedViewNode(node)

    def removeAllMaximizedViewNodes(self):
        self._layoutNode.RemoveAllMaximizedViewNodes()

    def sliceViewNames(self):
        return tuple(self._widgets)

    def sliceWidget(self, name):
        return self._widgets.get(name)

    def mrmlSliceLogics(self):
        return self._logics

    def threeDWidget(self, _index):
        return None

    def resetSliceViews(self):
        for widget in self._widgets.values():
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self):
        """There are none."""
