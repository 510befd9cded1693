"""The output folder of a cohort: checked, and kept by one run at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from MedGenLib.cohort.records import CASES
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import write_json

OWNER = "cohort.json"
BEAT, SILENT = 2.0, 20.0
"""Seconds between two signs of life of a run, and without one after which it counts as over."""
_LOCK = re.compile(r"\.run-(\d+)-of-(\d+)\.lock")


def open_output(out: Path, name: str) -> None:
    """Create the folder of a cohort.

    Raises
    ------
    InputError: it holds something else, or cannot be written.
    """
    try:
        owner = json.loads((out / OWNER).read_text(encoding="utf-8")).get("cohort")
    except (FileNotFoundError, NotADirectoryError):
        owner = None
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"The folder {out} is not empty and holds no cohort; choose another one.") from None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{out / OWNER} cannot be read ({error}); choose another output folder.") from None
    if owner not in (None, name):
        raise InputError(f"The folder {out} holds the results of the cohort '{owner}'; choose another one.")
    try:
        (out / CASES).mkdir(parents=True, exist_ok=True)
        write_json(out / OWNER, {"cohort": name})
    except OSError as error:
        raise InputError(f"The folder {out} cannot be written: {error.strerror}; choose another one.") from None


@contextlib.contextmanager
def locked(out: Path, part: int, parts: int) -> Iterator[None]:
    """Keep a part of a cohort from other runs; the lock of a dead process or a silent computer is taken over.

    Raises
    ------
    InputError: another run works on some of the same cases.
    """
    path, ended = out / f".run-{part}-of-{parts}.lock", threading.Event()
    for other in out.glob(".run-*.lock"):
        found = _LOCK.fullmatch(other.name)
        if found and (int(found[1]) == part or int(found[2]) != parts):
            if _lives(other):
                raise _busy(other)
            other.unlink(missing_ok=True)

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(f"{os.getpid()} {socket.gethostname()}")
    except FileExistsError:  # of a run that started at the same moment
        raise _busy(path) from None
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        path.unlink(missing_ok=True)


def _busy(lock: Path) -> InputError:
    return InputError(f"Another run works in {lock.parent}; wait for its end (if there is none, delete {lock}).")


def _lives(lock: Path) -> bool:
    """Whether the run of a lock goes on."""
    import psutil

    try:
        process, _, host = lock.read_text(encoding="utf-8").partition(" ")
        here = host == socket.gethostname()
        seen, end = _last_beat(lock), time.monotonic() + SILENT
        while time.monotonic() < end:
            if here and psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE:
                return False
            if _last_beat(lock) != seen:
                return True
            time.sleep(BEAT / 10)
        return False
    except (OSError, ValueError, psutil.Error):  # it ended meanwhile
        return False


def _last_beat(lock: Path) -> int:
    with lock.open("rb") as stream:  # a network file system asks its server when a file is opened
        return os.fstat(stream.fileno()).st_mtime_ns
