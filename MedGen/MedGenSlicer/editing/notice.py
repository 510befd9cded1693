"""Tells how live editing goes where the user is: in Slicer's status bar and in a corner of the slice views."""

from __future__ import annotations

import textwrap

import slicer
import vtk

from MedGenSlicer.results.kept_views import nodesOf, sliceViews

STATUS_MS = 10_000
"""How long the status bar shows a sentence."""
LINE_LETTERS = 48
FONT_SIZES = (8, 14)
COLOR = (1.0, 0.9, 0.4)


class ViewNotice:
    """A sentence that is seen in every module. Its annotation is its own, because Slicer overwrites those of the views
    with every move of a slice."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[vtk.vtkRenderer, vtk.vtkCornerAnnotation]] = {}

    def show(self, sentence: str) -> None:
        """Show a sentence instead of the one before."""
        slicer.util.showStatusMessage(sentence, STATUS_MS)
        text = textwrap.fill(sentence, LINE_LETTERS)
        for view in sliceViews():
            self._annotationOf(view).SetText(vtk.vtkCornerAnnotation.LowerRight, text)
            view.sliceView().scheduleRender()

    def clear(self) -> None:
        """Take it out of the views."""
        for renderer, annotation in self._shown.values():
            renderer.RemoveViewProp(annotation)
        self._shown = {}
        for view in sliceViews():
            view.sliceView().scheduleRender()

    def _annotationOf(self, view) -> vtk.vtkCornerAnnotation:
        renderer, viewID = view.sliceView().renderWindow().GetRenderers().GetItemAsObject(0), nodesOf(view)[1].GetID()
        before, annotation = self._shown.get(viewID, (None, None))
        if before is not renderer:
            annotation = _annotation()
            renderer.AddViewProp(annotation)
            self._shown[viewID] = renderer, annotation
        return annotation


def _annotation() -> vtk.vtkCornerAnnotation:
    annotation = vtk.vtkCornerAnnotation()
    smallest, largest = FONT_SIZES
    annotation.SetMinimumFontSize(smallest)
    annotation.SetMaximumFontSize(largest)
    annotation.SetNonlinearFontScaleFactor(1)
    annotation.GetTextProperty().SetColor(*COLOR)
    annotation.GetTextProperty().SetShadow(True)
    return annotation
