"""Keeps selectors from taking another node where theirs is deleted or hidden."""

from collections.abc import Callable

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

BEFORE_SELECTORS = 100.0
"""Priority among the observers of a node and of the scene."""


class Selections(VTKObservationMixin):
    """Deselects a node that is deleted or hidden before the selectors hear of it: Qt's combo box would select the one
    above it in the list, and the parameter would follow.

    Parameters
    ----------
    tell(sentence): called when a node was deselected.
    titleOf(parameter): what the panel calls a parameter.
    """

    def __init__(self, tell: Callable[[str], None], titleOf: Callable[[str], str]) -> None:
        VTKObservationMixin.__init__(self)
        self._tell, self._titleOf = tell, titleOf
        self._parameters = None
        self._followed: dict[str, object] = {}
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._removed, priority=BEFORE_SELECTORS)

    def follow(self, parameters) -> None:
        """Look after what this parameter node selects; None for nothing. Call it again when that has changed."""
        self._parameters = parameters
        selected = {} if parameters is None else {node.GetID(): node for _name, node in self._selected()}
        event = vtk.vtkCommand.ModifiedEvent
        for nodeID, node in self._followed.items():
            if selected.get(nodeID) is not node:
                self.removeObserver(node, event, self._modified)
        for nodeID, node in selected.items():
            if self._followed.get(nodeID) is not node:
                self.addObserver(node, event, self._modified, priority=BEFORE_SELECTORS)
        self._followed = selected

    def _selected(self) -> list[tuple[str, object]]:
        values = [(name, getattr(self._parameters, name)) for name in self._parameters.allParameters]
        return [(name, value) for name, value in values if isinstance(value, slicer.vtkMRMLNode)]

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, caller, event, node) -> None:
        if not slicer.mrmlScene.IsClosing():
            self._deselect(node, _("'{name}' was deleted and is no longer selected: {selectors}."))

    def _modified(self, node, event=None) -> None:
        if node.GetHideFromEditors():
            self._deselect(node, _("'{name}' was hidden and is no longer selected: {selectors}."))

    def _deselect(self, node, sentence: str) -> None:
        held = [name for name, value in self._selected() if value is node] if self._parameters is not None else []
        if not held:
            return
        with slicer.util.NodeModify(self._parameters.parameterNode):
            for name in held:
                setattr(self._parameters, name, None)
        titles = dict.fromkeys(self._titleOf(name) for name in held)
        self._tell(sentence.format(name=node.GetName(), selectors=", ".join(titles)))
