"""Measures an image in the worker: against a reference, against the labels that it should show, or both."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.results import error_map
from MedGenSlicer.results.tables import addTable, anatomyRows
from MedGenSlicer.results.volumes import PreparedImage


class EvaluationRun(Run):
    """One evaluation; its node is a table of figures.

    Attributes
    ----------
    errorNode: the error map, None where there was no reference.
    report: path of the HTML report, "" where none was asked for.
    """

    def __init__(self, engine: Engine, parameters: RunParameters) -> None:
        super().__init__(engine, parameters)
        self.errorNode = None
        self.report = ""
        options = parameters.options
        self._inputs = {name: item for name, item in options.items() if isinstance(item, InputSnapshot)}
        roles = {
            "image": _("image"),
            "reference": _("reference"),
            "mask": _("mask"),
            "labels": _("labels"),
            "uncertainty": _("uncertainty"),
        }
        for name, snapshot in self._inputs.items():
            self._watch(snapshot.node, roles[name])

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        names = {name: snapshot.name for name, snapshot in self._inputs.items()}
        return "evaluate", {**self.parameters.forWorker(folder), "resample": True, "names": names}

    def _receive(self, answer: dict[str, Any]) -> tuple[dict[str, Any], PreparedImage | None]:
        item = answer.get("error_map")
        return answer, error_map.prepareErrorMap(take(item)) if item else None

    def _add(self, received: tuple[dict[str, Any], PreparedImage | None]) -> list:
        answer, errorImage = received
        rows = [*answer["rows"], *anatomyRows(answer.get("anatomy") or [])]
        note = answer.get("note") or ""
        self.sentences = [row["sentence"] for row in answer["rows"]] + ([note] if note else [])
        self.report = answer.get("report") or ""
        image, other = self._inputs["image"], self._inputs.get("reference") or self._inputs.get("labels")
        table = addTable(_("{image} against {other}").format(image=image.name, other=other.name), rows, note)
        if errorImage is not None:
            try:
                self.errorNode = error_map.addErrorMap(image, errorImage, other.name, saveState=False)
            except BaseException:
                slicer.mrmlScene.RemoveNode(table)
                raise
        return [table]
