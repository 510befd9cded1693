"""The installers of Slicer: pip, the PyTorch extension, the Extensions Manager."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import qt
import slicer

from MedGenLib.worker.process import kill_tree
from MedGenSlicer.engine import torch_process
from MedGenSlicer.engine.background import Background, ignore
from MedGenSlicer.engine.process import FAILED_TO_START, asBytes

TORCH_EXTENSION = "PyTorch"


def pipInstall(arguments: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> PythonProcess:
    """ "pip install" without blocking."""
    return PythonProcess(["-m", "pip", "install", *arguments], onLog, onDone).start()


def pipUninstall(names: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> PythonProcess:
    """ "pip uninstall" without blocking."""
    return PythonProcess(["-m", "pip", "uninstall", "--yes", *names], onLog, onDone).start()


def torchInstall(
    logic: Any,
    specifier: str,
    variables: Mapping[str, str],
    onLog: Callable[[str], None],
    onDone: Callable[[int], None],
) -> PythonProcess:
    """installTorch of the PyTorch extension without blocking; ends with CANNOT_RUN where it works only in Slicer.

    Parameters
    ----------
    logic: of the extension; specifier: of the version of PyTorch.
    variables: more environment variables.
    """
    file = getattr(sys.modules[type(logic).__module__], "__file__", None) or ""
    return PythonProcess([torch_process.__file__, file, specifier], onLog, onDone, variables).start()


class PythonProcess:
    """One call of a Python, while Slicer's event loop goes on.

    >>> PythonProcess(["-m", "pip", "list"], print, print).start()   # doctest: +SKIP

    Parameters
    ----------
    onLog(line): called with every line that it writes; onDone(exitCode): called once.
    variables: more environment variables.
    python: the interpreter with its whole environment; None takes Slicer's own.
    """

    alive: set[PythonProcess] = set()

    def __init__(
        self,
        arguments: list[str],
        onLog: Callable[[str], None],
        onDone: Callable[[int], None],
        variables: Mapping[str, str] | None = None,
        python: tuple[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._arguments, self._lines, self._onDone = arguments, Lines(onLog), onDone
        self._variables = variables or {}
        self._python, self._environment = python or (slicerPython(), os.environ)
        self._process = qt.QProcess()
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._connections = [
            (self._process.readyReadStandardOutput, self._read),
            (self._process.errorOccurred, self._failed),
            (self._process.finished, self._finished),
        ]
        for signal, slot in self._connections:
            signal.connect(slot)

    def start(self) -> PythonProcess:
        """Start it; it keeps itself until its end."""
        PythonProcess.alive.add(self)
        variables = qt.QProcessEnvironment()
        always = dict.fromkeys(("PYTHONSAFEPATH", "PYTHONUNBUFFERED", "PIP_DISABLE_PIP_VERSION_CHECK"), "1")
        for name, value in {**self._environment, **always, **self._variables}.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.start(self._python, self._arguments)
        return self

    def cancel(self) -> None:
        """End it with its children; `onDone` hears of it."""
        pid = int(self._process.processId())
        if self in PythonProcess.alive and pid:
            Background(lambda: kill_tree(pid), ignore, ignore)

    def kill(self) -> None:
        """End it with its children before returning; for when the event loop ends too."""
        if self in PythonProcess.alive:
            kill_tree(int(self._process.processId()))
            self._process.waitForFinished(1000)

    def _read(self) -> None:
        self._lines.write(asBytes(self._process.readAllStandardOutput()).decode("utf-8", errors="replace"))

    def _failed(self, kind: int) -> None:
        if int(kind) == FAILED_TO_START:  # the others are followed by "finished"
            self._lines.write(f"Python executable not found: {self._python}\n")
            self._end(1)

    def _finished(self, exitCode: int, exitStatus: int = 0) -> None:
        self._read()
        self._lines.write("\n")
        self._end(int(exitCode) or int(exitStatus))

    def _end(self, exitCode: int) -> None:
        if self not in PythonProcess.alive:
            return
        PythonProcess.alive.discard(self)
        for signal, slot in self._connections:
            signal.disconnect(slot)
        qt.QTimer.singleShot(0, self._outlive)
        self._onDone(exitCode)

    def _outlive(self) -> None:
        """Being bound to a later event keeps the QProcess from being destroyed while it emits."""


def slicerPython() -> str:
    """The interpreter of Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


@contextlib.contextmanager
def withoutQuestions(manager: Any) -> Iterator[None]:
    """The Extensions Manager asks nothing meanwhile; afterwards it asks as before."""
    before = manager.interactive
    manager.interactive = False
    try:
        yield
    finally:
        manager.interactive = before


@contextlib.contextmanager
def withVariables(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def extensionsManager() -> Any:
    """Slicer's Extensions Manager, None where it was built without one."""
    manager = getattr(slicer.app, "extensionsManagerModel", lambda: None)()
    return manager if manager and hasattr(manager, "installExtensionFromServer") else None


def pyTorchLogic() -> Any:
    """The logic of Slicer's PyTorch extension, None where it is not installed."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        return None
    return PyTorchUtilsLogic()


class Lines(io.TextIOBase):
    """A stream that gives every line to a function."""

    def __init__(self, onLine: Callable[[str], None]) -> None:
        super().__init__()
        self._onLine, self._rest = onLine, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._onLine(line.rstrip())
        return len(text)

    def writable(self) -> bool:
        return True
