"""Processes of this computer that train together: each runs the same command, see `MedGenLib.training.ranks`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from MedGenLib.cluster.plan import usable_cores
from MedGenLib.training import GUARDED
from MedGenLib.worker.process import environment, kill_tree

REFUSED = 2
PAUSE, GRACE = 0.2, 10.0
"""Seconds between two looks at the processes, and for the others to say what they have to say after one has ended."""


def train_locally(
    words: Sequence[str], count: int, make_smaller: Callable[[], bool], say: Callable[[str], None]
) -> int:
    """Run `medgen WORDS` in several processes; returns the exit code, that of the first one.

    Parameters
    ----------
    make_smaller: called where the system ended a process because the memory was full; whether to start them again.
    say: prints a sentence about a process that could not say it itself.
    """
    while True:
        before = _ended_by_the_system()
        codes = _run(words, count, say)
        if -signal.SIGKILL not in codes or _ended_by_the_system() == before or not make_smaller():
            return codes[0] if codes[0] >= 0 else REFUSED


def _run(words: Sequence[str], count: int, say: Callable[[str], None]) -> list[int]:
    """The exit codes of the processes; where one fails, the others are ended."""
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        shared = _variables(count)
        processes = [_started(words, rank, shared, errors[rank]) for rank in range(count)]
        for process in processes:
            stack.callback(_end, process)
        while not any(codes := [process.poll() for process in processes]) and None in codes:
            time.sleep(PAUSE)
        deadline = time.monotonic() + GRACE
        while any(codes) and processes[0].poll() is None and time.monotonic() < deadline:
            time.sleep(PAUSE)
        if processes[0].poll() is None or processes[0].returncode < 0:
            say("A process of this training was ended; the same command goes on from the last checkpoint.")
        for stream in errors:
            stream.seek(0)
            for line in stream.read().decode(errors="replace").splitlines():
                if line.startswith("medgen: "):
                    say(line.removeprefix("medgen: "))
    return [process.returncode for process in processes]


def _started(words: Sequence[str], rank: int, shared: dict[str, str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that Ctrl-C reaches this one alone, which ends them."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    return subprocess.Popen(
        [sys.executable, "-m", "MedGenLib", *words],
        env=environment({**os.environ, **shared, **own}),
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else errors,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        kill_tree(process.pid)
    process.wait()
    process.stdin.close()


def _variables(count: int) -> dict[str, str]:
    """The environment that all have in common."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), GUARDED: "1"}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // count))} | found


def _ended_by_the_system() -> int:
    """Processes that Linux has ended because the memory was full, since its start."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
