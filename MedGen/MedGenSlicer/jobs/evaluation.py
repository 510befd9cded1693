"""Judges an image in the worker: against a reference, against the labels that it should show, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.synthesis import Run
from MedGenSlicer.nodes.reading import InputSnapshot
from MedGenSlicer.results import error_map
from MedGenSlicer.results.tables import addTable, anatomyRows
from MedGenSlicer.results.volumes import PreparedImage


@dataclass(frozen=True)
class EvaluationInputs:
    """What is judged, and by what.

    reference: the real image, or None; mask: where to compare; labels: structures that are measured by themselves;
    segmenter: name of what finds the labels again in the image, or None; uncertainty: a spread; reportFolder: where
    the HTML report goes, or None.
    """

    image: InputSnapshot
    reference: InputSnapshot | None = None
    mask: InputSnapshot | None = None
    labels: InputSnapshot | None = None
    segmenter: str | None = None
    uncertainty: InputSnapshot | None = None
    reportFolder: str | None = None

    @property
    def snapshots(self) -> dict[str, InputSnapshot | None]:
        """The nodes by the name of the worker's parameter."""
        return {
            "image": self.image,
            "reference": self.reference,
            "mask": self.mask,
            "labels": self.labels,
            "uncertainty": self.uncertainty,
        }


class EvaluationRun(Run):
    """One evaluation; its node is a table of figures.

    Attributes
    ----------
    sentences: the figures in words, then the note.
    errorNode: the error map, None where there was no reference.
    report: path of the HTML report, "" where none was asked for.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: EvaluationInputs,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> None:
        super().__init__(engine, inputs, onProgress, onDone)
        self.inputs = inputs
        self.sentences: list[str] = []
        self.errorNode = None
        self.report = ""
        roles = {
            "image": _("image"),
            "reference": _("reference"),
            "mask": _("mask"),
            "labels": _("labels"),
            "uncertainty": _("uncertainty"),
        }
        for name, snapshot in inputs.snapshots.items():
            if snapshot is not None:
                self._watch(slicer.mrmlScene.GetNodeByID(snapshot.nodeID), roles[name])

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        items = {
            name: put(snapshot.image, folder, name) if snapshot is not None else None
            for name, snapshot in self.inputs.snapshots.items()
        }
        names = {name: snapshot.name for name, snapshot in self.inputs.snapshots.items() if snapshot is not None}
        return "evaluate", {
            **items,
            "segmenter": self.inputs.segmenter,
            "resample": True,
            "folder": folder,
            "report": self.inputs.reportFolder,
            "names": names,
        }

    def _receive(self, answer: dict[str, Any]) -> tuple[dict[str, Any], PreparedImage | None]:
        item = answer.get("error_map")
        return answer, error_map.prepareErrorMap(take(item)) if item else None

    def _add(self, received: tuple[dict[str, Any], PreparedImage | None]) -> list:
        answer, errorImage = received
        rows = [*answer["rows"], *anatomyRows(answer.get("anatomy") or [])]
        note = answer.get("note") or ""
        self.sentences = [row["sentence"] for row in answer["rows"]] + ([note] if note else [])
        self.report = answer.get("report") or ""
        table = addTable(self._tableName(), rows, note)
        if errorImage is not None:
            try:
                self.errorNode = error_map.addErrorMap(
                    self.inputs.image, errorImage, self.inputs.reference.name, saveState=False
                )
            except BaseException:
                slicer.mrmlScene.RemoveNode(table)
                raise
        return [table]

    def _tableName(self) -> str:
        image, reference, labels = self.inputs.image, self.inputs.reference, self.inputs.labels
        if reference is None:
            return _("{image} against {labels}").format(image=image.name, labels=labels.name)
        return _("{image} against {reference}").format(image=image.name, reference=reference.name)
