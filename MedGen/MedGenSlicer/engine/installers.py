"""The installers of Slicer: pip, the PyTorch extension, the Extensions Manager."""

from __future__ import annotations

import contextlib
import inspect
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import qt
import slicer

from MedGenSlicer.engine.process import FAILED_TO_START, asBytes

TORCH_EXTENSION = "PyTorch"
REQUESTER = "MedGen"


def slicerPipInstall(arguments: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> None:
    """pip without blocking: `slicer.packaging` of Slicer 5.12, else a process of its own."""
    try:
        from slicer.packaging import pip_install
    except ImportError:
        pip_install = None
    # In testing mode slicer.packaging blocks and calls nobody.
    if pip_install is None or isTesting():
        Pip(["install", *arguments], onLog, onDone).start()
        return
    callSupported(
        pip_install,
        arguments,
        blocking=False,
        show_progress=False,
        requester=REQUESTER,
        logCallback=onLog,
        completedCallback=lambda code: onDone(int(code)),
    )


def pipUninstall(names: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> None:
    """ "pip uninstall" without blocking."""
    Pip(["uninstall", "--yes", *names], onLog, onDone).start()


class Pip:
    """One call of the pip of Slicer's Python, while Slicer's event loop goes on.

    >>> Pip(["list"], print, print).start()   # doctest: +SKIP
    """

    alive: set[Pip] = set()

    def __init__(self, arguments: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> None:
        self._arguments, self._lines, self._onDone = arguments, Lines(onLog), onDone
        self._process = qt.QProcess()
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._connections = [
            (self._process.readyReadStandardOutput, self._read),
            (self._process.errorOccurred, self._failed),
            (self._process.finished, self._finished),
        ]
        for signal, slot in self._connections:
            signal.connect(slot)

    def start(self) -> None:
        """Start it; it keeps itself until its end."""
        Pip.alive.add(self)
        variables = qt.QProcessEnvironment.systemEnvironment()
        for name in ("PYTHONSAFEPATH", "PYTHONUNBUFFERED", "PIP_DISABLE_PIP_VERSION_CHECK"):
            variables.insert(name, "1")
        self._process.setProcessEnvironment(variables)
        self._process.start(slicerPython(), ["-m", "pip", *self._arguments])

    def _read(self) -> None:
        self._lines.write(asBytes(self._process.readAllStandardOutput()).decode("utf-8", errors="replace"))

    def _failed(self, kind: int) -> None:
        if int(kind) == FAILED_TO_START:  # the others are followed by "finished"
            self._lines.write(f"PythonSlicer executable not found: {slicerPython()}\n")
            self._end(1)

    def _finished(self, exitCode: int, exitStatus: int = 0) -> None:
        self._read()
        self._lines.write("\n")
        self._end(int(exitCode) or int(exitStatus))

    def _end(self, exitCode: int) -> None:
        if self not in Pip.alive:
            return
        Pip.alive.discard(self)
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


def isTesting() -> bool:
    """Whether Slicer runs with --testing."""
    return slicer.app.testingEnabled()


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


def callSupported(function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Call with those of the keywords that the function knows: other extensions change theirs between releases."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C++
        return function(*arguments)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return function(*arguments, **keywords)
    return function(*arguments, **{name: value for name, value in keywords.items() if name in known})


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
