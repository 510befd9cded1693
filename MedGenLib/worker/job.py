"""A request as passed to the methods of the worker."""

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
"""Minimum seconds between two progress messages of one stage."""

Notify = Callable[[str, dict[str, Any]], None]
"""Sends a notification: method and parameters."""


@dataclass
class Session:
    """The worker's state of its client.

    Attributes
    ----------
    folder: the client's private folder for images, None until "initialize".
    parents: the worker ends with any of these processes.
    """

    folder: Path | None = None
    parents: set[int] = field(default_factory=lambda: {os.getppid()} if hasattr(os, "getppid") else set())

    def adopt(self, folder: str | None, parent: int | None) -> None:
        """Take what a client names: its folder, and its process if that is not the parent."""
        if folder is not None:
            self.folder = Path(folder)
        if parent is not None:
            self.parents.add(int(parent))


@dataclass(eq=False)
class Request:
    """One request, until its answer."""

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
        """Folder for results: that of the request, otherwise that of the session."""
        chosen = self.session.folder if named is None else Path(named)
        if chosen is None:
            raise InputError("There is no folder for the results; give one with the request.")
        if not chosen.is_dir():
            raise InputError(f"The folder {chosen} for the results does not exist; choose another one.")
        return chosen

    def progress(self, progress: Progress) -> None:
        """Progress callback of the library; raises Cancelled if the client canceled the request."""
        self.check()
        now = time.monotonic()
        same_stage = progress.stage == self.last.stage
        self.last, self.reported = progress, now
        hurried = same_stage and now - self.sent < SHORTEST_GAP
        if not hurried or progress.step in (0, progress.total):
            self.report()

    def check(self) -> None:
        """Raise Cancelled if the client canceled the request."""
        if self.cancelled.is_set():
            raise Cancelled("Stopped; nothing was written.")

    def log(self, text: str, level: str = "info") -> None:
        """Send a line for the client's log."""
        self.notify("log", {"level": level, "text": text})

    def report(self) -> None:
        """Send the last progress, with its estimate reduced by the time since then."""
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
    with suppress(Exception):  # psutil is optional
        from MedGenLib.devices import memory_mib

        return round(memory_mib(), 1)
    return None
