"""Qt's event loop with Python's lock held, as in Slicer: PythonQt's support of threads is off there, and so a Python
thread goes on only while the main thread waits in a Python call. PySide6 lets go of the lock in its own calls."""

import ctypes
import os
import time

from PySide6 import QtCore, QtWidgets

_SYMBOL = "_ZN16QCoreApplication13processEventsE6QFlagsIN10QEventLoop17ProcessEventsFlagEE"


def _function(library, name: str, argument):
    """A C function that keeps the lock; None where this system has no such library."""
    try:
        function = getattr(ctypes.PyDLL(library), name)
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes, function.restype = [argument], None
    return function


_processEvents = _function(
    os.path.join(QtCore.QLibraryInfo.path(QtCore.QLibraryInfo.LibrariesPath), "libQt6Core.so.6"), _SYMBOL, ctypes.c_int
)
_sleep = _function(None, "usleep", ctypes.c_uint)

holdsLock = _processEvents is not None and _sleep is not None
"""Whether the lock is really held on this system."""


def processEvents(flags=QtCore.QEventLoop.AllEvents) -> None:
    """QCoreApplication::processEvents()."""
    if holdsLock:
        _processEvents(int(flags))
    else:
        QtWidgets.QApplication.processEvents(flags)


def idle(seconds: float) -> None:
    """Let time pass as Qt does where nothing happens."""
    if holdsLock:
        _sleep(int(1e6 * seconds))
    else:
        time.sleep(seconds)
