"""slicer.app.layoutManager(): the scene's own layout, slice and displayable manager logics, drawn off screen.

``image()`` of a slice or 3D view gives its pixels: the blended slice and everything that the scene's displayable
managers draw over it, such as segmentations. The window is made when it is first looked at.
"""

import xml.etree.ElementTree as ElementTree

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui
from vtkmodules.util.numpy_support import vtk_to_numpy

from .mrmlwidgets import callback
from .pythonqt import Property, StandIn

SIZES = {1: (512, 512), 2: (256, 512)}
"""Number of views in the layout -> width and height of each in pixels; `USUAL` for more."""
USUAL = (256, 256)
SLICE, THREE_D = "vtkMRMLSliceNode", "vtkMRMLViewNode"
MANAGERS = {
    SLICE: ("vtkMRMLSegmentationsDisplayableManager2D",),
    THREE_D: (
        "vtkMRMLCameraDisplayableManager",
        "vtkMRMLModelDisplayableManager",
        "vtkMRMLSegmentationsDisplayableManager3D",
        "vtkMRMLVolumeRenderingDisplayableManager",
    ),
}


class View:
    """The view of a slice or 3D widget, as ctkVTKAbstractView."""

    def __init__(self, node, application):
        self._node, self._application = node, application
        self._window = self._group = self._corner = None

    def renderWindow(self):
        if self._window is None:
            self._open()
        return self._window

    def renderer(self):
        return self.renderWindow().GetRenderers().GetFirstRenderer()

    def cornerAnnotation(self):
        """Other modules write into it at every move of the slice."""
        if self._corner is None:
            self._corner = vtk.vtkCornerAnnotation()
            self.renderer().AddViewProp(self._corner)
        return self._corner

    def scheduleRender(self):
        """It is drawn when it is looked at."""

    def resetFocalPoint(self):
        """Part of resetCamera() here."""

    def resetCamera(self):
        self.renderWindow().Render()  # what is shown is there only now
        self.renderer().ResetCamera()

    def _open(self):
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetNumberOfLayers(2)
        for layer in (0, 1):
            renderer = vtk.vtkRenderer()
            renderer.SetLayer(layer)
            self._window.AddRenderer(renderer)
            if self._node.IsA(THREE_D):
                break
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.SetRenderer(renderer)
        for name in MANAGERS[self._node.GetClassName()]:
            manager = getattr(slicer, name)()
            manager.SetMRMLApplicationLogic(self._application)
            self._group.AddDisplayableManager(manager)
        self._group.SetMRMLDisplayableNode(self._node)

    def _draw(self, width, height):
        window = self.renderWindow()
        window.SetSize(width, height)
        window.Render()
        window.Render()  # displayable managers catch up in the first one
        grabbed = vtk.vtkWindowToImageFilter()
        grabbed.SetInput(window)
        grabbed.SetInputBufferTypeToRGB()
        grabbed.ReadFrontBufferOff()
        grabbed.Update()
        data = grabbed.GetOutput()
        width, height, _ = data.GetDimensions()
        pixels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(height, width, 3)[::-1]
        pixels = np.ascontiguousarray(pixels.astype(np.uint8))
        return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


class SliceWidget:
    def __init__(self, node, scene, application):
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(node)
        node.SetDimensions(*USUAL, 1)
        self._view, self._blended = View(node, application), None

    def sliceLogic(self):
        return self._logic

    def sliceView(self):
        return self._view

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self):
        """As the button of the slice controller."""
        self._logic.FitSliceToBackground()
        self.mrmlSliceNode().UpdateMatrices()

    def _resize(self, width, height):
        self._logic.ResizeSliceNode(width, height)

    def image(self):
        """What the view shows (of the bridge only: the application would grab the view)."""
        self._logic.UpdatePipeline()
        if self._blended is None:
            self._mapper = vtk.vtkImageMapper()
            self._mapper.SetColorWindow(255)
            self._mapper.SetColorLevel(127.5)
            self._blended = vtk.vtkActor2D()
            self._blended.SetMapper(self._mapper)
            self._blended.GetProperty().SetDisplayLocationToBackground()
            self._view.renderer().AddActor2D(self._blended)
        blend = self._logic.GetImageDataConnection()
        self._blended.SetVisibility(blend is not None)
        if blend is not None:
            self._mapper.SetInputConnection(blend)
        return self._view._draw(*self.mrmlSliceNode().GetDimensions()[:2])


class ThreeDWidget:
    def __init__(self, node, _scene, application):
        self._node, self._size = node, USUAL
        self._view = View(node, application)

    def threeDView(self):
        return self._view

    def mrmlViewNode(self):
        return self._node

    def _resize(self, width, height):
        self._size = width, height

    def image(self):
        """What the view shows (of the bridge only)."""
        return self._view._draw(*self._size)


