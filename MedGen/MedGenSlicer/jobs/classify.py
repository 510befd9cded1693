"""Finds the class of an image in the worker."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import error_map, volumes
from MedGenSlicer.results.tables import addTable


class ClassifyRun(Run):
    """One classification; its node is a table of probabilities.

    Attributes
    ----------
    probabilities: class -> calibrated probability.
    saliencyNode: where the image speaks for the class; None if it was not asked for.
    """

    def __init__(self, engine: Engine, parameters: RunParameters) -> None:
        super().__init__(engine, parameters)
        self.probabilities: dict[str, float] = {}
        self.saliencyNode = None
        self._image = parameters.options["image"]
        self._watch(self._image.node, _("image"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        return "classify", self.parameters.forWorker(folder)

    def _receive(self, answer: dict[str, Any]) -> tuple[dict[str, Any], volumes.PreparedImage | None]:
        item = answer["saliency"]
        return answer, error_map.prepareErrorMap(take(item)) if item else None

    def _add(self, received: tuple[dict[str, Any], volumes.PreparedImage | None]) -> list:
        answer, saliency = received
        self.probabilities, self.sentences = answer["probabilities"], answer["notes"]
        rows = [{"name": _("Probability"), "label": name, "value": p} for name, p in self.probabilities.items()]
        title = _("{image} classes ({model})").format(image=self._image.name, model=answer["model"])
        table = addTable(title, rows, " ".join(self.sentences))
        if saliency is not None:
            made = NodeProvenance(
                content="saliency",
                task="classify",
                model=answer["model"],
                modelVersion=answer["version"],
                input=self._image.name,
                parameters={"target": answer["target"]},
            )
            try:
                self.saliencyNode = volumes.addResult(self._image, saliency, made, saveState=False)
                self.saliencyNode.GetDisplayNode().SetAndObserveColorNodeID(error_map.errorColors().GetID())
            except BaseException:
                slicer.mrmlScene.RemoveNode(table)
                raise
        return [table]
