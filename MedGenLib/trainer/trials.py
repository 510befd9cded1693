"""Trials of a benchmark that run at once: each is a case of the verb "train", in a worker, with a folder and a log."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from MedGenLib.cohort.board import Board
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE, LOG, Record
from MedGenLib.cohort.scheduler import Pool, WorkersUnusable, run_cases
from MedGenLib.errors import Cancelled, MedGenError
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import Progress, ProgressCallback, announce, duration
from MedGenLib.trainer.run import Choices, train_own

MOST_DEATHS, LINE_EVERY = 3, 2.0
"""Workers that a trial may lose, and seconds between two lines of a log, of which the board shows the last one."""


def trial(recipe: str, path: str | Path, choices: Choices, device: str, threads: int | None) -> CohortCase:
    """The training of a recipe."""
    path = str(Path(path).expanduser().absolute())
    return CohortCase(recipe, "train", parameters={**asdict(choices), "run": [path, device, threads]})


def trained(case: CohortCase, out: Path, progress: ProgressCallback | None) -> Manifest:
    """Train and measure a trial in its folder below that of the benchmark, or go on with that."""
    with contextlib.suppress(OSError):  # where there are no links, each run prepares its own images
        (out / "cache").mkdir(exist_ok=True)
        (out / case.id / "cache").symlink_to(Path("..", "cache"), target_is_directory=True)
    choices = dict(case.parameters)
    path, device, threads = choices.pop("run")
    return train_own(path, out / case.id, Choices(**choices), device, threads, progress)


def run_trials(
    trials: Sequence[CohortCase], out: Path, pool: Pool, progress: ProgressCallback | None
) -> dict[str, Record]:
    """Run trials in the workers of a pool, which is closed; recipe -> its record, with the sentence of a failure."""
    ended: dict[str, Record] = {}

    def last_line(recipe: str) -> str:
        with contextlib.suppress(OSError, IndexError):
            return (out / recipe / LOG).read_text(encoding="utf-8").splitlines()[-1].partition("  ")[2]
        return "waiting for its worker"

    quiet = getattr(progress, "quiet", progress is None)
    board = Board(len(trials), 0, lambda text: announce([text], progress), quiet, detail=last_line)
    run_cases(trials, out, pool, board, lambda record: ended.update({record.id: record}), outcome=_outcome)
    return ended


def run_trial(case: CohortCase, out: Path, progress: ProgressCallback | None) -> Record:
    """Train a recipe; a failure is a record, too. Raises Cancelled from ``progress``."""
    record, log = Record.of(case), _Log(out / case.id / LOG, progress)
    try:
        trained(case, out, log)
        record.status = DONE
    except Cancelled:
        raise
    except Exception as error:
        record.sentence = sentence_of(error)
    log.announce([f"{record.status} {record.sentence}"])
    return record


def sentence_of(error: Exception) -> str:
    """Why a training failed, in one line."""
    return " ".join((str(error) if isinstance(error, MedGenError) else f"{type(error).__name__}: {error}").split())


def _outcome(future: Future[dict[str, Any]], case: CohortCase, out: Path, deaths: Counter[str]) -> Record | None:
    """The record of a trial that is over; None if its worker died, and another one goes on from its checkpoint."""
    try:
        return Record(**future.result())
    except WorkersUnusable:
        raise
    except Exception as error:
        deaths[case.id] += 1
        record = Record.of(case)
        record.sentence = f"{MOST_DEATHS} workers ended during the training, the last one so: {sentence_of(error)}"
        return record if deaths[case.id] == MOST_DEATHS else None


class _Log:
    """A progress callback that keeps lines in a file."""

    def __init__(self, path: Path, progress: ProgressCallback | None) -> None:
        self._path, self._progress, self._last = path, progress, 0.0

    def __call__(self, progress: Progress) -> None:
        now, left = time.monotonic(), progress.seconds_left
        if progress.step in (0, progress.total) or now - self._last >= LINE_EVERY:
            self._last, more = now, f", {duration(left)} left" if left else ""
            self.announce([f"{progress.stage}: {progress.step} of {progress.total}{more}"])
        if self._progress is not None:
            self._progress(progress)

    def announce(self, sentences: list[str]) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{time.strftime('%H:%M:%S')}  {' '.join(said.split())}\n" for said in sentences)
