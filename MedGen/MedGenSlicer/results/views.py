"""Results in Slicer's views: over their input, beside it, in 3D."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.engine.background import ignore
from MedGenSlicer.nodes.kinds import isLabelMap, isSegmentation
from MedGenSlicer.results.fit import emptyViews, fitWhereUnseen
from MedGenSlicer.results.kept_views import KeptViews, Layers, SlicePlane, nodesOf, setLayout, sliceViews
from MedGenSlicer.results.outline import Outline, forgetLabels, keepLabels
from MedGenSlicer.results.volume_rendering import Rendering, isAnyViewShown

BESIDE = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
LEFT, RIGHT = "Red", "Yellow"
"""The slice views of that layout."""
MASK_FILL = 0.5
"""Opacity of a mask beside its result."""


class ResultView:
    """Shows a result in the slice views: alone at first, with the outline of the mask that it was made from, blended
    with its input, beside it, or in 3D. Zoom and plane of the views stay where they show something of it.

    Parameters
    ----------
    onMode: called when the mode has changed.

    Attributes
    ----------
    mode: "over" (the input), "beside" or "3D".
    """

    def __init__(self, onMode: Callable[[], None] = ignore) -> None:
        self._onMode = onMode
        self.mode = "over"
        self._input = self._result = self._outline = None
        self._before: dict = {}
        self._ours: set[str] = set()
        self._kept: KeptViews | None = None
        self._rendering: Rendering | None = None
        self._share = 0.0
        self._manager = None

    def show(self, inputNode, resultNode, share: float = 0.0) -> None:
        """Show a result instead of the one before.

        Parameters
        ----------
        inputNode: what it was made from, None where that is gone.
        share: how much of the input is seen over it, 0 to 1.
        """
        empty = emptyViews()
        if inputNode is None and self.mode == "beside":
            self.showOver()
        if inputNode is not self._input:
            self._restoreOutline()
            if isSegmentation(inputNode):
                self._outline = Outline(inputNode)
        self._input, self._result = inputNode, resultNode
        self._ours.add(resultNode.GetID())
        for view in sliceViews():
            layers, viewID = Layers.of(view), nodesOf(view)[1].GetID()
            isEmptied = layers.background is None and viewID in self._before
            if layers.background not in self._ours and not isEmptied:
                self._before[viewID] = layers
            self._layers(share).show(view)
        if self.mode == "beside":
            self._fillBeside()
        elif self.mode == "3D":
            self._leave()
            self.show3D()
        self.blend(share)
        if self.mode == "over":
            fitWhereUnseen(resultNode, empty)

    @property
    def hasInput(self) -> bool:
        """Whether the result is shown with its input."""
        return self._input is not None

    def blend(self, share: float) -> None:
        """How much of the input is seen over the result, 0 to 1: of an image its opacity, of a mask that of its fill,
        at 0 its outline."""
        self._share = share
        if self.mode == "beside" or self._result is None:
            return
        self._draw(self._showing() or sliceViews())

    def showBeside(self) -> None:
        """Input in the left view, result in the right one, moving together.

        Raises
        ------
        InputError: Slicer runs without views, or the input was deleted.
        """
        _requireViews()
        if self._input is None:
            raise InputError(_("The input is no longer in the scene, so there is nothing to compare the result with."))
        self.showOver()
        shown = [view for view in sliceViews() if nodesOf(view)[1].IsMappedInLayout()]
        plane = SlicePlane.of(shown[0]) if shown else None
        self._keep("beside")
        setLayout(BESIDE)
        for view in _pair():
            if plane is not None:
                plane.show(view)
            nodesOf(view)[0].SetLinkedControl(True)
        self._fillBeside()
        fitWhereUnseen(self._result, [], _pair())
        self._onMode()

    def show3D(self) -> None:
        """Volume rendering of the result, in a layout with a 3D view.

        Raises
        ------
        InputError: Slicer runs without views or without the Volume Rendering module, or has no 3D view.
        """
        _requireViews()
        self.showOver()
        rendering = Rendering(self._result)
        self._keep("3D")
        self._rendering = rendering
        try:
            rendering.show()
        except InputError:
            self.showOver()
            raise
        self._onMode()

    def showOver(self) -> None:
        """Back from the other modes: everything is again as it was."""
        if self.mode != "over":
            self._leave()
            self._draw(self._showing())
            self._onMode()

    def close(self) -> None:
        """The result goes: the views show again what they showed before, and the mask is drawn as before."""
        if self.mode != "over":
            self._leave()
            self._onMode()
        self._restoreOutline()
        for view in sliceViews():
            layers = self._before.get(nodesOf(view)[1].GetID())
            if layers is not None and Layers.of(view).background in (None, *self._ours):
                layers.show(view)
        self._input = self._result = None
        self._before, self._ours = {}, set()

    def _showing(self) -> list:
        return [view for view in sliceViews() if Layers.of(view).background == self._result.GetID()]

    def _draw(self, views: list) -> None:
        layers = self._layers(self._share)
        for view in views:
            layers.show(view)
        if isLabelMap(self._input):
            keepLabels(self._input, self._before, (layers.labelOpacity, layers.labelOutline))
        if self._outline is not None:
            self._outline.draw(self._share)

    def _keep(self, mode: str) -> None:
        self.mode, self._kept = mode, KeptViews()
        self._manager = slicer.app.layoutManager()
        self._manager.layoutChanged.connect(self._layoutChanged)

    def _leave(self) -> None:
        """Give back what a mode has changed; a layout that the user has chosen meanwhile stays."""
        isBeside, kept = self.mode == "beside", self._kept
        self.mode, self._kept = "over", None
        manager = slicer.app.layoutManager()
        if self._manager is not None:
            self._manager.layoutChanged.disconnect(self._layoutChanged)
            self._manager = None
        rendering, self._rendering = self._rendering, None
        if rendering is not None:
            rendering.hide()
        if manager is None:  # Slicer ends, and its views are gone already
            return
        isOurLayout = manager.layout == (BESIDE if isBeside else rendering.layout)
        if isBeside or isOurLayout:
            kept.restore(isOurLayout, [view for view in sliceViews() if not self._isOurs(view)])

    def _isOurs(self, view) -> bool:
        """Whether a slice view shows result or input; a node that was deleted leaves nothing."""
        inputID = self._input.GetID() if self._input is not None else None
        layers, known = Layers.of(view), (None, inputID, *self._ours)
        return layers.background in known and layers.label in known

    def _layoutChanged(self) -> None:
        """The user chose another layout; what is kept of the views comes back once that is there."""
        qt.QTimer.singleShot(0, self._checkLayout)

    def _checkLayout(self) -> None:
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        isLeft = self.mode == "beside" and manager.layout != BESIDE
        if isLeft or self.mode == "3D" and not isAnyViewShown():
            self.showOver()

    def _layers(self, share: float) -> Layers:
        node, result = self._input, self._result.GetID()
        if isLabelMap(node):
            return Layers(result, None, node.GetID(), labelOpacity=share or 1.0, labelOutline=not share)
        if node is None or isSegmentation(node):
            return Layers(result)
        return Layers(result, node.GetID(), foregroundOpacity=share)

    def _fillBeside(self) -> None:
        left, right = _pair()
        node = self._input
        if isLabelMap(node):
            Layers(label=node.GetID(), labelOpacity=1.0, labelOutline=False).show(left)
        else:
            Layers(None if isSegmentation(node) else node.GetID()).show(left)
        Layers(self._result.GetID()).show(right)
        if self._outline is not None:
            self._outline.draw(MASK_FILL, nodesOf(left)[1].GetID())

    def _restoreOutline(self) -> None:
        if isLabelMap(self._input):
            forgetLabels(self._input)
        outline, self._outline = self._outline, None
        if outline is not None:
            outline.restore()


def showInstead(node, copy) -> None:
    """The slice views that show a volume show its copy; all of them where none shows it."""
    found = False
    for view in sliceViews():
        composite = nodesOf(view)[0]
        if composite.GetBackgroundVolumeID() == node.GetID():
            composite.SetBackgroundVolumeID(copy.GetID())
            found = True
        if composite.GetForegroundVolumeID() == node.GetID():
            composite.SetForegroundVolumeID(copy.GetID())
            found = True
    if not found:
        empty = emptyViews()
        slicer.util.setSliceViewerLayers(background=copy)
        fitWhereUnseen(copy, empty)


def _pair() -> tuple:
    manager = slicer.app.layoutManager()
    return manager.sliceWidget(LEFT), manager.sliceWidget(RIGHT)


def _requireViews() -> None:
    if slicer.app.layoutManager() is None:
        raise InputError(_("Slicer runs without views, so there is nothing to show the result in."))
