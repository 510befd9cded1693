"""The worker process, seen from Slicer's event loop.

`WorkerProcess` is one life of one process in a QProcess: started, asked, ended. `Engine` keeps the current one and
starts another when it is needed. Nothing here waits in the GUI thread, except `Engine.kill`, which is for the moment
when Slicer itself ends.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenLib.worker.process import SILENCE_TIMEOUT, START_TIMEOUT, command, environment, kill_tree
from MedGenLib.worker.protocol.connection import Connection
from MedGenSlicer.engine.background import Background

PYTHON_SETTING = "MedGen/WorkerPython"
LOG_LINES = 500
CHECK_MS = 200
GRACE_MS = 2000
"""How long a worker that was asked to end may take before it is killed."""
FAILED_TO_START = 0
"""QProcess::FailedToStart."""


class WorkerProcess:
    """One worker process with its private temporary folder.

    Parameters
    ----------
    python: the interpreter.
    variables: its whole environment.
    temporaryRoot: where the private folder is made.
    onReady(info): called once with what the worker told about itself.
    onFailure(worker, error): called when the process has failed; the owner answers with `end(error)`.
    onEnd(worker): called once when the process is gone and its folder is removed.
    onLog(line): for every line of the log.

    Raises
    ------
    InputError: the private folder cannot be made.
    """

    def __init__(
        self,
        python: str,
        variables: Mapping[str, str],
        temporaryRoot: str,
        onReady: Callable[[dict], None],
        onFailure: Callable[[WorkerProcess, MedGenError], None],
        onEnd: Callable[[WorkerProcess], None],
        onLog: Callable[[str], None],
    ) -> None:
        self.python = python
        self.folder = _privateFolder(temporaryRoot)
        self.info: dict[str, Any] = {}
        self.isEnded = False
        self._variables = dict(variables)
        self._onReady, self._onFailure, self._onEnd, self._onLog = onReady, onFailure, onEnd, onLog
        self._standardError = b""
        self._recent: deque[str] = deque(maxlen=60)
        self._isGone = False
        self.connection = Connection(self._write, on_log=self._log)
        self._process = qt.QProcess()
        self._connections = [
            (self._process.readyReadStandardOutput, self._onOutput),
            (self._process.readyReadStandardError, self._onStandardError),
            (self._process.errorOccurred, self._onProcessError),
            (self._process.finished, self._onFinished),
        ]
        for signal, slot in self._connections:
            signal.connect(slot)

    def start(self) -> None:
        """Start the process and ask it for its versions and devices."""
        program, *arguments = command(self.python)
        variables = qt.QProcessEnvironment()
        for name, value in self._variables.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.start(program, arguments)
        # Its parent may be a launcher that outlives Slicer, so it is told whom to end with.
        params = {"folder": self.folder, "parent": os.getpid()}
        self.connection.request(
            "initialize", params, on_result=self._onInitialized, on_error=self._onInitializeError, on_progress=None
        )

    def runFolder(self) -> str:
        """A new folder inside the private one. Raises InputError where it cannot be made."""
        os.makedirs(self.folder, exist_ok=True)  # what cleans temporary folders may have taken it
        return _privateFolder(self.folder, "run-")

    def end(self, error: MedGenError | None = None, kill: bool = True) -> None:
        """End the process; every request that waits gets `error`, or Cancelled.

        kill: at once, with all its children; otherwise it is asked first and given `GRACE_MS`.
        """
        if self.isEnded:
            return
        self.isEnded = True
        self.connection.fail(error or Cancelled(_("The run was cancelled; nothing was added.")))
        if self._isGone:
            self._finish()
            return
        self._process.closeWriteChannel()
        if kill:
            self._killTree()
        else:
            qt.QTimer.singleShot(GRACE_MS, self._killTree)

    def killNow(self) -> None:
        """End the process and its children before returning; for when the event loop ends too."""
        self.isEnded = True
        if self._isGone:
            return
        for pid in self._pids():
            kill_tree(pid)
        self._process.kill()
        self._process.waitForFinished(1000)
        if not self._isGone:
            self._finish()

    def fail(self, error: MedGenError) -> None:
        """Report an error that ends the process, with the last lines of its log as the error's detail."""
        if self.isEnded:
            return
        if not getattr(error, "detail", ""):
            error.detail = "\n".join(self._recent)
        self._onFailure(self, error)

    def _killTree(self) -> None:
        if self._isGone:
            return
        pids = self._pids()
        # Listing the children of a process takes some milliseconds, and waiting for them may take longer.
        Background(
            lambda: [kill_tree(pid) for pid in pids],
            lambda unused: self._killProcess(),
            lambda error: self._killProcess(),
        )

    def _killProcess(self) -> None:
        if not self._isGone:
            self._process.kill()

    def _pids(self) -> list[int]:
        """The worker's own, and the started one's: PythonSlicer is a launcher with the interpreter below it."""
        found = [self.info.get("pid"), self._process.processId()]
        return [int(pid) for pid in dict.fromkeys(found) if pid]

    def _write(self, data: bytes) -> None:
        if self._isGone:
            return
        try:
            self._process.write(data)
        except (TypeError, ValueError):  # a binding that wants Qt's own type
            self._process.write(qt.QByteArray(data))

    def _onInitialized(self, info: dict) -> None:
        self.info = info
        self._onReady(info)

    def _onInitializeError(self, error: MedGenError) -> None:
        detail = getattr(error, "detail", "")
        self.fail(_missingModule(f"{error} {detail}", self.python, detail) or error)

    def _onOutput(self) -> None:
        data = asBytes(self._process.readAllStandardOutput())
        if self.isEnded or not data:
            return
        try:
            self.connection.feed(data)
        except WorkerError as error:
            self.fail(error)

    def _onStandardError(self) -> None:
        self._standardError += asBytes(self._process.readAllStandardError())
        *lines, self._standardError = self._standardError.split(b"\n")
        for line in lines:
            self._log(line.decode("utf-8", errors="replace").rstrip())

    def _log(self, line: str) -> None:
        self._recent.append(line)
        self._onLog(line)

    def _onProcessError(self, kind: int) -> None:
        if int(kind) != FAILED_TO_START or self._isGone:
            return  # the others are followed by "finished"
        error = WorkerError(
            _(
                "The worker cannot start because '{python}' is not there or cannot be run; choose another Python in "
                "the setting {setting}."
            ).format(python=self.python, setting=PYTHON_SETTING)
        )
        self._isGone = True
        self.fail(error)

    def _onFinished(self, exitCode: int, exitStatus: int = 0) -> None:
        # Qt 5 has a second "finished" without exitStatus.
        if self._isGone:
            return
        self._onOutput()
        self._onStandardError()
        self._isGone = True
        if self.isEnded:
            self._finish()
        else:
            self.fail(self._deathError(int(exitCode)))

    def _deathError(self, exitCode: int) -> MedGenError:
        log = "\n".join(self._recent)
        missing = _missingModule(log, self.python, log)
        if missing is not None:
            return missing
        if not self.info:
            return WorkerError(
                _(
                    "The worker ended while it was starting (exit code {code}, Python '{python}'); see the log, and "
                    "press Install if packages are missing."
                ).format(code=exitCode, python=self.python)
            )
        return WorkerError(
            _(
                "The worker ended unexpectedly (exit code {code}) and nothing was added; run again, and if the "
                "computer is short of memory close other programs first."
            ).format(code=exitCode)
        )

    def _finish(self) -> None:
        for signal, slot in self._connections:
            signal.disconnect(slot)
        self._connections = []
        shutil.rmtree(self.folder, ignore_errors=True)
        qt.QTimer.singleShot(0, self._outlive)
        self._onEnd(self)

    def _outlive(self) -> None:
        """Being bound to a later event keeps the QProcess from being destroyed while it emits."""


