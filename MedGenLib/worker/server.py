"""The worker's process: runs one job at a time, and handles cancellation and the end of its parent.

There are three threads. The main thread runs the jobs, as libraries such as PyTorch prefer. The
reader handles stdin: it queues jobs, and handles `cancel` and the end of the stream at once. The
watch repeats the last progress once a second, so that a client can distinguish slow from dead, and
ends the process when its parent has ended.
"""

from __future__ import annotations

import inspect
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from MedGenLib.devices import let_threads_sleep
from MedGenLib.errors import MemoryPlanError
from MedGenLib.registry import Registry
from MedGenLib.worker.faults import explained
from MedGenLib.worker.job import Request, Session
from MedGenLib.worker.methods import METHODS
from MedGenLib.worker.process import is_alive
from MedGenLib.worker.protocol import messages
from MedGenLib.worker.protocol.messages import ProtocolError
from MedGenLib.worker.threads import note_memory_failure, run

HEARTBEAT = 1.0
"""Seconds between two heartbeats during a request."""
WATCH = 0.25
QUICK = ("edit", "edit/undo", "edit/redo")
"""Methods called in quick succession while painting, without releasing memory after each."""
Methods = Mapping[str, Callable[..., dict[str, Any]]] | Registry[Callable[..., dict[str, Any]]]
MEMORY_LIMIT = "MEDGEN_WORKER_MEMORY_MIB"
"""Environment variable: maximum memory of the worker in MiB (Linux), for shared machines. A run that needs more is
tried with the small plan and then refused."""


class Server:
    """Reads requests from `stream`; writes messages with `write`, one bytes object per message."""

    def __init__(self, stream: BinaryIO, write: Callable[[bytes], None], methods: Methods = METHODS) -> None:
        self.session = Session()
        self._stream, self._write, self._methods = stream, write, methods
        self._writing = threading.Lock()
        self._jobs: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._open: dict[Any, Request] = {}
        self._current: Request | None = None

    def run(self) -> None:
        """Run jobs until `shutdown`; the end of the stream or of the parent ends the process."""
        for target in (self._read, self._watch):
            threading.Thread(target=target, name=target.__name__, daemon=True).start()
        while (job := self._jobs.get()) is not None:
            self._work(job)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self._send(messages.request(None, method, params))

    def _work(self, job: Request) -> None:
        self._current = job
        try:
            job.report()
            message = messages.answer(job.number, run(lambda: _call(job, self._methods)))
        except BaseException as error:  # a failing job must not end the worker
            error = explained(error)
            if isinstance(error, MemoryPlanError):
                note_memory_failure()
            message = messages.refusal(job.number, error)
        self._current = None
        self._open.pop(job.number, None)
        self._send_answer(job, message)
        if job.method not in QUICK:
            _tidy()

    def _send_answer(self, job: Request, message: dict[str, Any]) -> None:
        try:
            self._send(message)
        except (TypeError, ValueError) as error:  # not serializable as JSON
            self._send(messages.refusal(job.number, error))

    def _send(self, message: dict[str, Any]) -> None:
        line = messages.encode(message)
        try:
            with self._writing:
                self._write(line)
        except OSError:  # the client has closed the pipe
            self._end()

    # The reader

    def _read(self) -> None:
        # After any error here the worker must end, as it no longer reads requests.
        with suppress(OSError, ValueError):
            for line in self._stream:
                if line.strip():
                    self._take(line)
        self._end()

    def _take(self, line: bytes) -> None:
        number = None
        try:
            message = messages.decode(line)
            number = message.get("id")
            self._accept(number, *_parts(message))
        except ProtocolError as error:
            self._send(messages.refusal(number, error))

    def _accept(self, number: Any, method: str, params: dict[str, Any]) -> None:
        if method == "cancel":
            self._cancel(number, params.get("id"))
        elif method == "shutdown":
            for job in self._open.copy().values():
                job.cancelled.set()
            if number is not None:
                self._send(messages.answer(number, {}))
            self._jobs.put(None)
        elif number is not None:  # other notifications get no answer
            job = Request(number, method, params, self.session, self.notify)
            self._open[number] = job
            self._jobs.put(job)

    def _cancel(self, number: Any, target: Any) -> None:
        job = self._open.get(target) if isinstance(target, int | str) else None
        if job is not None:
            job.cancelled.set()
        if number is not None:
            self._send(messages.answer(number, {"found": job is not None}))

    # The watch

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH)
            if self._orphaned():
                self._end()
            job = self._current
            if job is not None and time.monotonic() - job.sent > HEARTBEAT:
                with suppress(MemoryError):
                    job.report()

    def _orphaned(self) -> bool:
        """Whether the parent process or the client's process has ended."""
        if sys.platform != "win32" and os.getppid() not in self.session.parents:
            return True
        return not all(map(is_alive, self.session.parents))

    def _end(self) -> NoReturn:
        """End the process at once, whatever the main thread does."""
        if self.session.folder is not None:
            remove_images(self.session.folder)
        os._exit(0)


