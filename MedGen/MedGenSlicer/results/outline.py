"""A segmentation drawn over an image: its outline, and as much of its fill as is asked for."""

from __future__ import annotations

from typing import Any

import slicer

DISPLAY = ("Visibility", "Visibility2D", "Visibility2DFill", "Visibility2DOutline", "Opacity2DFill", "Opacity2DOutline")
"""Properties of a segmentation's display node."""


class Outline:
    """How a segmentation is drawn in the slice views while an image below it is to be seen.

    Parameters
    ----------
    node: vtkMRMLSegmentationNode.
    """

    def __init__(self, node) -> None:
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        self.node, self._display = node, node.GetDisplayNode()
        self._kept = self._drawn = self._state()

    def draw(self, fill: float, viewID: str | None = None) -> None:
        """Draw the outline, if the segmentation was visible.

        Parameters
        ----------
        fill: opacity of the fill, 0 to 1; a hidden segmentation is shown for it.
        viewID: the view node that alone shows it; None for those that did.
        """
        isShown = bool(self._kept["Visibility"] and self._kept["Visibility2D"]) or fill > 0
        self._set(
            {
                "Visibility": isShown,
                "Visibility2D": isShown,
                "Visibility2DFill": fill > 0,
                "Visibility2DOutline": True,
                "Opacity2DFill": fill,
                "Opacity2DOutline": 1.0,
                "views": self._kept["views"] if viewID is None else [viewID],
            }
        )
        self._drawn = self._state()

    def restore(self) -> None:
        """Give back what was there before; what was changed elsewhere since, or deleted, is left alone."""
        if self._display.GetScene() is not None:
            state = self._state()
            self._set({name: value for name, value in self._kept.items() if state[name] == self._drawn[name]})

    def _state(self) -> dict[str, Any]:
        display = self._display
        views = [display.GetNthViewNodeID(index) for index in range(display.GetNumberOfViewNodeIDs())]
        return {**{name: getattr(display, f"Get{name}")() for name in DISPLAY}, "views": views}

    def _set(self, state: dict[str, Any]) -> None:
        display = self._display
        with slicer.util.NodeModify(display):
            for name in DISPLAY:
                if name in state:
                    getattr(display, f"Set{name}")(state[name])
            if "views" in state:
                display.RemoveAllViewNodeIDs()
                for viewID in state["views"]:
                    display.AddViewNodeID(viewID)


def outlineAll() -> list[Outline]:
    """Draw every visible segmentation as its outline, so that it covers nothing."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if display is not None and display.GetVisibility() and display.GetVisibility2DFill():
            found.append(Outline(node))
            found[-1].draw(0.0)
    return found
