"""One run: from a snapshot of the input, through the worker, to nodes in the scene.

States: "idle" -> "preparing" (worker starts, input is written) -> "running" -> "importing" -> "done"; or "failed" or
"cancelled" from anywhere. Nothing is added to the scene before "importing", and then everything or nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer import console
from MedGenSlicer.engine.background import Background
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.nodes.provenance import Provenance
from MedGenSlicer.nodes.reading import InputSnapshot, requireMapped
from MedGenSlicer.results import volumes as results

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest

WAIT_SECONDS = 0.005


@dataclass(frozen=True)
class RunParameters:
    """Every choice of a run, as the console takes them; see `MedGenLogic.generate` and `.translate`."""

    task: str
    inputID: str
    inputName: str
    model: str | None = None
    to: str | None = None
    seed: int | None = None
    preset: str = "normal"
    device: str = "auto"
    samples: int = 1
    mapping: Any = None
    fill: int | str | None = None
    noiseHU: float | None = None
    styleID: str | None = None
    styleName: str = ""
    guidance: float | None = None
    classifierGuidance: float = 0.0
    spread: bool = False
    acceptLicense: bool = False
    outputID: str | None = None


class Run:
    """The handle of a run.

    Attributes
    ----------
    state: see the module; isDone tells whether it has ended, however.
    progress: the last progress: {"stage", "step", "total", "seconds_left", "memory_mib"}.
    error: what ended it (MedGenLib.errors), None when it is done.
    nodes: what was added or written, empty unless it is done.
    parameters: the choices it was started with; after the end with the seed and the model that were used.
    """

    def __init__(
        self,
        engine: Engine,
        parameters: Any = None,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> None:
        self.engine, self.parameters = engine, parameters
        self.state = "idle"
        self.progress: dict[str, Any] = {}
        self.error: MedGenError | None = None
        self.nodes: list = []
        self._onProgress, self._onDone = onProgress, onDone
        self._folder: str | None = None
        self._watched: dict[str, str] = {}
        self._observers: list[int] = []
        self._firstLine = engine.lineCount

    @property
    def isDone(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def node(self):
        """The first of `nodes`, None if there is none."""
        return self.nodes[0] if self.nodes else None

    @property
    def log(self) -> str:
        """What the worker wrote during this run."""
        return self.engine.logSince(self._firstLine)

    def start(self) -> Run:
        """Begin; returns at once."""
        self.state = "preparing"
        self._tell({"stage": _("starting the worker"), "step": 0, "total": 0, "seconds_left": None, "memory_mib": None})
        if self.isDone:  # cancelled by whom it was told
            return self
        scene = slicer.mrmlScene
        self._observers = [
            scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._onNodeRemoved),
            scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing),
        ]
        self.engine.start(self._onReady, self._fail)
        return self

    def cancel(self) -> None:
        """Stop; nothing is added. Ends the worker and its children, the next run starts another."""
        if not self.isDone:
            self._end("cancelled", Cancelled(_("The run was cancelled; nothing was added.")))

    def wait(self, timeout: float | None = None) -> Run:
        """Let Slicer's event loop go on until the run has ended.

        timeout: seconds after which WorkerError is raised; the run goes on.
        """
        start = time.monotonic()
        try:
            while not self.isDone:
                if timeout is not None and time.monotonic() - start > timeout:
                    raise WorkerError(
                        _("The run has not ended within {seconds:g} s; it goes on.").format(seconds=timeout)
                    )
                slicer.app.processEvents()
                time.sleep(WAIT_SECONDS)
        except KeyboardInterrupt:
            self.cancel()
            raise
        return self

    def result(self):
        """Wait, then the node (a list where several were asked for); raises the run's error."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self.nodes if len(self.nodes) > 1 else self.node

    # What the kinds of runs differ in.

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        """In a thread: write the input into `folder`; the worker's method and its parameters."""
        raise NotImplementedError

    def _receive(self, answer: dict[str, Any]) -> Any:
        """In a thread: read the worker's files."""
        raise NotImplementedError

    def _add(self, received: Any) -> list:
        """In the GUI thread: add to the scene everything or nothing; the nodes."""
        raise NotImplementedError

    # The steps.

    def _onReady(self, info: dict) -> None:
        if self.isDone:
            return
        try:
            self._folder = folder = self.engine.runFolder()
        except MedGenError as error:
            self._fail(error)
            return
        self._tell({**self.progress, "stage": _("writing the input")})
        if not self.isDone:
            self._inBackground(lambda: self._request(folder), self._send)

    def _send(self, request: tuple[str, dict[str, Any]]) -> None:
        self.state = "running"
        self.engine.request(*request, onResult=self._onAnswer, onError=self._fail, onProgress=self._onWorkerProgress)

    def _onWorkerProgress(self, progress: dict) -> None:
        if self.state == "running":
            self._tell(progress)

    def _onAnswer(self, answer: dict) -> None:
        if self.isDone:
            return
        self.state = "importing"
        self._tell({**self.progress, "stage": _("reading the result"), "step": 0, "total": 0, "seconds_left": None})
        if not self.isDone:
            self._inBackground(lambda: self._receive(answer), self._import)

    def _import(self, received: Any) -> None:
        try:
            nodes = self._add(received)
        except Exception as error:
            self._failUnexpectedly(error)
            return
        self.nodes = nodes
        self._end("done")

    def _inBackground(self, function: Callable[[], Any], onDone: Callable[[Any], None]) -> None:
        folder = self._folder

        def done(result: Any) -> None:
            if self.isDone:
                _removeFolder(folder, withParent=True)  # written to after it was removed
            else:
                onDone(result)

        def failed(error: Exception) -> None:
            if self.isDone:
                _removeFolder(folder, withParent=True)
            else:
                self._failUnexpectedly(error)

        Background(function, done, failed)

    # Ends.

    def _fail(self, error: MedGenError) -> None:
        if not self.isDone:
            self._end("cancelled" if isinstance(error, Cancelled) else "failed", error)

    def _failUnexpectedly(self, error: Exception) -> None:
        if not self.isDone:
            self._fail(asSentence(error))

    def _end(self, state: str, error: MedGenError | None = None, stopWorker: bool = False) -> None:
        self.state, self.error = state, error
        for tag in self._observers:
            slicer.mrmlScene.RemoveObserver(tag)
        self._observers = []
        if stopWorker or state == "cancelled":
            self.engine.cancel()
        if self._folder is not None:
            folder, self._folder = self._folder, None
            Background(lambda: _removeFolder(folder), _nothing, _nothing)
        if self._onDone is not None:
            try:
                self._onDone(self)
            except Exception:  # a caller's mistake must not leave the run half-ended
                logging.exception("MedGen: onDone of a run raised")

    def _tell(self, progress: dict) -> None:
        self.progress = progress
        if self._onProgress is None:
            return
        try:
            self._onProgress(progress)
        except Exception:
            logging.exception("MedGen: onProgress of a run raised")

    def _watch(self, node, role: str) -> None:
        """Stop the run when this node goes."""
        if node is not None:
            self._watched[node.GetID()] = _("{role} '{name}'").format(role=role, name=node.GetName())

    def _onNodeRemoved(self, caller=None, event=None) -> None:
        if self.isDone or slicer.mrmlScene.IsClosing():
            return
        for nodeID, name in self._watched.items():
            if slicer.mrmlScene.GetNodeByID(nodeID) is None:
                self._stop(
                    InputError(
                        _("The {node} was deleted during the run, so the run was stopped; nothing was added.").format(
                            node=name
                        )
                    )
                )
                return

    def _onSceneClosing(self, caller=None, event=None) -> None:
        if not self.isDone:
            self._stop(InputError(_("The scene was closed during the run, so the run was stopped; nothing was added.")))

    def _stop(self, error: MedGenError) -> None:
        self._end("failed", error, stopWorker=True)


