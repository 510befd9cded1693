"""Processes of this computer that train together: each runs the same command, see `MedGenLib.training.ranks`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from MedGenLib.cluster.plan import usable_cores
from MedGenLib.training.launch import GUARDED
from MedGenLib.worker.process import environment, kill_tree

PAUSE, GRACE = 0.2, 60.0
"""Seconds between two looks at the processes, and for the first to say why it ends after another has ended."""
LOST = "A process of this training was ended; the same command goes on from the last checkpoint."


def train_locally(
    words: Sequence[str], count: int, make_smaller: Callable[[], bool], say: Callable[[str], None]
) -> int:
    """Run `medgen WORDS` in several processes; returns the exit code, that of the first one.

    Parameters
    ----------
    make_smaller: called where Linux ended a process because the memory was full; whether to start them again.
    say: prints a sentence that the first process could not say itself.
    """
    while True:
        before = _ended_by_the_system()
        codes = _run(words, count)
        if -signal.SIGKILL not in codes or _ended_by_the_system() == before or not make_smaller():
            break
    if codes[0] < 0:
        say(LOST)
    return codes[0] if codes[0] >= 0 else 2


def _run(words: Sequence[str], count: int) -> list[int]:
    """The exit codes of the processes; where one fails, the others are ended."""
    with ExitStack() as stack:
        shared = _variables(count)
        processes = [_started(words, rank, shared) for rank in range(count)]
        for process in processes:
            stack.callback(_end, process)
        while not any(codes := [process.poll() for process in processes]) and None in codes:
            time.sleep(PAUSE)
        deadline = time.monotonic() + GRACE
        while any(codes) and processes[0].poll() is None and time.monotonic() < deadline:
            time.sleep(PAUSE)
    return [process.returncode for process in processes]


def _started(words: Sequence[str], rank: int, shared: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process in a session of its own: Ctrl-C reaches this program alone, which ends them."""
    return subprocess.Popen(
        [sys.executable, "-m", "MedGenLib", *words],
        env=environment({**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}),
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        kill_tree(process.pid)
    process.wait()
    process.stdin.close()


def _variables(count: int) -> dict[str, str]:
    """What all find in their environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), GUARDED: "1"}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // count)), **group}


def _ended_by_the_system() -> int:
    """Processes that Linux has ended because the memory was full, since its start."""
    file = Path("/proc/vmstat")
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else ()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