class Engine:
    """Starts the worker when it is needed, keeps it warm, ends it with the scene and with Slicer.

    Parameters
    ----------
    python: interpreter of the worker; None takes the setting MedGen/WorkerPython, else Slicer's own.
    variables: more environment variables for the worker.
    temporaryRoot: folder for the private folders; None takes Slicer's temporary folder.
    startTimeout, silenceTimeout: seconds until a worker that does not answer is given up.

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
    ) -> None:
        self.python, self.variables, self.temporaryRoot = python, dict(variables or {}), temporaryRoot
        self.startTimeout, self.silenceTimeout = startTimeout, silenceTimeout
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self.lineCount = 0
        self._worker: WorkerProcess | None = None
        self._ending: dict[WorkerProcess, list[Callable[[], None]]] = {}
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
        """What the running worker told about itself (versions, devices, pid); empty while there is none."""
        return self._worker.info if self._worker is not None else {}

    @property
    def log(self) -> str:
        """The last lines that workers wrote."""
        return "\n".join(self._lines)

    def logSince(self, count: int) -> str:
        """The lines after the first `count`; `lineCount` tells how many there were at some moment."""
        new = max(0, self.lineCount - count)
        return "\n".join(list(self._lines)[max(0, len(self._lines) - new) :]) if new else ""

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

    def runFolders(self) -> list[str]:
        """The folders of runs that are not removed yet."""
        folder = self._worker.folder if self._worker is not None else ""
        return [entry.path for entry in os.scandir(folder)] if os.path.isdir(folder) else []

    def cancel(self, onStopped: Callable[[], None] | None = None) -> None:
        """Stop what runs by ending the worker with its children; whoever waits for an answer gets Cancelled.

        onStopped is called when the process is gone and its files are removed.
        """
        self._end(None, kill=True, onStopped=onStopped)

    def shutdown(self, onStopped: Callable[[], None] | None = None) -> None:
        """Let the worker end by itself; it is killed if it takes longer than two seconds."""
        self._end(None, kill=False, onStopped=onStopped)

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
        """Whether a worker that was ended is not yet gone."""
        return bool(self._ending)

    def workerPython(self) -> str:
        """The interpreter that the next worker is started with."""
        own = self.python or slicer.app.settings().value(PYTHON_SETTING, "")
        return str(own) if own else shutil.which("PythonSlicer") or sys.executable

    def _launch(self) -> None:
        python = self.workerPython()
        variables = environment(self._baseEnvironment(python))
        variables.update(self.variables)
        worker = WorkerProcess(
            python,
            variables,
            self.temporaryRoot or slicer.app.temporaryPath,
            onReady=self._onReady,
            onFailure=self._onFailure,
            onEnd=self._onEnd,
            onLog=self._addLog,
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
                self._addLog(f"The startup environment is not known: {error}")
        return dict(os.environ)

    def _end(self, error: MedGenError | None, kill: bool, onStopped: Callable[[], None] | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            if self._ending and onStopped is not None:
                next(iter(self._ending.values())).append(onStopped)
            elif onStopped is not None:
                onStopped()
            return
        self._timer.stop()
        self._ending[worker] = [onStopped] if onStopped is not None else []
        worker.end(error, kill)
        self._tellWaiting(error=error or Cancelled(_("The worker was stopped.")))
        self._changed()

    def _onReady(self, info: dict) -> None:
        self._tellWaiting(info=info)
        self._changed()

    def _onFailure(self, worker: WorkerProcess, error: MedGenError) -> None:
        if worker is self._worker:
            self._addLog(str(error))
            self._end(error, kill=True)

    def _onEnd(self, worker: WorkerProcess) -> None:
        for callback in self._ending.pop(worker, []):
            callback()
        self._changed()

    def _tellWaiting(self, info: dict | None = None, error: MedGenError | None = None) -> None:
        waiting, self._waiting = self._waiting, []
        for onReady, onError in waiting:
            if info is not None and onReady is not None:
                onReady(info)
            elif error is not None and onError is not None:
                onError(error)

    def _check(self) -> None:
        """Give up a worker that does not answer."""
        worker = self._worker
        if worker is None or worker.isEnded:
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

    def _addLog(self, line: str) -> None:
        self._lines.append(line)
        self.lineCount += 1

    def _onSceneClosing(self, caller=None, event=None) -> None:
        # Whether the run or the engine hears of it first is chance: both give the same reason.
        if self._worker is not None:
            self._end(InputError(_("The scene was closed, so the run was stopped; nothing was added.")), kill=True)

    def _changed(self) -> None:
        for callback in list(self._observers):
            callback()


def asBytes(value: Any) -> bytes:
    """What QProcess read, as bytes: a QByteArray whose `data` is a method in every binding."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    data = value.data()
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _privateFolder(parent: str, prefix: str = "medgen-") -> str:
    try:
        return tempfile.mkdtemp(prefix=prefix, dir=parent)
    except OSError as error:
        raise InputError(
            _(
                "The temporary folder '{folder}' cannot be written ({reason}); choose another in Slicer's application "
                "settings, or free some space."
            ).format(folder=parent, reason=error.strerror or error)
        ) from error


def _missingModule(text: str, python: str, detail: str) -> WorkerError | None:
    """A sentence for "No module named ...", which is how an incomplete installation shows."""
    match = re.search(r"No module named '?([\w.]+)", text)
    if match is None:
        return None
    error = WorkerError(
        _(
            "The worker cannot start because the package '{package}' is missing in its Python ('{python}'); press "
            "Install to add it."
        ).format(package=match[1].partition(".")[0], python=python)
    )
    error.detail = detail
    return error
