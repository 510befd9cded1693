"""Runs that make volumes: from a mask, or from an image of another modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    sentences: of the input and output checks; passed: whether all checks passed.
    report: the library's report as a dictionary.
    spreadNode: the voxel-wise standard deviation, where it was asked for.
    """

    parameters: RunParameters

    def __init__(
        self,
        engine: Engine,
        parameters: RunParameters,
        manifest: Manifest,
        outputNode=None,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> None:
        super().__init__(engine, parameters, onProgress, onDone)
        self.manifest, self.outputNode = manifest, outputNode
        self.snapshot: InputSnapshot | None = parameters.options.get("mask") or parameters.options.get("image")
        self.sentences: list[str] = []
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

    def _receive(self, answer: dict[str, Any]) -> _Received:
        volumes = [take(item) for item in answer["volumes"]]
        spread = answer.get("uncertainty")
        return _Received(
            self.snapshot or InputSnapshot.ofGrid(volumes[0]),
            [results.prepareImage(volume) for volume in volumes],
            results.prepareImage(take(spread), spread=True) if spread else None,
            answer["report"],
            list(answer.get("sentences") or []),
            bool(answer.get("passed")),
        )

    def _add(self, received: _Received) -> list:
        self.report, self.sentences, self.passed = received.report, received.sentences, received.passed
        self.snapshot = received.snapshot
        used = {name: received.report[name] for name in ("model", "seed") if name in received.report}
        self.parameters = self.parameters.replaced(**used)
        python = pythonLine(self.parameters)
        added: list = []
        try:
            for sample, image in enumerate(received.images):
                made = NodeProvenance.ofReport(
                    received.report,
                    sample,
                    modality=image.modality,
                    unit=image.unit,
                    checks=received.sentences,
                    passed=received.passed,
                    input=self.snapshot.name,
                    python=python,
                )
                output = self.outputNode if sample == 0 else None
                added.append(results.addResult(self.snapshot, image, made, output, saveState=sample == 0))
            if received.spread is not None:
                made = replace(made, content="spread", passed=None)
                self.spreadNode = results.addResult(self.snapshot, received.spread, made, saveState=False)
        except BaseException:
            for node in added:
                if node is not self.outputNode:
                    results.removeResult(node)
            raise
        return added


@dataclass(frozen=True)
class _Received:
    snapshot: InputSnapshot
    images: list[results.PreparedImage]
    spread: results.PreparedImage | None
    report: dict[str, Any]
    sentences: list[str] = field(default_factory=list)
    passed: bool = False