def main(methods: Methods = METHODS) -> int:
    """Serve stdin and stdout until the client ends."""
    with suppress(AttributeError, OSError):  # not on Windows; not if a shell has done it already
        os.setsid()
    let_threads_sleep()
    _limit_memory()
    stream, write = _take_over_pipes()
    server = Server(stream, write, methods)
    server.run()
    # Exit without the clean-up of libraries, which takes long.
    sys.stderr.flush()
    os._exit(0)


def remove_images(folder: Path) -> None:
    """Delete the image files in a private folder, and the folder if it is then empty."""
    for _ in range(2):  # a file may appear during the first pass
        for path, _, names in os.walk(folder, topdown=False):
            for name in names:
                if name.endswith(".npy"):
                    with suppress(OSError):
                        os.unlink(os.path.join(path, name))
            with suppress(OSError):
                os.rmdir(path)


def _parts(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Method and parameters of a request. Raises ProtocolError."""
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str) or not isinstance(message.get("id", 0), int | str | None):
        raise ProtocolError(messages.INVALID_REQUEST, "A message is not a request.")
    if not isinstance(params, dict):
        raise ProtocolError(messages.INVALID_PARAMS, "Parameters must be given by name.")
    return method, params


def _call(job: Request, methods: Methods) -> dict[str, Any]:
    job.check()
    if job.method not in methods:
        sentence = f"The worker has no method '{job.method}'; its version differs."
        raise ProtocolError(messages.UNKNOWN_METHOD, sentence)
    method = methods[job.method]
    try:  # declared options are checked on use, with the nearest name in the error
        inspect.signature(inspect.unwrap(method)).bind(job, **job.params)
    except TypeError as error:
        sentence = f"The parameters of '{job.method}' do not fit ({error})."
        raise ProtocolError(messages.INVALID_PARAMS, sentence) from error
    return method(job, **job.params)


def _tidy() -> None:
    """Return memory to the system after a job."""
    with suppress(Exception):
        from MedGenLib.devices import release_memory

        release_memory()


def _limit_memory() -> None:
    text = os.environ.get(MEMORY_LIMIT, "").strip()
    if not text:
        return
    try:
        import resource

        size = int(float(text) * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        from MedGenLib.devices import favor_small_memory

        favor_small_memory()
        # Compiled kernels reserve more than they use, and the limit applies to reserved memory.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
    except (ImportError, ValueError, OSError) as error:
        print(f"{MEMORY_LIMIT}={text} is ignored: {error}", file=sys.stderr)


def _take_over_pipes() -> tuple[BinaryIO, Callable[[bytes], None]]:
    """The protocol's streams in place of stdin and stdout.

    The process's stdin becomes empty and its stdout becomes stderr, so that libraries that read or print cannot corrupt
    the messages.
    """
    source, sink = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if sys.platform == "win32":
        import msvcrt

        for number in (source, sink):
            msvcrt.setmode(number, os.O_BINARY)

    def write(line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(sink, rest) :]

    return open(source, "rb"), write
