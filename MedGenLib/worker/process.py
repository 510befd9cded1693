"""Starting the worker's process and ending it with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

START_TIMEOUT = 120.0
"""Seconds for the answer to `initialize`: a cold disk takes long to load PyTorch."""
SILENCE_TIMEOUT = 120.0
"""Seconds without a message during a request after which the worker counts as lost; it sends one per second."""


def command(python: str = sys.executable) -> list[str]:
    """The command line of the worker for this Python."""
    return [python, "-u", "-m", "MedGenLib.worker"]


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The worker's environment: `base` (default: that of this process) and the path of MedGenLib."""
    values = dict(os.environ if base is None else base)
    library = str(Path(__file__).resolve().parents[2])
    paths = [path for path in values.get("PYTHONPATH", "").split(os.pathsep) if path]
    values["PYTHONPATH"] = os.pathsep.join([library, *(p for p in paths if p != library)])
    values["PYTHONSAFEPATH"] = "1"  # "python -m" would import from the current folder first
    values["PYTHONUNBUFFERED"] = "1"
    values["PYTHONIOENCODING"] = "utf-8"
    return values


def kill_tree(pid: int) -> None:
    """End a process and its descendants, children first; missing processes are ignored.

    PythonSlicer is a launcher: ending only the launcher leaves its Python process running.
    """
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
        return
    for process in [*reversed(descendants(pid)), pid]:
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Children of a process, their children and so on, parents first (POSIX)."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents().items():
        children.setdefault(parent, []).append(process)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    if sys.platform == "win32":
        return _is_alive_on_windows(pid)
    if Path("/proc/self/stat").exists():
        with suppress(OSError, IndexError):
            state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
            return state.split()[0] not in "ZX"
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # process of another user
        return True
    return True


def _is_alive_on_windows(pid: int) -> bool:
    import ctypes

    synchronize, still_running = 0x00100000, 0x102
    kernel = ctypes.windll.kernel32
    handle = kernel.OpenProcess(synchronize, False, pid)
    if not handle:
        return False
    try:
        return kernel.WaitForSingleObject(handle, 0) == still_running
    finally:
        kernel.CloseHandle(handle)


def _parents() -> dict[int, int]:
    """Process -> parent, of all processes; without psutil, which Slicer may lack."""
    if Path("/proc/self/stat").exists():
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                # "pid (name) state parent ...", where the name may contain spaces and brackets.
                with suppress(OSError, IndexError, ValueError):
                    text = (entry / "stat").read_text(errors="replace")
                    found[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
        return found
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], stdin=subprocess.DEVNULL, capture_output=True, text=True
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return {int(row[0]): int(row[1]) for row in rows if len(row) == 2}
