"""One worker, and the runs that wait for it, taken from the clients in turns."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.errors import Cancelled, InputError, MedGenError
from MedGenLib.progress import Progress, duration
from MedGenLib.worker.client import Job, Worker
from MedGenLib.worker.protocol import messages

GRACE = 15.0
"""Seconds for a run to end by itself after it was stopped."""


@dataclass(frozen=True)
class Limits:
    """Bytes of the images of a run, seconds of a run and of an unused worker, connections, and runs of each."""

    upload: int = 2 * 2**30
    run: float = 3600.0
    idle: float = 600.0
    clients: int = 32
    waiting: int = 8


@dataclass(eq=False)
class RemoteRun:
    """One request of a client; `on_progress` and `on_answer` are called in the event loop with it."""

    owner: str
    number: int | None
    on_progress: Callable[[RemoteRun, Progress], None]
    on_answer: Callable[[RemoteRun, dict[str, Any]], None]
    folder: Path | None = None
    method: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    uploads: set[str] = field(default_factory=set)
    bytes: int = 0
    stopped: MedGenError | None = None
    job: Job | None = None

    def stop(self, error: MedGenError | None = None) -> None:
        """Let it end soon, with this error, by default that it was canceled."""
        self.stopped = error or Cancelled("Stopped; nothing was written.")
        if self.job is not None:
            self.job.cancel()

    def remove(self) -> None:
        """Remove its folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class FairQueue:
    """Runs of several owners: next is the first of the owner who has waited longest for a turn."""

    def __init__(self) -> None:
        self.waiting: list[RemoteRun] = []
        self._filled = asyncio.Event()
        self._turns: dict[str, int] = {}

    def put(self, run: RemoteRun) -> None:
        self.waiting.append(run)
        self._filled.set()

    async def get(self) -> RemoteRun:
        while not self.waiting:
            self._filled.clear()
            await self._filled.wait()
        run = min(self.waiting, key=lambda run: self._turns.get(run.owner, 0))
        self.waiting.remove(run)
        self._turns[run.owner] = max(self._turns.values(), default=0) + 1
        return run


class SharedWorker:
    """Lets one worker run what clients ask for; `note` is called with lines of the log.

    counts: (metric, label) -> number.
    """

    def __init__(self, limits: Limits, note: Callable[[str], None]) -> None:
        self.limits, self._note = limits, note
        self.worker = Worker(env={"MEDGEN_ENGINE": ""})
        self.queue = FairQueue()
        self.current: RemoteRun | None = None
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def facts(self) -> dict[str, Any]:
        """Versions and devices, empty before the first start."""
        return {name: self.worker.info[name] for name in ("protocol", "versions", "devices") if self.worker.info}

    async def work(self) -> None:
        """Start the worker, so that it is warm, then run what waits, forever."""
        try:
            await self._start()
        except MedGenError as error:  # each run tries again
            self._note(str(error))
        while True:
            try:
                async with asyncio.timeout(self.limits.idle):
                    run = await self.queue.get()
            except TimeoutError:
                if self.worker.runs:
                    self._note("The worker was ended, as nobody uses it.")
                    await asyncio.to_thread(self.worker.close)
                continue
            self.current, start = run, time.monotonic()
            try:
                message = messages.answer(run.number, await self._result(run))
            except Exception as error:  # whatever one run does, the next one follows
                message = messages.refusal(run.number, run.stopped or error)
            self.current = None
            seconds, outcome = time.monotonic() - start, "failed" if "error" in message else "done"
            self.counts["runs", f'method="{run.method}",outcome="{outcome}"'] += 1
            self.counts["run_seconds", ""] += seconds
            self._note(f"{run.owner}: {run.method} {outcome} after {seconds:.1f} s.")
            run.on_answer(run, message)

    async def _start(self) -> None:
        self.counts["worker_starts", ""] += 1
        await asyncio.to_thread(self.worker.start)

    async def _result(self, run: RemoteRun) -> dict[str, Any]:
        """What the worker answers. Raises its error."""
        if not self.worker.runs and run.stopped is None:  # it may have died
            run.on_progress(run, Progress("starting the worker", 0, 1))
            await self._start()
        if run.stopped is not None:
            raise run.stopped
        if run.method == "initialize":
            return self.facts
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        run.job = job = self.worker.request(
            run.method,
            run.params,
            progress=lambda progress: loop.call_soon_threadsafe(run.on_progress, run, progress),
            on_done=lambda job: loop.call_soon_threadsafe(ended.set),
        )
        if not await _within(self.limits.run, ended):
            limit = duration(self.limits.run)
            run.stop(InputError(f"The run took more than {limit}, the limit of the engine; make it smaller."))
            if not await _within(GRACE, ended):
                await asyncio.to_thread(self.worker.close)
        return job.result(GRACE)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
