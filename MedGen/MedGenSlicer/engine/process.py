"""One life of one worker process: started, asked, ended. Nothing here waits in the GUI thread, except `killNow`."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenLib.worker.process import command, kill_tree
from MedGenLib.worker.protocol.connection import Connection
from MedGenSlicer.engine.background import Background

PYTHON_SETTING = "MedGen/WorkerPython"
FAILED_TO_START = 0
"""QProcess::FailedToStart."""


class WorkerProcess:
    """One worker process with its private temporary folder.

    Parameters
    ----------
    python: the interpreter.
    variables: its whole environment.
    temporaryRoot: where the private folder is made.
    onReady(info): called once with the versions and devices of the worker.
    onFailure(worker, error): called when the process has failed; the owner answers with `end(error)`.
    onEnd(worker): called once when the process is gone and its folder is removed.
    onLog(line): for every line of the log.

    Attributes
    ----------
    idleFor: seconds since a request waited for its answer.

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
        self.idleFor = 0.0
        self._ticked = 0.0
        # Not the time of the wall: a window that was busy, or a computer that slept, is no silence of the worker.
        self.connection = Connection(self._write, on_log=self._log, clock=lambda: self._ticked)
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
        # Its parent may be a launcher that outlives Slicer.
        params = {"folder": self.folder, "parent": os.getpid()}
        self.connection.request(
            "initialize", params, on_result=self._onInitialized, on_error=self._onInitializeError, on_progress=None
        )

    def tick(self, seconds: float) -> None:
        """Some time has passed in which Slicer's event loop ran; what the worker wrote meanwhile is read first."""
        self._onOutput()
        self._ticked += seconds
        self.idleFor = 0.0 if self.connection.pending else self.idleFor + seconds

    def runFolder(self) -> str:
        """A new folder inside the private one. Raises InputError where it cannot be made."""
        os.makedirs(self.folder, exist_ok=True)  # what cleans temporary folders may have taken it
        return _privateFolder(self.folder, "run-")

    def end(self, error: MedGenError | None = None) -> None:
        """End the process with all its children; every request that waits gets `error`, or Cancelled."""
        if self.isEnded:
            return
        self.isEnded = True
        self.connection.fail(error or Cancelled(_("The run was cancelled; nothing was added.")))
        if self._isGone:
            self._finish()
            return
        self._process.closeWriteChannel()
        pids = self._pids()
        # Listing the children of a process takes some milliseconds, and waiting for them may take longer.
        Background(lambda: [kill_tree(pid) for pid in pids], self._killProcess, self._killProcess)

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

    def _killProcess(self, unused: Any) -> None:
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
        sentence = _(
            "The temporary folder '{folder}' cannot be written ({reason}); choose another in Slicer's application "
            "settings, or free some space."
        )
        raise InputError(sentence.format(folder=parent, reason=error.strerror or error)) from error


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
