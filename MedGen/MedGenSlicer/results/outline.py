"""A mask drawn over an image: its outline, and as much of its fill as is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import slicer

from MedGenSlicer.results.kept_views import Layers, nodesOf, sliceViews

DISPLAY = ("Visibility", "Visibility2D", "Visibility2DFill", "Visibility2DOutline", "Opacity2DFill", "Opacity2DOutline")
"""Properties of a segmentation's display node."""
SAVED = "MedGen.Display"
"""Attribute of a display node: its identity, what was there before, and what is drawn instead."""


class Outline:
    """How a segmentation is drawn in the slice views while an image below it is to be seen. A scene that is saved
    meanwhile says what was there before, and `giveBackSaved` gives it back where that is loaded.

    Parameters
    ----------
    node: vtkMRMLSegmentationNode.
    """

    def __init__(self, node) -> None:
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        self.node, self.display = node, node.GetDisplayNode()
        self._kept = self._drawn = _stateOf(self.display)

    def draw(self, fill: float, viewID: str | None = None) -> None:
        """Draw the outline, if the segmentation was visible.

        Parameters
        ----------
        fill: opacity of the fill, 0 to 1; a hidden segmentation is shown for it.
        viewID: the view node that alone shows it; None for those that did.
        """
        isShown = bool(self._kept["Visibility"] and self._kept["Visibility2D"]) or fill > 0
        _set(
            self.display,
            {
                "Visibility": isShown,
                "Visibility2D": isShown,
                "Visibility2DFill": fill > 0,
                "Visibility2DOutline": True,
                "Opacity2DFill": fill,
                "Opacity2DOutline": 1.0,
                "views": self._kept["views"] if viewID is None else [viewID],
            },
        )
        self._drawn = _stateOf(self.display)
        self.display.SetAttribute(SAVED, json.dumps([_identity(self.display), self._kept, self._drawn]))

    def restore(self) -> None:
        """Give back what was there before; what was changed elsewhere since, or deleted, is left alone."""
        if self.display.GetScene() is not None:
            _giveBack(self.display, self._kept, self._drawn)


def keepLabels(node, before: Mapping[str, Layers], drawn: tuple[float, bool]) -> None:
    """Say in a label map's display node how the views drew labels, for a scene that is saved while it is an outline.

    Parameters
    ----------
    before: ID of a slice node -> what its view showed.
    drawn: opacity of the labels now, and whether they are outlines.
    """
    display = node.GetDisplayNode()
    if display is None:  # nor do views show it
        return
    kept = {viewID: _ofLabels(layers) for viewID, layers in before.items()}
    display.SetAttribute(SAVED, json.dumps([_identity(display), kept, [round(drawn[0], 6), drawn[1]]]))


def forgetLabels(node) -> None:
    """The views draw a label map again as before."""
    if node.GetDisplayNode() is not None:
        node.GetDisplayNode().RemoveAttribute(SAVED)


def outlineAll() -> list[Outline]:
    """Draw every visible segmentation as its outline, so that it covers nothing."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if display is not None and display.GetVisibility() and display.GetVisibility2DFill():
            found.append(Outline(node))
            found[-1].draw(0.0)
    return found


def giveBackSaved() -> None:
    """Draw masks that were loaded from a scene as they were before they became outlines."""
    for volume in slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode"):
        _giveBackLabels(volume, volume.GetDisplayNode())
    for display in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode"):
        identity, *states = json.loads(display.GetAttribute(SAVED) or "[null]")
        if states and identity != _identity(display):
            _giveBack(display, *states)


def _giveBackLabels(volume, display) -> None:
    identity, *states = json.loads((display and display.GetAttribute(SAVED)) or "[null]")
    if not states or identity == _identity(display):
        return
    before, drawn = states
    for view in sliceViews():
        layers, viewID = Layers.of(view), nodesOf(view)[1].GetID()
        if layers.label == volume.GetID() and viewID in before and _ofLabels(layers) == drawn:
            opacity, isOutline = before[viewID]
            replace(layers, labelOpacity=opacity, labelOutline=isOutline).show(view)
    display.RemoveAttribute(SAVED)


def _ofLabels(layers: Layers) -> list:
    # A scene file keeps six digits.
    return [round(layers.labelOpacity, 6), layers.labelOutline]


def _identity(display) -> str:
    """What a node that is loaded from a file does not share with the one that was saved."""
    return f"{os.getpid()} {display.GetAddressAsString('vtkObject')}"


def _giveBack(display, kept: dict[str, Any], drawn: dict[str, Any]) -> None:
    """What was there before, but for what was changed elsewhere since it was drawn."""
    state = _stateOf(display)
    _set(display, {name: value for name, value in kept.items() if state[name] == drawn[name]})
    display.RemoveAttribute(SAVED)


def _stateOf(display) -> dict[str, Any]:
    views = [display.GetNthViewNodeID(index) for index in range(display.GetNumberOfViewNodeIDs())]
    # A scene file keeps six digits.
    return {**{name: round(getattr(display, f"Get{name}")(), 6) for name in DISPLAY}, "views": views}


def _set(display, state: dict[str, Any]) -> None:
    with slicer.util.NodeModify(display):
        for name in DISPLAY:
            if name in state:
                getattr(display, f"Set{name}")(state[name])
        if "views" in state:
            display.RemoveAllViewNodeIDs()
            for viewID in state["views"]:
                display.AddViewNodeID(viewID)
