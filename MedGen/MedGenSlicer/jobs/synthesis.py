"""Runs that make volumes: from a mask, or from an image of another modality."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.console import RunParameters, pythonLine
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.labels import requireMapped
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import volumes as results

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


class SynthesisRun(Run):
    """Generates from a mask or translates an image.

    Attributes
    ----------
    snapshot: the input; None until the run is done where the model takes none.
    passed: whether all checks of input and output passed.
    report: the library's report as a dictionary.
    spreadNode: the voxel-wise standard deviation, where it was asked for.
    """

    def __init__(self, engine: Engine, parameters: RunParameters, manifest: Manifest, outputNode=None) -> None:
        super().__init__(engine, parameters)
        self.manifest, self.outputNode = manifest, outputNode
        self.snapshot: InputSnapshot | None = parameters.options.get("mask") or parameters.options.get("image")
        self.passed: bool | None = None
        self.report: dict[str, Any] = {}
        self.spreadNode = None
        self._watch(self.snapshot and self.snapshot.node, _("input"))
        self._watch(outputNode, _("output"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        chosen = self.parameters
        if chosen.options.get("mask") is not None and self.manifest.input.kind == "labels":
            chosen = chosen.replaced(mapping=self.snapshot.mappingByValue(chosen.options["mapping"]))
            requireMapped(self.snapshot.image, self.manifest, chosen.options["mapping"])
        return chosen.command, chosen.forWorker(folder)

    def _receive(self, answer: dict[str, Any]) -> tuple:
        volumes, spread = [take(item) for item in answer["volumes"]], answer.get("uncertainty")
        self.snapshot = self.snapshot or InputSnapshot.ofGrid(volumes[0])
        images = [results.prepareImage(volume) for volume in volumes]
        return answer, images, results.prepareImage(take(spread), spread=True) if spread else None

    def _add(self, received: tuple) -> list:
        answer, images, spread = received
        report, sentences, passed = answer["report"], list(answer.get("sentences") or []), bool(answer.get("passed"))
        self.report, self.sentences, self.passed = report, sentences, passed
        used = {name: report[name] for name in ("model", "seed") if name in report}
        self.parameters = self.parameters.replaced(**used)
        python = pythonLine(self.parameters)
        added: list = []
        try:
            for sample, image in enumerate(images):
                made = NodeProvenance.ofReport(
                    report,
                    sample,
                    modality=image.modality,
                    unit=image.unit,
                    checks=sentences,
                    passed=passed,
                    input=self.snapshot.name,
                    python=python,
                )
                output = self.outputNode if sample == 0 else None
                added.append(results.addResult(self.snapshot, image, made, output, saveState=sample == 0))
            if spread is not None:
                made = replace(made, content="spread", passed=None)
                self.spreadNode = results.addResult(self.snapshot, spread, made, saveState=False)
        except BaseException:
            for node in added:
                if node is not self.outputNode:
                    results.removeResult(node)
            raise
        return added
