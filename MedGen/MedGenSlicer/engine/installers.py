"""The installers of Slicer: pip, the PyTorch extension, the Extensions Manager."""

from __future__ import annotations

import contextlib
import inspect
import io
import subprocess
from collections.abc import Callable
from typing import Any

import slicer

TORCH_EXTENSION = "PyTorch"
REQUESTER = "MedGen"


def slicerPipInstall(arguments: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> None:
    """pip as Slicer offers it: `slicer.packaging` without blocking (5.12), else `slicer.util.pip_install`."""
    try:
        from slicer.packaging import pip_install
    except ImportError:
        pip_install = None
    # In testing mode slicer.packaging blocks and calls nobody.
    if pip_install is not None and not isTesting():
        callSupported(
            pip_install,
            arguments,
            blocking=False,
            show_progress=False,
            requester=REQUESTER,
            logCallback=onLog,
            completedCallback=lambda code: onDone(int(code)),
        )
        return
    try:
        with contextlib.redirect_stdout(Lines(onLog)):
            (pip_install or slicer.util.pip_install)(arguments)
    except subprocess.CalledProcessError as error:
        onDone(error.returncode or 1)
        return
    onDone(0)


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
