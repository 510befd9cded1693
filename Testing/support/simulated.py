"""Workers that are simulated on a virtual clock, for the real scheduler of cohorts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE, Record


@dataclass
class Cluster:
    """A pool of simulated workers; `wait` advances its clock to the next event.

    Attributes
    ----------
    size: workers; per_node: of each computer.
    seconds: time of a case.
    start, between: seconds until a worker is warm, and between two of its cases.
    deaths: of a worker, in an hour.
    slow, slowness: share of the workers that take so many times as long.
    lost: computers and the second in which each is gone for good.
    """

    size: int
    seconds: Callable[[CohortCase], float]
    start: float = 8.0
    between: float = 0.1
    deaths: float = 0.0
    slow: float = 0.0
    slowness: float = 3.0
    per_node: int = 8
    lost: dict[int, float] = field(default_factory=dict)
    seed: int = 0
    now: float = 0.0
    busy: float = 0.0
    died: int = 0

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)
        self._factors = np.where(self._draw.random(self.size) < self.slow, self.slowness, 1.0)
        self._warm: set[int] = set()
        self._events: list[tuple[float, int, Future, dict[str, Any] | None, int]] = []
        self._count = 0

    def submit(self, place: int, case: CohortCase) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        end_of_node = self.lost.get(place // self.per_node, np.inf)
        if self.now >= end_of_node:
            return future  # no room for another worker: it waits for ever
        future.set_running_or_notify_cancel()
        took = float(self.seconds(case) * self._factors[place])
        end = self.now + (self.between if place in self._warm else self.start) + took
        death = self.now + self._draw.exponential(3600 / self.deaths) if self.deaths else np.inf
        record = Record.of(case)
        record.status, record.seconds = DONE, took
        self._count += 1
        if end < min(death, end_of_node):
            heapq.heappush(self._events, (end, self._count, future, asdict(record), place))
        else:
            heapq.heappush(self._events, (min(death, end_of_node), self._count, future, None, place))
        return future

    def wait(self, futures: Collection[Future], *_: Any) -> SimpleNamespace:
        self.now, _, future, record, place = heapq.heappop(self._events)  # without one the cohort would never end
        if record is None:
            self._warm.discard(place)
            self.died += 1
            future.set_exception(RuntimeError("the worker died"))
        else:
            self._warm.add(place)
            self.busy += record["seconds"]
            future.set_result(record)
        return SimpleNamespace(done={future})

    def close(self) -> None:
        pass

    @property
    def efficiency(self) -> float:
        """Part of the time of all workers that went into cases that were kept."""
        return self.busy / (self.size * self.now)
