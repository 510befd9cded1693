"""What Slicer's views show and where, kept so that it can be given back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import qt
import slicer
import vtk


@dataclass(frozen=True)
class Layers:
    """What a slice view shows, by the IDs of the nodes, None for nothing; opacities and the outline of labels, None
    for those that the view has."""

    background: str | None = None
    foreground: str | None = None
    label: str | None = None
    foregroundOpacity: float | None = None
    labelOpacity: float | None = None
    labelOutline: bool | None = None

    @classmethod
    def of(cls, view) -> Layers:
        composite, node = nodesOf(view)
        return cls(
            composite.GetBackgroundVolumeID(),
            composite.GetForegroundVolumeID(),
            composite.GetLabelVolumeID(),
            composite.GetForegroundOpacity(),
            composite.GetLabelOpacity(),
            bool(node.GetUseLabelOutline()),
        )

    @property
    def isEmpty(self) -> bool:
        """Whether no volume is shown."""
        return not (self.background or self.foreground or self.label)

    def show(self, view) -> None:
        """Show them in a slice view; nodes that are gone are left out."""
        composite, node = nodesOf(view)
        composite.SetBackgroundVolumeID(_present(self.background))
        composite.SetForegroundVolumeID(_present(self.foreground))
        composite.SetLabelVolumeID(_present(self.label))
        for setter, value in (
            (composite.SetForegroundOpacity, self.foregroundOpacity),
            (composite.SetLabelOpacity, self.labelOpacity),
            (node.SetUseLabelOutline, self.labelOutline),
        ):
            if value is not None:
                setter(value)


@dataclass(frozen=True)
class SlicePlane:
    """The plane of a slice view, and which part of it is shown how large."""

    sliceToRAS: vtk.vtkMatrix4x4
    fieldOfView: tuple[float, ...]
    size: tuple[int, ...]
    origin: tuple[float, ...]

    @classmethod
    def of(cls, view) -> SlicePlane:
        node = nodesOf(view)[1]
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(node.GetSliceToRAS())
        return cls(matrix, tuple(node.GetFieldOfView()), tuple(node.GetDimensions()), tuple(node.GetXYZOrigin()))

    def show(self, view) -> None:
        """Turn a slice view to this plane; a view of another size shows it with the same mm per pixel."""
        node = nodesOf(view)[1]
        node.GetSliceToRAS().DeepCopy(self.sliceToRAS)
        node.UpdateMatrices()
        sizes = zip(self.fieldOfView, node.GetDimensions(), self.size, strict=True)
        node.SetFieldOfView(*(mm * now / before for mm, now, before in sizes))
        node.SetXYZOrigin(*self.origin)


@dataclass(frozen=True)
class KeptView:
    """A slice view as it was."""

    view: object
    layers: Layers
    plane: SlicePlane
    linked: bool

    @classmethod
    def of(cls, view) -> KeptView:
        return cls(view, Layers.of(view), SlicePlane.of(view), bool(nodesOf(view)[0].GetLinkedControl()))

    def restore(self) -> None:
        self.layers.show(self.view)
        self.plane.show(self.view)
        nodesOf(self.view)[0].SetLinkedControl(self.linked)


class KeptViews:
    """The layout, and every slice view, as they are when it is made."""

    def __init__(self) -> None:
        manager = slicer.app.layoutManager()
        self._layout, self._maximized = manager.layout, maximizedViews()
        self._views = [KeptView.of(view) for view in sliceViews()]

    def restore(self, withLayout: bool = True, without: Iterable = ()) -> None:
        """Give everything back.

        Parameters
        ----------
        withLayout: whether the layout comes back, too.
        without: slice views that stay as they are.
        """
        if withLayout:
            setLayout(self._layout, self._maximized)
        else:
            _settle()
        there = sliceViews()
        for kept in self._views:
            if kept.view in there and kept.view not in without:
                kept.restore()


def sliceViews() -> list:
    """The slice views of all layouts that were used; none where Slicer runs without views."""
    manager = slicer.app.layoutManager()
    return [] if manager is None else [manager.sliceWidget(name) for name in manager.sliceViewNames()]


def nodesOf(view) -> tuple:
    """The composite node and the slice node of a slice view."""
    logic = view.sliceLogic()
    return logic.GetSliceCompositeNode(), logic.GetSliceNode()


def maximizedViews() -> list:
    """The view nodes that are shown alone, as after a double click on them, without the others of their layout."""
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    return [node.GetMaximizedViewNode(index) for index in range(node.GetNumberOfMaximizedViewNodes())]


def setLayout(layout: int, maximized: list | None = None) -> None:
    """Slice views that change their size change their field of view too; afterwards it can be set.

    maximized: view nodes that alone are shown; None for the whole layout.
    """
    manager, wanted = slicer.app.layoutManager(), maximized or []
    if manager.layout == layout and maximizedViews() == wanted:
        return
    manager.setLayout(layout)
    manager.removeAllMaximizedViewNodes()
    for node in wanted:
        manager.addMaximizedViewNode(node)
    _settle()


def _settle() -> None:
    """Let the views of a new layout get their size."""
    if not slicer.mrmlScene.IsClosing():
        # A second click on a button must not come between.
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)


def _present(nodeID: str | None) -> str | None:
    return nodeID if nodeID and slicer.mrmlScene.GetNodeByID(nodeID) is not None else None
