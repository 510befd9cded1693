"""The live table of a cohort: how far it is, and what each worker does."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from MedGenLib.cohort.records import DONE, Record
from MedGenLib.progress import duration

LINE_EVERY = 10.0
"""Seconds between two plain lines, where there is no terminal."""
_MOST_WORKERS, _MOST_FAILURES = 16, 20


class Board:
    """Shows the state on a terminal, otherwise a line from time to time.

    Parameters
    ----------
    total: cases of the cohort; kept: those that were done before.
    failed: called with a line for each of the first failures.
    quiet: show nothing.
    notify: called with every change of a case, for programs.
    detail: of a benchmark, what one of its trials does now, which is shown without a terminal, too.
    """

    def __init__(
        self,
        total: int,
        kept: int,
        failed: Callable[[str], None],
        quiet: bool = False,
        notify: Callable[[dict[str, Any]], None] | None = None,
        detail: Callable[[str], str] | None = None,
    ) -> None:
        self._noun, self._detail = "trial" if detail else "case", detail
        self.total, self.kept, self.quiet = total, kept, quiet
        self.count: Counter[str] = Counter()
        self._failed, self._live = failed, sys.stderr.isatty()
        self._notify = notify or (lambda change: None)
        self._places: dict[int, tuple[str, float]] = {}
        self._begin = self._last = time.monotonic()
        self._lines = 0

    def started(self, place: int, case: str) -> None:
        self._places[place] = case, time.monotonic()
        self._notify({"case": case, "status": "running"})

    def finished(self, place: int, record: Record | None) -> None:
        """A record, or None if the case is tried again."""
        case, _ = self._places.pop(place)
        if record is None:
            self._tell(f"the worker of {case} ended; the {self._noun} is tried again")
            self._notify({"case": case, "status": "waiting"})
            return
        self.count[record.status] += 1
        known = {"status": record.status, "sentence": record.sentence, "seconds": record.seconds}
        self._notify({"case": case, **known, "seconds_left": self.seconds_left})
        if record.status != DONE and sum(self.count.values()) - self.count[DONE] <= _MOST_FAILURES:
            self._tell(f"{record.status}: {case}: {record.sentence}")

    def draw(self) -> None:
        now = time.monotonic()
        if self.quiet or (not self._live and now - self._last < LINE_EVERY):
            return
        self._last = now
        lines = [self.summary()]
        if self._live or self._detail:
            for number, (case, start) in sorted(self._places.items())[:_MOST_WORKERS]:
                said = f"{case}, {self._detail(case)}" if self._detail else case
                lines.append(f"  worker {number + 1}: {said}, {now - start:.0f} s")
        if self._live:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be wiped
            lines = [line[:width] for line in lines]
            self._wipe()
            self._lines = len(lines)
        print("\n".join(lines), file=sys.stderr, flush=True)

    @property
    def seconds_left(self) -> float | None:
        """Time until the last case at the rate so far; None before the first is over."""
        over = sum(self.count.values())
        return (self.total - self.kept - over) * (time.monotonic() - self._begin) / over if over else None

    def summary(self) -> str:
        """One line: done, failed, rate, time left."""
        over, left = sum(self.count.values()), self.seconds_left
        failed, seconds = over - self.count[DONE], time.monotonic() - self._begin
        parts = [f"{self.kept + self.count[DONE]} of {self.total} {self._noun}s done", f"{failed} failed"]
        parts += [f"{60 * over / seconds:.3g} a minute"] if over else []
        parts += [f"{duration(left)} left"] if left else []
        return ", ".join(parts)

    def close(self) -> None:
        """Remove the table."""
        self._wipe()

    def _tell(self, text: str) -> None:
        self._wipe()
        self._failed(text)

    def _wipe(self) -> None:
        if self._lines:
            print(f"\x1b[{self._lines}F\x1b[J", end="", file=sys.stderr, flush=True)
            self._lines = 0
