"""One run of the worker: from a snapshot of the input, through the worker, to nodes in the scene.

States: "idle" -> "preparing" (worker starts, input is written) -> "running" -> "importing" -> "done"; or "failed" or
"cancelled" from anywhere. Nothing is added to the scene before "importing", and then everything or nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.background import Background, ignore, waitUntil
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.engine.faults import asSentence, notify


class Run:
    """The handle of a run.

    Attributes
    ----------
    state: see the module; isDone: whether it has ended: done, failed or cancelled.
    progress: the last progress: {"stage", "step", "total", "seconds_left", "memory_mib"}.
    error: what ended it (MedGenLib.errors), None when it is done.
    nodes: what was added or written, empty unless it is done.
    sentences: what the user should know about the result, such as what the checks found.
    parameters: the options it was started with; after the end with the seed and the model that were used.
    """

    def __init__(self, engine: Engine, parameters: RunParameters | None = None) -> None:
        self.engine, self.parameters = engine, parameters
        self.state = "idle"
        self.progress: dict[str, Any] = {}
        self.error: MedGenError | None = None
        self.nodes: list = []
        self.sentences: list[str] = []
        self._onProgress: Callable[[dict], None] | None = None
        self._onDone: Callable[[Run], None] | None = None
        self._folder: str | None = None
        self._watched: dict[str, str] = {}
        self._observers: list[int] = []

    @property
    def isDone(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def node(self):
        """The first of `nodes`, None if there is none."""
        return self.nodes[0] if self.nodes else None

    def start(
        self, onProgress: Callable[[dict], None] | None = None, onDone: Callable[[Run], None] | None = None
    ) -> Run:
        """Begin; returns at once.

        Parameters
        ----------
        onProgress(progress): called with each `progress`. onDone(run): called once when it has ended.
        """
        self.state, self._onProgress, self._onDone = "preparing", onProgress, onDone
        self._tell({"stage": _("starting the worker"), "step": 0, "total": 0, "seconds_left": None, "memory_mib": None})
        if self.isDone:  # cancelled by the callback
            return self
        scene = slicer.mrmlScene
        self._observers = [
            scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._onNodeRemoved),
            scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing),
        ]
        self._begin()
        return self

    def cancel(self) -> None:
        """Stop; nothing is added. Ends the worker and its children, the next run starts another."""
        if not self.isDone:
            self._end("cancelled", Cancelled(_("The run was cancelled; nothing was added.")))

    def wait(self, timeout: float | None = None) -> Run:
        """Let Slicer's event loop go on until the run has ended.

        timeout: seconds after which WorkerError is raised; the run continues.
        """
        try:
            if not waitUntil(lambda: self.isDone, timeout):
                raise WorkerError(
                    _("The run has not ended within {seconds:g} s; it continues.").format(seconds=timeout)
                )
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
        return answer

    def _add(self, received: Any) -> list:
        """In the GUI thread: add to the scene everything or nothing; the nodes."""
        raise NotImplementedError

    # The steps.

    def _begin(self) -> None:
        self.engine.start(self._onReady, self._fail)

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
            self._fail(error)
            return
        self.nodes = nodes
        self._end("done")

    def _inBackground(self, function: Callable[[], Any], onDone: Callable[[Any], None]) -> None:
        folder = self._folder

        def unlessEnded(step: Callable[[Any], None]) -> Callable[[Any], None]:
            def ended(outcome: Any) -> None:
                if self.isDone:
                    _removeFolder(folder, withParent=True)  # written to after it was removed
                else:
                    step(outcome)

            return ended

        Background(function, unlessEnded(onDone), unlessEnded(self._fail))

    # Ends.

    def _fail(self, error: Exception, stopWorker: bool = False) -> None:
        if not self.isDone:
            self._end("cancelled" if isinstance(error, Cancelled) else "failed", asSentence(error), stopWorker)

    def _end(self, state: str, error: MedGenError | None = None, stopWorker: bool = False) -> None:
        self.state, self.error = state, error
        for tag in self._observers:
            slicer.mrmlScene.RemoveObserver(tag)
        self._observers = []
        if stopWorker or state == "cancelled":
            self._stopWorker()
        if self._folder is not None:
            folder, self._folder = self._folder, None
            Background(lambda: _removeFolder(folder), ignore, ignore)
        notify(self._onDone, self)

    def _stopWorker(self) -> None:
        self.engine.cancel()

    def _tell(self, progress: dict) -> None:
        self.progress = progress
        notify(self._onProgress, progress)

    def _watch(self, node, role: str) -> None:
        """Stop the run when this node goes."""
        if node is not None:
            self._watched[node.GetID()] = _("{role} '{name}'").format(role=role, name=node.GetName())

    def _onNodeRemoved(self, caller=None, event=None) -> None:
        scene = slicer.mrmlScene
        gone = [name for nodeID, name in self._watched.items() if scene.GetNodeByID(nodeID) is None]
        if gone and not scene.IsClosing():
            sentence = _("The {node} was deleted during the run, so the run was stopped; nothing was added.")
            self._fail(InputError(sentence.format(node=gone[0])), stopWorker=True)

    def _onSceneClosing(self, caller=None, event=None) -> None:
        sentence = _("The scene was closed during the run, so the run was stopped; nothing was added.")
        self._fail(InputError(sentence), stopWorker=True)


def _removeFolder(folder: str | None, withParent: bool = False) -> None:
    """Remove a run's folder; withParent: and the worker's around it, which is gone by then, if nothing is in it."""
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if withParent:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(folder))
