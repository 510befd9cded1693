"""Finds candidates of lesions in the worker: a segmentation, a point list and a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.hierarchy import placeBeside
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.results.segmentations import addSegmentation
from MedGenSlicer.results.sequences import voxelsOf
from MedGenSlicer.results.tables import addTable
from MedGenSlicer.results.volumes import removeResult


class DetectRun(Run):
    """One search; its nodes are the segmentation of the candidates, their point list and their table.

    Attributes
    ----------
    candidates: score, position_lps (in the frame of the volume), diameter_mm and volume_ml of each, the highest score
        first.
    """

    def __init__(self, engine: Engine, parameters: RunParameters) -> None:
        super().__init__(engine, parameters)
        self.candidates: list[dict[str, Any]] = []
        self.snapshot: InputSnapshot = parameters.options["image"]
        self._watch(self.snapshot.node, _("volume"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        return "detect", self.parameters.forWorker(folder)

    def _receive(self, answer: dict[str, Any]) -> dict[str, Any]:
        names = answer["labels"]["names"].values()
        labels = voxelsOf(answer["labels"])
        return answer | {"segments": [(name, (labels == n).astype(np.uint8)) for n, name in enumerate(names, 1)]}

    def _add(self, answer: dict[str, Any]) -> list:
        self.candidates, self.sentences = answer["candidates"], answer["notes"]
        node, scene, segments = self.snapshot.node, slicer.mrmlScene, answer["segments"]
        title, note = _("{name} candidates").format(name=self.snapshot.name), " ".join(self.sentences)
        added = [addSegmentation(node, node, title, segments)]
        try:
            added.append(scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName(title)))
            self._fill(added[1], [name for name, _voxels in segments])
            for one in added:
                one.SetDescription(note)
            figures = (_("Score"), "score", ""), (_("Diameter"), "diameter_mm", "mm"), (_("Volume"), "volume_ml", "ml")
            rows = [
                {"name": text, "label": name, "value": one[key], "unit": unit}
                for (name, _voxels), one in zip(segments, self.candidates, strict=True)
                for text, key, unit in figures
            ]
            added.append(addTable(f"{title} ({answer['model']})", rows, note, saveState=False))
        except BaseException:
            for one in added:
                removeResult(one)
            raise
        return added

    def _fill(self, points, names: list[str]) -> None:
        """The positions, under the transform of the volume."""
        toParent = self.snapshot.ijkToParent @ np.linalg.inv(self.snapshot.affine)
        for name, one in zip(names, self.candidates, strict=True):
            left, posterior, superior = one["position_lps"]
            points.AddControlPoint((toParent @ [-left, -posterior, superior, 1.0])[:3], name)
        points.SetAndObserveTransformNodeID(self.snapshot.node.GetTransformNodeID())
        points.SetLocked(True)
        placeBeside(points, self.snapshot.node)
