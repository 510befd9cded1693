"""A breathing series of a CT: sequences in one browser."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results.sequences import (
    addBrowser,
    addSequence,
    frameOf,
    removeBrowser,
    showFirst,
    showLike,
    voxelsOf,
)


class BreatheRun(Run):
    """Makes a breathing series; its node is the sequence browser.

    Parameters
    ----------
    transforms: whether to add a sequence of transforms, too.

    Attributes
    ----------
    phases: what was measured in each phase, empty unless the run is done.
    tracks: name -> places in world RAS mm, of the points and of the centers of the labels.
    """

    def __init__(self, engine: Engine, parameters: RunParameters, transforms: bool = False) -> None:
        super().__init__(engine, parameters)
        self.snapshot: InputSnapshot = parameters.options["image"]
        self.transforms = transforms
        self.phases: list[dict[str, Any]] = []
        self.tracks: dict[str, list[list[float]]] = {}
        self._watch(self.snapshot.node, _("volume"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        return "breathe", {**self.parameters.forWorker(folder), "displacements": self.transforms}

    def _receive(self, answer: dict[str, Any]) -> dict[str, Any]:
        kinds = ["volumes", *(["labels"] if self.parameters.options["labels"] is not None else [])]
        return answer | {kind: [voxelsOf(item) for item in answer[kind]] for kind in kinds}

    def _add(self, answer: dict[str, Any]) -> list:
        self.sentences, self.phases, self.tracks = answer["sentences"], answer["phases"], answer["tracks"]
        name, source = self.snapshot.name, self.snapshot.node
        percents = [phase["percent"] for phase in self.phases]
        made = NodeProvenance(
            task="breathe", modality="CT", unit="HU", input=name, parameters=answer["parameters"], checks=self.sentences
        )
        browser = addBrowser(_("{name} breathing").format(name=name), source)
        try:
            volumes = addSequence(
                browser,
                _("{name} breathing CT").format(name=name),
                percents,
                lambda number: frameOf(self.snapshot, answer["volumes"][number], made),
            )
            if self.parameters.options["labels"] is not None:
                addSequence(
                    browser,
                    _("{name} breathing labels").format(name=name),
                    percents,
                    lambda number: frameOf(self.snapshot, answer["labels"][number], made, labels=True),
                )
            if self.transforms:
                addSequence(
                    browser,
                    _("{name} breathing transform").format(name=name),
                    percents,
                    lambda index: _transform(answer["displacements"][index]),
                )
            showFirst(browser)
            showLike(self.snapshot, browser.GetProxyNode(volumes))
        except BaseException:
            removeBrowser(browser)
            raise
        return [browser]


def placesOf(pointsNode) -> dict[str, list[float]]:
    """World RAS mm of the points of a list, by their labels.

    Raises
    ------
    InputError: it has none.
    """
    places = {}
    for index in range(pointsNode.GetNumberOfControlPoints()):
        position = [0.0, 0.0, 0.0]
        pointsNode.GetNthControlPointPositionWorld(index, position)
        places[pointsNode.GetNthControlPointLabel(index)] = position
    if not places:
        raise InputError(_("'{name}' has no point yet; place one in a slice view.").format(name=pointsNode.GetName()))
    return places


def _transform(path: str):
    """The grid transform of a displacement field."""
    node = slicer.vtkMRMLGridTransformNode()
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(path)
    if not storage.ReadData(node):
        raise RuntimeError(f"the displacement field {path} cannot be read")
    return node
