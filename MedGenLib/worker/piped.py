"""A worker process with pipes, and threads that read them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from MedGenLib.errors import MedGenError, WorkerError
from MedGenLib.worker.process import SILENCE_TIMEOUT, command, environment, kill_tree
from MedGenLib.worker.protocol.connection import Connection

GRACE = 5.0
"""Seconds for the worker to end by itself."""


class PipedProcess:
    """One worker process, from its start to `end`.

    Parameters
    ----------
    python, env: the Python that runs it, and additional environment variables.
    note: called with each line of its log, in a thread.
    ended: returns the error of unanswered requests for an exit code (None: unknown).

    Raises
    ------
    WorkerError: the Python interpreter cannot be started.
    """

    def __init__(
        self,
        python: str,
        env: Mapping[str, str],
        note: Callable[[str], None],
        ended: Callable[[int | None], WorkerError],
    ) -> None:
        self._note, self._ended = note, ended
        # Held during access to the connection; callbacks run without it.
        self._lock = threading.RLock()
        self._later: list[Callable[[], None]] = []
        self._process = _started(python, env)
        self._connection = Connection(self._write, note)
        targets = (self._read_log, self._read, self._watch)
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """ID of the started process, which may be a launcher of the worker."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def request(
        self,
        method: str,
        params: dict[str, Any],
        on_result: Callable[[dict], None],
        on_error: Callable[[MedGenError], None],
        on_progress: Callable[[dict], None] | None = None,
    ) -> int:
        """Send a request; returns its number. The callbacks run in a thread of this object and may send requests."""
        with self._lock:
            return self._connection.request(
                method,
                params,
                on_result=self._afterwards(on_result),
                on_error=self._afterwards(on_error),
                on_progress=None if on_progress is None else self._afterwards(on_progress),
            )

    def cancel(self, number: int) -> None:
        """Request the cancellation of a request."""
        with self._lock:
            self._connection.cancel(number)

    def end(self, error: WorkerError | None = None) -> None:
        """End the process; unanswered requests get the error, if given."""
        process = self._process
        if error is not None:
            self._fail(error)
            with suppress(OSError, ValueError):
                process.stdin.close()  # the worker ends when its stdin does
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(GRACE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError, ValueError):
                pipe.close()

    def _write(self, line: bytes) -> None:
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._ended(self._process.poll()) from error

    def _read(self) -> None:
        """Feed the connection until the worker's stdout ends."""
        process, error = self._process, None
        while error is None and (data := os.read(process.stdout.fileno(), 1 << 16)):
            try:
                with self._lock:
                    self._connection.feed(data)
            except WorkerError as garbage:
                error = garbage
                kill_tree(process.pid)
            self._call_back()
        process.wait()
        self._threads[0].join(1.0)  # the last lines of its log often contain the reason
        self._fail(error or self._ended(process.returncode))

    def _read_log(self) -> None:
        for line in self._process.stderr:
            self._note(line.decode("utf-8", errors="replace").rstrip())

    def _watch(self) -> None:
        """End a worker without messages for too long."""
        while self.runs:
            time.sleep(0.5)
            with self._lock:
                silent = self._connection.silent_for
            if silent >= SILENCE_TIMEOUT:
                sentence = f"The worker did not respond for {silent:.0f} seconds and was stopped; run again."
                self._fail(WorkerError(sentence))
                kill_tree(self.pid)

    def _fail(self, error: MedGenError) -> None:
        """Fail all unanswered requests with this error."""
        with self._lock:
            self._connection.fail(error)
        self._call_back()

    def _afterwards(self, function: Callable) -> Callable:
        return lambda *values: self._later.append(lambda: function(*values))

    def _call_back(self) -> None:
        """Run pending callbacks without the lock, as a callback may send a request."""
        while True:
            with self._lock:
                if not self._later:
                    return
                function = self._later.pop(0)
            function()


def _started(python: str, env: Mapping[str, str]) -> subprocess.Popen:
    try:
        return subprocess.Popen(
            command(python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({**os.environ, **env}),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise WorkerError(
            f"The worker cannot start with the Python '{python}' ({error.strerror or error}); choose another one."
        ) from error
