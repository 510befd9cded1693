"""The client's side of the protocol, independent of process, threads and clock.

The owner of the pipes passes received bytes to `feed` and sends those given to `write`: threads in plain Python
(`piped.py`), Qt's event loop in Slicer. Callbacks run inside `feed` and `fail`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from MedGenLib.errors import MedGenError, WorkerError
from MedGenLib.worker.protocol import messages


@dataclass
class _Pending:
    on_result: Callable[[dict], None]
    on_error: Callable[[MedGenError], None]
    on_progress: Callable[[dict], None] | None


class Connection:
    """Requests, answers and notifications of one worker.

    Parameters
    ----------
    write: called with the bytes for the worker's stdin.
    on_log: called with the worker's log messages.
    clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._on_log, self._clock = write, on_log, clock
        self._pending: dict[int, _Pending] = {}
        self._last_number = 0
        self._rest = bytearray()
        self._last_sign = clock()

    @property
    def pending(self) -> tuple[int, ...]:
        """Unanswered requests, oldest first."""
        return tuple(self._pending)

    @property
    def silent_for(self) -> float:
        """Seconds since the last message, or since the oldest pending request; 0 if idle."""
        return self._clock() - self._last_sign if self._pending else 0.0

    def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        on_result: Callable[[dict], None],
        on_error: Callable[[MedGenError], None],
        on_progress: Callable[[dict], None] | None = None,
    ) -> int:
        """Send a request; returns its number. Either on_result or on_error is called, once."""
        self._last_number += 1
        number = self._last_number
        line = messages.encode(messages.request(number, method, params or {}))
        if not self._pending:
            self._last_sign = self._clock()
        self._pending[number] = _Pending(on_result, on_error, on_progress)
        try:
            self._write(line)
        except BaseException:
            self._pending.pop(number, None)
            raise
        return number

    def cancel(self, number: int) -> None:
        """Request cancellation; on_error is called with `Cancelled` when the request ends."""
        if number in self._pending:
            self._write(messages.encode(messages.request(None, "cancel", {"id": number})))

    def feed(self, data: bytes) -> None:
        """Process bytes from the worker's stdout, in chunks of any size.

        Raises WorkerError if the bytes are not messages. Then end the worker and call `fail`.
        """
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n") if b"\n" in data else (bytes(self._rest),)
        self._rest = bytearray(rest)
        for line in lines:
            if line.strip():
                self._take(line)
        if len(self._rest) > messages.LONGEST_LINE:
            raise _garbage(bytes(self._rest[:200]))

    def fail(self, error: MedGenError) -> None:
        """Fail all pending requests with this error, after the end of the transport."""
        pending, self._pending = self._pending, {}
        for entry in pending.values():
            entry.on_error(error)

    def _take(self, line: bytes) -> None:
        try:
            message = messages.decode(line)
        except WorkerError as error:
            raise _garbage(line) from error
        self._last_sign = self._clock()
        if "method" in message:
            self._notify(message["method"], message.get("params"), line)
        elif "result" in message or "error" in message:
            self._answer(message)
        else:
            raise _garbage(line)

    def _notify(self, method: str, params: Any, line: bytes) -> None:
        if not isinstance(params, dict):
            raise _garbage(line)
        if method == "log" and self._on_log is not None:
            self._on_log(str(params.get("text", "")))
        elif method == "progress":
            entry = self._pending.get(params.get("id"))
            if entry is not None and entry.on_progress is not None:
                entry.on_progress(params)

    def _answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None and "error" in message:
            # The worker could not parse a request, so its number is unknown.
            self.fail(messages.exception_of(message["error"]))
            return
        entry = self._pending.pop(number, None) if isinstance(number, int) else None
        if entry is None:
            return  # already answered
        if "error" in message:
            entry.on_error(messages.exception_of(message["error"]))
        elif isinstance(message["result"], dict):
            entry.on_result(message["result"])
        else:
            entry.on_error(_garbage(str(message["result"]).encode()))


def _garbage(line: bytes) -> WorkerError:
    error = WorkerError(
        "The worker sent an invalid message and was stopped; run again, and copy the report if it happens again."
    )
    error.detail = f"It began with {bytes(line[:200])!r}."
    return error
