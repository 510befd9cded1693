"""The scheduler: cases to the free places of a pool, and to another one when a worker dies."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, Protocol

from MedGenLib.cohort.board import Board
from MedGenLib.cohort.case import complete
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import QUARANTINED, Record, case_folder, done_record, remove_unfinished
from MedGenLib.errors import WorkerError

MOST_DEATHS = 2
"""Workers that a case may end before it is set aside."""
TICK = 0.5
"""Seconds between two pictures of the board."""


class WorkersUnusable(WorkerError):
    """No worker can be started, whatever the case."""


class Pool(Protocol):
    """Workers with warm models, one a place; a dead one is replaced by the next `submit` to its place."""

    size: int
    threads: int

    def submit(self, place: int, case: CohortCase) -> Future[dict[str, Any]]:
        """Run a case; the future has its record, or an error if the worker died (`WorkersUnusable`: if none starts).

        It can be canceled until a worker has begun the case.
        """

    def close(self) -> None:
        """End all workers at once."""


def run_cases(
    cases: Sequence[CohortCase],
    out: Path,
    pool: Pool,
    board: Board,
    keep: Callable[[Record], None],
    wait: Callable[..., Any] = wait,
    outcome: Callable[..., Record | None] | None = None,
) -> None:
    """Run every case once; `keep` gets each record.

    Parameters
    ----------
    wait: as `concurrent.futures.wait`; a simulation has its own clock.
    outcome: the record of a future, or None to try its case again; called with both, `out` and a counter of deaths.

    Raises
    ------
    WorkersUnusable: no worker can be started.
    """
    waiting, deaths = deque(cases), Counter[str]()
    free = deque(range(pool.size))
    busy: dict[Future[dict[str, Any]], tuple[int, CohortCase]] = {}
    try:
        while waiting or busy:
            while free and waiting:
                place, case = free.popleft(), waiting.popleft()
                board.started(place, case.id)
                busy[pool.submit(place, case)] = place, case
            board.draw()
            for future in wait(busy, TICK, FIRST_COMPLETED).done:
                place, case = busy.pop(future)
                record = (outcome or _outcome)(future, case, out, deaths)
                board.finished(place, record)
                if record is None:
                    free.append(place)
                    waiting.append(case)
                else:
                    free.appendleft(place)  # its worker is warm
                    keep(record)
                    if not waiting:
                        _take_back(busy, waiting, board)
        board.draw()
    finally:
        board.close()
        pool.close()
        remove_unfinished(out, [case.id for _, case in busy.values()])


def _take_back(busy: dict[Future[dict[str, Any]], tuple[int, CohortCase]], waiting: deque, board: Board) -> None:
    """Let a case wait again whose worker has not begun, and may never: its computer is lost, or full."""
    for future, (place, case) in busy.items():
        if future.cancel():
            del busy[future]
            board.finished(place, None)
            return waiting.append(case)


def _outcome(future: Future[dict[str, Any]], case: CohortCase, out: Path, deaths: Counter[str]) -> Record | None:
    """The record of a case that is over; None if its worker died and it has to be tried again."""
    try:
        return Record(**future.result())
    except WorkersUnusable:
        raise
    except Exception as error:  # the worker died, or its answer was lost
        deaths[case.id] += 1
        remove_unfinished(out, [case.id])
        if (record := done_record(case, out)) is not None:  # it died between the last rename and its answer
            return record
        return _quarantined(case, out, error) if deaths[case.id] >= MOST_DEATHS else None


def _quarantined(case: CohortCase, out: Path, error: Exception) -> Record:
    record = Record.of(case)
    record.status = QUARANTINED
    record.sentence = (
        f"{MOST_DEATHS} workers ended during this case; see its log, or give it the parameter memory: small."
    )
    folder = case_folder(out, case.id)
    hidden = folder.with_name(f".{secrets.token_hex(4)}.part.{case.id}")
    try:
        hidden.mkdir(parents=True)
        complete(record, hidden, folder, [str(error), str(getattr(error, "detail", ""))])
    except OSError:  # the disk is full; the report has the record all the same
        shutil.rmtree(hidden, ignore_errors=True)
    return record
