"""Trials of a benchmark that run at once, each in a worker and in a folder of its own, with its log."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedGenLib.cohort.board import Board
from MedGenLib.cohort.records import DONE, LOG, Record
from MedGenLib.cohort.scheduler import Pool, WorkersUnusable, run_cases
from MedGenLib.errors import Cancelled, MedGenError
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import Progress, ProgressCallback, announce, duration
from MedGenLib.trainer.run import Choices, train_own

MOST_DEATHS = 3
"""Workers that a trial may lose; the next one goes on from its last checkpoint."""
LINE_EVERY = 2.0
"""Seconds between two lines of a log, of which the board shows the last one."""


@dataclass(frozen=True)
class Trial:
    """The training of a recipe, its ``id``; ``choices`` are those of `Choices`, as a dictionary."""

    id: str
    dataset: str
    choices: dict[str, Any]
    device: str
    threads: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def train(self, out: Path, progress: ProgressCallback | None) -> Manifest:
        """Train and measure in its folder below that of the benchmark, or go on with that."""
        folder = out / self.id
        with contextlib.suppress(OSError):  # where there are no links, each run prepares its own images
            (out / "cache").mkdir(exist_ok=True)
            (folder / "cache").symlink_to(Path("..", "cache"), target_is_directory=True)
        return train_own(self.dataset, folder, Choices(**self.choices), self.device, self.threads, progress)


def run_trials(trials: Sequence[Trial], out: Path, pool: Pool, progress: ProgressCallback | None) -> dict[str, Record]:
    """Run trials in the workers of a pool, which is closed; recipe -> its record, with the sentence of a failure."""
    ended: dict[str, Record] = {}
    quiet = getattr(progress, "quiet", progress is None)
    board = Board(
        len(trials),
        0,
        lambda text: announce([text], progress),
        quiet,
        noun="trial",
        detail=lambda recipe: _last_line(out / recipe / LOG),
    )
    run_cases(trials, out, pool, board, lambda record: ended.update({record.id: record}), outcome=_outcome)
    return ended


def run_trial(trial: Trial, out: Path, progress: ProgressCallback | None) -> Record:
    """Train a recipe; a failure is a record, too. Raises Cancelled from ``progress``."""
    start, record, log = time.perf_counter(), _record(trial), _Log(out / trial.id / LOG, progress)
    try:
        trial.train(out, log)
        record.status = DONE
    except Cancelled:
        raise
    except Exception as error:
        record.sentence = sentence_of(error)
    record.seconds = round(time.perf_counter() - start, 3)
    log.add(f"{record.status} {record.sentence}".strip())
    return record


def sentence_of(error: Exception) -> str:
    """Why a training failed, in one line."""
    reason = str(error) if isinstance(error, MedGenError) else f"{type(error).__name__}: {error}"
    return " ".join(reason.split())


def _outcome(future: Future[dict[str, Any]], trial: Trial, out: Path, deaths: Counter[str]) -> Record | None:
    """The record of a trial that is over; None if its worker died and another one goes on."""
    try:
        return Record(**future.result())
    except WorkersUnusable:
        raise
    except Exception as error:
        deaths[trial.id] += 1
        if deaths[trial.id] < MOST_DEATHS:
            return None
        record = _record(trial)
        record.sentence = f"{MOST_DEATHS} workers ended during the training, the last one so: {sentence_of(error)}"
        return record


def _record(trial: Trial) -> Record:
    return Record(trial.id, "", "train")


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError, IndexError):
        return path.read_text(encoding="utf-8").splitlines()[-1].partition("  ")[2]
    return "waiting for its worker"


class _Log:
    """A progress callback that keeps lines in a file."""

    def __init__(self, path: Path, progress: ProgressCallback | None) -> None:
        self._path, self._progress, self._last = path, progress, 0.0

    def __call__(self, progress: Progress) -> None:
        now, left = time.monotonic(), progress.seconds_left
        if progress.step in (0, progress.total) or now - self._last >= LINE_EVERY:
            self._last = now
            more = f", {duration(left)} left" if left and progress.step < progress.total else ""
            self.add(f"{progress.stage}: {progress.step} of {progress.total}{more}")
        if self._progress is not None:
            self._progress(progress)

    def announce(self, sentences: list[str]) -> None:
        for sentence in sentences:
            self.add(sentence)

    def estimate(self, sentence: str) -> None:
        self.add(sentence)

    def add(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')}  {' '.join(text.split())}\n")