class SynthesisRun(Run):
    """Generates from a mask or translates an image.

    Attributes
    ----------
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
        snapshot: InputSnapshot,
        outputNode=None,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        style: InputSnapshot | None = None,
    ) -> None:
        super().__init__(engine, parameters, onProgress, onDone)
        self.manifest, self.snapshot, self.outputNode, self.style = manifest, snapshot, outputNode, style
        self.sentences: list[str] = []
        self.passed: bool | None = None
        self.report: dict[str, Any] = {}
        self.spreadNode = None
        self._watch(slicer.mrmlScene.GetNodeByID(snapshot.nodeID), _("input"))
        self._watch(outputNode, _("output"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        chosen = self.parameters
        params = {
            "input": put(self.snapshot.image, folder, "input"),
            "model": chosen.model,
            "seed": chosen.seed,
            "preset": chosen.preset,
            "device": chosen.device,
            "accept_license": chosen.acceptLicense,
            "folder": folder,
        }
        if chosen.task == "translate":
            return "translate", {**params, "to": chosen.to, "spread": chosen.spread}
        mapping = self.snapshot.mappingByValue(chosen.mapping)
        requireMapped(self.snapshot.image, self.manifest, mapping)
        style = None if self.style is None else put(self.style.image, folder, "style")
        return "generate", {
            **params,
            "samples": chosen.samples,
            "mapping": mapping,
            "fill": chosen.fill,
            "noise_hu": chosen.noiseHU,
            "style": style,
            "guidance": chosen.guidance,
            "classifier_guidance": chosen.classifierGuidance,
            "spread": chosen.spread,
        }

    def _receive(self, answer: dict[str, Any]) -> _Received:
        images = [results.prepareImage(take(item)) for item in answer["volumes"]]
        spread = answer.get("spread")
        return _Received(
            images,
            results.prepareImage(take(spread), spread=True) if spread else None,
            answer["report"],
            list(answer.get("sentences") or []),
            bool(answer.get("passed")),
        )

    def _add(self, received: _Received) -> list:
        self.report, self.sentences, self.passed = received.report, received.sentences, received.passed
        self.parameters = replace(
            self.parameters,
            model=received.report.get("model", self.parameters.model),
            seed=received.report.get("seed", self.parameters.seed),
        )
        python = console.pythonLine(self.parameters)
        added: list = []
        try:
            for sample, image in enumerate(received.images):
                made = Provenance.ofReport(
                    received.report,
                    sample,
                    modality=image.modality,
                    unit=image.unit,
                    checks=received.sentences,
                    passed=received.passed,
                    input=self.snapshot.name,
                    python=python,
                )
                added.append(
                    results.addResult(
                        self.snapshot, image, made, self.outputNode if sample == 0 else None, saveState=sample == 0
                    )
                )
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
    images: list[results.PreparedImage]
    spread: results.PreparedImage | None
    report: dict[str, Any]
    sentences: list[str] = field(default_factory=list)
    passed: bool = False


def asSentence(error: Exception) -> MedGenError:
    """What happened in a run, for the user; a fault of the program is also logged."""
    if isinstance(error, MedGenError):
        return error
    if isinstance(error, OSError):
        return InputError(
            _(
                "The files of the run cannot be written or read ({reason}); free some space or choose "
                "another temporary folder in Slicer's application settings."
            ).format(reason=error.strerror or error)
        )
    if isinstance(error, MemoryError):
        return InputError(_("Slicer ran out of memory; close other volumes or crop the input."))
    logging.error("MedGen: a run failed unexpectedly", exc_info=error)
    return WorkerError(
        _("The run failed unexpectedly ({kind}: {text}); nothing was added. Please report it with the log.").format(
            kind=type(error).__name__, text=error
        )
    )


def _removeFolder(folder: str | None, withParent: bool = False) -> None:
    """Remove a run's folder; withParent: and the worker's around it, which is gone by then, if nothing is in it."""
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if withParent:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(folder))


def _nothing(unused: Any) -> None:
    pass
