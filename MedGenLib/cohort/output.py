"""The output folder of a cohort: checked, and kept by one run at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from MedGenLib.cohort.records import CASES
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import hidden_beside, replacing, write_json

OWNER = "cohort.json"
BEAT, STALE = 5.0, 60.0
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
    """Keep a part of a cohort from other runs; the lock of a dead process or a silent machine is taken over.

    Raises
    ------
    InputError: another run works on some of the same cases.
    """
    path, ended = out / f".run-{part}-of-{parts}.lock", threading.Event()
    for other in out.glob(".run-*.lock"):
        found = _LOCK.fullmatch(other.name)
        if found and (int(found[1]) == part or int(found[2]) != parts):
            if _lives(other):
                raise InputError(f"Another run works in {out}; wait for its end (if there is none, delete {other}).")
            other.unlink(missing_ok=True)

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    with replacing(path) as temporary:
        temporary.write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        path.unlink(missing_ok=True)


def _lives(lock: Path) -> bool:
    """Whether the run of a lock goes on."""
    import psutil

    try:
        process, _, host = lock.read_text(encoding="utf-8").partition(" ")
        now = hidden_beside(lock)
        now.touch()  # the clock of the file system
        silent = now.stat().st_mtime - lock.stat().st_mtime > STALE
        now.unlink()
        return not silent and (
            host != socket.gethostname() or psutil.Process(int(process)).status() != psutil.STATUS_ZOMBIE
        )
    except (OSError, ValueError, psutil.Error):  # it ended meanwhile
        return False
