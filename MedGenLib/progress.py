"""Progress and cancellation, shared by samplers, decoders and translators."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes
    ----------
    stage: short phrase shown to the user, such as "sampling".
    step, total: steps done and steps in this stage.
    seconds_left: estimate for this stage, None before the end of the first step.
    """

    stage: str
    step: int
    total: int
    seconds_left: float | None = None


ProgressCallback = Callable[[Progress], None]
"""Called before the first and after every step. An exception raised in it (for instance `MedGenLib.errors.Cancelled`)
stops the run at once and is propagated unchanged."""


def announce(sentences: Iterable[str], callback: ProgressCallback | None) -> None:
    """Give sentences on the input to the method `announce` of a callback that has one, before the work."""
    tell = getattr(callback, "announce", None)
    if tell is not None:
        tell(list(sentences))


def announce_time(sentence: str, callback: ProgressCallback | None) -> None:
    """Give the estimated time of long work to the method `estimate` of a callback that has one, before the work."""
    tell = getattr(callback, "estimate", None)
    if tell is not None:
        tell(sentence)


def duration(seconds: float) -> str:
    """A time in a unit that people read, such as "9 s", "12 min" or "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


class Stage:
    """Counts the steps of one stage and reports them to a callback.

    >>> seen = []
    >>> stage = Stage("decoding", 2, seen.append)
    >>> stage.advance(); stage.advance()
    >>> [(p.step, p.total) for p in seen]
    [(0, 2), (1, 2), (2, 2)]
    """

    def __init__(self, name: str, total: int, callback: ProgressCallback | None) -> None:
        self.name, self.total, self.callback = name, total, callback
        self.step = 0
        self.start = time.monotonic()
        self._report(None)

    def advance(self) -> None:
        self.step += 1
        elapsed = time.monotonic() - self.start
        self._report(elapsed / self.step * (self.total - self.step))

    def _report(self, seconds_left: float | None) -> None:
        if self.callback is not None:
            self.callback(Progress(self.name, self.step, self.total, seconds_left))


@dataclass
class Timings:
    """Seconds per stage of a run, summed over repetitions."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Add the time since the last call to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.last, 3)
        self.last = now