WIDGETS = {SLICE: SliceWidget, THREE_D: ThreeDWidget}


class LayoutManager(QtCore.QObject, StandIn):
    """Lays nothing out on a screen, but makes the views that a layout needs, with the properties that the scene's own
    layout logic gives them (new views only), and tells which are shown. Views change their size in the event loop,
    and a slice view its field of view with it.
    """

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene, application):
        super().__init__()
        self._scene, self._application = scene, application
        self._widgets = {SLICE: {}, THREE_D: {}}
        self._sliceLogics, self._layoutNode = vtk.vtkCollection(), None
        application.SetSliceLogics(self._sliceLogics)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._tags = [
            scene.AddObserver(scene.EndCloseEvent, callback(self._settled)),
            scene.AddObserver(scene.EndBatchProcessEvent, callback(self._settled)),
        ]
        self._timer = QtCore.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._resizeViews)
        self._settled(scene)
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._resizeViews()

    # what is there

    def layoutLogic(self):
        return self._logic

    layout = Property("int", lambda self: self._layoutNode.GetViewArrangement(), lambda self, n: self.setLayout(n))
    threeDViewCount = Property("int", lambda self: len(self._widgets[THREE_D]))
    sliceViewCount = Property("int", lambda self: len(self._widgets[SLICE]))
    tableViewCount = plotViewCount = Property("int", lambda self: 0)

    def sliceViewNames(self):
        return tuple(self._widgets[SLICE])

    def sliceWidget(self, name):
        return self._widgets[SLICE].get(name)

    def mrmlSliceLogics(self):
        return self._sliceLogics

    def threeDWidget(self, which):
        if isinstance(which, str):
            return self._widgets[THREE_D].get(which)
        widgets = list(self._widgets[THREE_D].values())
        return widgets[which] if 0 <= which < len(widgets) else None

    def viewWidget(self, node):
        return self._widgets.get(node.GetClassName(), {}).get(node.GetLayoutName())

    # what can be done

    def setLayout(self, layout):
        node = self._layoutNode
        if node.GetViewArrangement() == layout:
            return
        if not node.IsLayoutDescription(layout):
            layout = node.SlicerLayoutConventionalView
        node.RemoveAllMaximizedViewNodes()
        node.SetViewArrangement(layout)

    def addMaximizedViewNode(self, node):
        self._layoutNode.AddMaximizedViewNode(node)

    def removeAllMaximizedViewNodes(self):
        self._layoutNode.RemoveAllMaximizedViewNodes()

    def resetSliceViews(self):
        for widget in self._widgets[SLICE].values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self):
        for widget in self._widgets[THREE_D].values():
            widget.threeDView().resetFocalPoint()
            widget.threeDView().resetCamera()

    # how it follows the scene

    def _settled(self, _scene):
        node = self._logic.GetLayoutNode()
        if node is not self._layoutNode:
            self._layoutNode = node
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, callback(self._layoutModified))
        self._layoutModified(node)

    def _layoutModified(self, node):
        if self._scene.IsBatchProcessing() or self._scene.IsClosing() or node is not self._layoutNode:
            return
        self._followNodes()
        shown = self._shownNodes()
        for view in self._viewNodes():
            view.SetMappedInLayout(view in shown)
        self._timer.start()
        self.layoutChanged.emit(node.GetViewArrangement())

    def _viewNodes(self):
        return [node for kind in WIDGETS for node in slicer.util.getNodesByClass(kind)]

    def _followNodes(self):
        nodes = self._viewNodes()
        for node in nodes:
            widgets = self._widgets[node.GetClassName()]
            if node.GetLayoutName() not in widgets:
                widget = widgets[node.GetLayoutName()] = WIDGETS[node.GetClassName()](
                    node, self._scene, self._application
                )
                if node.IsA(SLICE):
                    self._sliceLogics.AddItem(widget.sliceLogic())
        for kind, widgets in self._widgets.items():
            there = {node.GetLayoutName() for node in nodes if node.IsA(kind)}
            for name in [name for name in widgets if name not in there]:
                gone = widgets.pop(name)
                if kind == SLICE:
                    self._sliceLogics.RemoveItem(gone.sliceLogic())

    def _shownNodes(self):
        node = self._layoutNode
        maximized = [node.GetMaximizedViewNode(index) for index in range(node.GetNumberOfMaximizedViewNodes())]
        if maximized:
            return maximized
        views = ElementTree.fromstring(node.GetCurrentLayoutDescription() or "<layout/>").iter("view")
        wanted = {(view.get("class"), view.get("singletontag")) for view in views}
        return [node for node in self._viewNodes() if (node.GetClassName(), node.GetLayoutName()) in wanted]

    def _resizeViews(self):
        shown = self._shownNodes()
        for node in shown:
            self.viewWidget(node)._resize(*SIZES.get(len(shown), USUAL))
