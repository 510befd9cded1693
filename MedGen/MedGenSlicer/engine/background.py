"""Work in a Python thread, with its end reported in the GUI thread; and waiting while Slicer's event loop runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import qt
import slicer

POLL_MS = 10
WAIT_SECONDS = 0.005
YIELD_SECONDS = 0.003
"""How long each poll lets go of Python's lock. Slicer's event loop holds the lock between Python calls, because
PythonQt's support of threads is off there: a thread goes on only while some Python call waits."""


class Background:
    """Runs one function in a thread; exactly one of the two callbacks is called later, in the GUI thread.

    >>> Background(lambda: 6 * 7, print, print)   # doctest: +SKIP
    """

    alive: set[Background] = set()

    def __init__(
        self, function: Callable[[], Any], onDone: Callable[[Any], None], onError: Callable[[Exception], None]
    ) -> None:
        self._function, self._onDone, self._onError = function, onDone, onError
        self._result: Any = None
        self._error: Exception | None = None
        self._finished = threading.Event()
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        Background.alive.add(self)  # a timer does not keep its Python object
        self._timer.start()
        threading.Thread(target=self._work, name="MedGen", daemon=True).start()

    def _work(self) -> None:
        try:
            self._result = self._function()
        except Exception as error:
            self._error = error
        self._finished.set()

    def _poll(self) -> None:
        if self not in Background.alive or not self._finished.wait(YIELD_SECONDS):
            return
        self._timer.stop()
        self._timer.timeout.disconnect(self._poll)  # a connection keeps what it calls, and its result
        Background.alive.discard(self)
        qt.QTimer.singleShot(0, self._outlive)
        if self._error is not None:
            self._onError(self._error)
        else:
            self._onDone(self._result)

    def _outlive(self) -> None:
        """Being bound to a later event keeps the timer from being destroyed while it emits."""


def waitUntil(condition: Callable[[], bool], timeout: float | None = None) -> bool:
    """Let Slicer's event loop go on until `condition()` holds; whether it did within `timeout` seconds."""
    start = time.monotonic()
    while not condition():
        if timeout is not None and time.monotonic() - start > timeout:
            return False
        slicer.app.processEvents()
        time.sleep(WAIT_SECONDS)
    return True


def ignore(*unused: Any) -> None:
    """A callback that does nothing."""
