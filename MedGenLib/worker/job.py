"""One request of a client, as the methods of the worker see it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.errors import Cancelled, InputError
from MedGenLib.progress import Progress

SHORTEST_GAP = 0.05
"""Seconds between two progress messages of one stage: nobody reads faster."""

Notify = Callable[[str, dict[str, Any]], None]
"""Sends a notification: method and parameters."""


@dataclass
class Session:
    """What the worker knows of its client.

    Attributes
    ----------
    folder: the client's private folder for images, None until "initialize".
    parents: processes with whose end the worker ends.
    """

    folder: Path | None = None
    parents: set[int] = field(default_factory=lambda: {os.getppid()} if hasattr(os, "getppid") else set())


@dataclass(eq=False)
class Request:
    """One request, from its arrival to its answer."""

    number: Any
    method: str
    params: dict[str, Any]
    session: Session
    notify: Notify
    cancelled: threading.Event = field(default_factory=threading.Event)
    last: Progress = field(default_factory=lambda: Progress("starting", 0, 1))
    reported: float = 0.0
    sent: float = 0.0

    def folder(self, named: str | None) -> Path:
        """Where the results go: the folder that the request names, else that of the session."""
        chosen = self.session.folder if named is None else Path(named)
        if chosen is None:
            raise InputError("No folder was named for the results; give one with the request.")
        if not chosen.is_dir():
            raise InputError(f"The folder {chosen} for the results is not there; choose another one.")
        return chosen

    def progress(self, progress: Progress) -> None:
        """Progress callback of the library; raises Cancelled when the client has canceled the request."""
        self.check()
        now = time.monotonic()
        same_stage = progress.stage == self.last.stage
        self.last, self.reported = progress, now
        hurried = same_stage and now - self.sent < SHORTEST_GAP
        if not hurried or progress.step in (0, progress.total):
            self.report()

    def check(self) -> None:
        """Raise Cancelled when the client has canceled the request."""
        if self.cancelled.is_set():
            raise Cancelled("Stopped; nothing was written.")

    def log(self, text: str, level: str = "info") -> None:
        """Send a line for the client's log."""
        self.notify("log", {"level": level, "text": text})

    def report(self) -> None:
        """Send the progress made last, its estimate reduced by the time since then."""
        self.sent = time.monotonic()
        left = self.last.seconds_left
        if left is not None:
            left = round(max(0.0, left - (self.sent - self.reported)), 1)
        progress = {
            "id": self.number,
            "stage": self.last.stage,
            "step": self.last.step,
            "total": self.last.total,
            "seconds_left": left,
            "memory_mib": _memory_mib(),
        }
        self.notify("progress", progress)


def _memory_mib() -> float | None:
    with suppress(Exception):  # without psutil there is no figure, and no harm
        from MedGenLib.devices import memory_mib

        return round(memory_mib(), 1)
    return None
