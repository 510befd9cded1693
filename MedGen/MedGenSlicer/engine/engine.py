"""The worker, seen from Slicer's event loop.

`Engine` keeps the current worker process and starts another when it is needed. Nothing here waits in the GUI thread,
except `Engine.kill`, which is for the moment when Slicer itself ends.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenLib.worker.process import SILENCE_TIMEOUT, START_TIMEOUT, environment
from MedGenSlicer.engine.installers import slicerPython
from MedGenSlicer.engine.process import PYTHON_SETTING, WorkerProcess

LOG_LINES = 500
ADDRESS_SETTING = "MedGen/Engine"
"""Address of `medgen serve` on another computer; empty for this computer."""
CHECK_MS = 200
IDLE_TIMEOUT = 600.0
"""Seconds after which a worker that nobody uses is ended: it holds memory, with CUDA also of the GPUs."""


class Engine:
    """Starts the worker when it is needed, keeps it warm, ends it with the scene and with Slicer.

    Parameters
    ----------
    python: interpreter of the worker; None takes the setting MedGen/WorkerPython, else Slicer's own.
    variables: more environment variables for the worker.
    temporaryRoot: folder for the private folders; None takes Slicer's temporary folder.
    startTimeout, silenceTimeout: seconds until a worker that does not answer is given up. Only time in which Slicer's
        event loop runs counts.
    idleTimeout: seconds until a worker that nobody uses is ended.

    Attributes
    ----------
    isNeeded(): whether the worker is kept although no request waits.

    Example
    -------
    >>> engine = Engine()                                                          # doctest: +SKIP
    >>> engine.start(lambda info: print(info["devices"]), lambda error: print(error))   # doctest: +SKIP
    """

    def __init__(
        self,
        python: str | None = None,
        variables: Mapping[str, str] | None = None,
        temporaryRoot: str | None = None,
        startTimeout: float = START_TIMEOUT,
        silenceTimeout: float = SILENCE_TIMEOUT,
        idleTimeout: float = IDLE_TIMEOUT,
    ) -> None:
        self.python, self.variables, self.temporaryRoot = python, dict(variables or {}), temporaryRoot
        self.startTimeout, self.silenceTimeout, self.idleTimeout = startTimeout, silenceTimeout, idleTimeout
        self.isNeeded: Callable[[], bool] = lambda: False
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._worker: WorkerProcess | None = None
        self._ending: set[WorkerProcess] = set()
        self._waiting: list[tuple[Callable[[dict], None] | None, Callable[[MedGenError], None] | None]] = []
        self._observers: list[Callable[[], None]] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(CHECK_MS)
        self._timer.timeout.connect(self._check)
        self._scene = slicer.mrmlScene
        self._sceneTag = self._scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing)
        slicer.app.aboutToQuit.connect(self.kill)

    @property
    def state(self) -> str:
        """ "off", "starting", "ready" or "running"."""
        if self._worker is None:
            return "off"
        if not self._worker.info:
            return "starting"
        return "running" if self._worker.connection.pending else "ready"

    @property
    def info(self) -> dict[str, Any]:
        """Versions, devices and pid of the running worker; empty while there is none."""
        return self._worker.info if self._worker is not None else {}

    @property
    def log(self) -> str:
        """The last lines that workers wrote."""
        return "\n".join(self._lines)

    @property
    def address(self) -> str:
        """Where models run: an address of another computer, "" for this one."""
        return str(slicer.app.settings().value(ADDRESS_SETTING, "") or "")

    @address.setter
    def address(self, address: str) -> None:
        if address != self.address:
            slicer.app.settings().setValue(ADDRESS_SETTING, address)
            self.cancel()

    @property
    def use(self) -> str:
        """What has to be installed here, a use of `MedGenLib/requirements.txt`."""
        return "an engine on another computer" if self.address else ""

    def addObserver(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever `state` may have changed."""
        self._observers.append(callback)

    def removeObserver(self, callback: Callable[[], None]) -> None:
        if callback in self._observers:
            self._observers.remove(callback)

    def start(
        self, onReady: Callable[[dict], None] | None = None, onError: Callable[[MedGenError], None] | None = None
    ) -> None:
        """Start the worker unless it runs already; exactly one of the callbacks is called, at once if it is ready."""
        if self.state in ("ready", "running"):
            if onReady is not None:
                onReady(self.info)
            return
        self._waiting.append((onReady, onError))
        if self.state == "starting":
            return
        try:
            self._launch()
        except MedGenError as error:
            self._tellWaiting(error=error)

    def request(
        self,
        method: str,
        params: dict[str, Any],
        onResult: Callable[[dict], None],
        onError: Callable[[MedGenError], None],
        onProgress: Callable[[dict], None] | None = None,
    ) -> None:
        """Ask the worker, which must be ready. Exactly one of onResult and onError is called."""
        if self._worker is None:
            onError(WorkerError(_("The worker is not running; start it first.")))
            return

        def result(answer: dict) -> None:
            onResult(answer)
            self._changed()

        def failure(error: MedGenError) -> None:
            onError(error)
            self._changed()

        self._worker.connection.request(method, params, on_result=result, on_error=failure, on_progress=onProgress)
        self._changed()

    def runFolder(self) -> str:
        """A new folder for the files of one run; removed with the worker at the latest."""
        if self._worker is None:
            raise WorkerError(_("The worker is not running; start it first."))
        return self._worker.runFolder()

    def cancel(self) -> None:
        """Stop what runs by ending the worker with its children; every request that waits gets Cancelled."""
        self._end()

    def endIfIdle(self) -> None:
        """End a worker that nobody uses; the next run starts another."""
        if self.state == "ready" and not self.isNeeded():
            self._end()

    def kill(self) -> None:
        """End the worker and its children before returning."""
        worker, self._worker = self._worker, None
        self._timer.stop()
        for process in [*([worker] if worker is not None else []), *self._ending]:
            process.connection.fail(Cancelled(_("The run was cancelled; nothing was added.")))
            process.killNow()
        self._tellWaiting(error=Cancelled(_("The worker was stopped.")))
        self._changed()

    def cleanup(self) -> None:
        """Kill the worker and let go of Slicer; for module reload and removal."""
        self.kill()
        self._observers.clear()
        if self._sceneTag is not None:
            self._scene.RemoveObserver(self._sceneTag)
            self._sceneTag = None
            slicer.app.aboutToQuit.disconnect(self.kill)

    @property
    def isStopping(self) -> bool:
        """Whether a stopped worker process still exists."""
        return bool(self._ending)

    def workerPython(self) -> str:
        """The interpreter that the next worker is started with."""
        own = self.python or slicer.app.settings().value(PYTHON_SETTING, "")
        return str(own) if own else slicerPython()

    def workerEnvironment(self, python: str) -> dict[str, str]:
        """The whole environment of a process of that interpreter that uses the library."""
        return {**environment(self._baseEnvironment(python)), **self.variables}

    def _launch(self) -> None:
        python = self.workerPython()
        worker = WorkerProcess(
            python,
            {**self.workerEnvironment(python), "MEDGEN_ENGINE": self.address},
            self.temporaryRoot or slicer.app.temporaryPath,
            onReady=self._onReady,
            onFailure=self._onFailure,
            onEnd=self._onEnd,
            onLog=self._lines.append,
        )
        self._worker = worker
        self._timer.start()
        self._changed()
        worker.start()

    def _baseEnvironment(self, python: str) -> dict[str, str]:
        """Slicer's own variables (library paths, PYTHONHOME) would break another Python."""
        isSlicers = os.path.basename(python).lower().startswith("pythonslicer") or python == sys.executable
        if not isSlicers and hasattr(slicer.util, "startupEnvironment"):
            try:
                return dict(slicer.util.startupEnvironment())
            except Exception as error:  # parts of Slicer that a stripped build lacks
                self._lines.append(f"The startup environment is not known: {error}")
        return dict(os.environ)

    def _end(self, error: MedGenError | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._timer.stop()
        self._ending.add(worker)
        worker.end(error)
        self._tellWaiting(error=error or Cancelled(_("The worker was stopped.")))
        self._changed()

    def _onReady(self, info: dict) -> None:
        self._tellWaiting(info=info)
        self._changed()

    def _onFailure(self, worker: WorkerProcess, error: MedGenError) -> None:
        if worker is self._worker:
            self._lines.append(str(error))
            self._end(error)

    def _onEnd(self, worker: WorkerProcess) -> None:
        self._ending.discard(worker)
        self._changed()

    def _tellWaiting(self, info: dict | None = None, error: MedGenError | None = None) -> None:
        waiting, self._waiting = self._waiting, []
        for onReady, onError in waiting:
            if info is not None and onReady is not None:
                onReady(info)
            elif error is not None and onError is not None:
                onError(error)

    def _check(self) -> None:
        """Give up a worker that does not answer, and end one that nobody uses."""
        worker = self._worker
        if worker is None or worker.isEnded:
            return
        worker.tick(CHECK_MS / 1000)
        if worker.isEnded:
            return
        if not worker.info:
            if worker.connection.silent_for > self.startTimeout:
                worker.fail(
                    WorkerError(
                        _(
                            "The worker did not answer within {seconds:g} s after its start and was stopped; press "
                            "Install to check the installation, or see the log."
                        ).format(seconds=self.startTimeout)
                    )
                )
        elif worker.connection.pending and worker.connection.silent_for > self.silenceTimeout:
            worker.fail(
                WorkerError(
                    _(
                        "The worker has not answered for {seconds:g} s and was stopped; nothing was added. Run "
                        "again, with a smaller volume if it happens twice."
                    ).format(seconds=self.silenceTimeout)
                )
            )
        elif worker.idleFor > self.idleTimeout:
            self.endIfIdle()

    def _onSceneClosing(self, caller=None, event=None) -> None:
        # Whether the run or the engine hears of it first is chance: both give the same reason.
        if self._worker is not None:
            self._end(InputError(_("The scene was closed, so the run was stopped; nothing was added.")))

    def _changed(self) -> None:
        for callback in list(self._observers):
            callback()
