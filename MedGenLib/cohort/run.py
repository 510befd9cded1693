"""A run of a cohort, from its manifest to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from MedGenLib.cohort.board import Board
from MedGenLib.cohort.manifest import CohortCase, CohortManifest
from MedGenLib.cohort.records import DONE, Record, done_record, remove_unfinished
from MedGenLib.cohort.scheduler import Pool, run_cases


class Announcer(Protocol):
    """Where failures are shown: the console of the command line."""

    quiet: bool

    def error(self, text: str) -> None: ...


@dataclass
class CohortResult:
    """The records of all cases of a run, by id; kept: how many were done before."""

    cohort: CohortManifest
    out: Path
    records: dict[str, Record]
    kept: int
    files: list[Path] = field(default_factory=list)

    @property
    def done(self) -> list[Record]:
        return [record for record in self.records.values() if record.status == DONE]

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records.values() if record.status != DONE]

    def finish(self, part: tuple[int, int]) -> None:
        """Write the report, and the data set if the whole cohort is done."""
        from MedGenLib.cohort.report import write_report

        suffix = "" if part[1] == 1 else f"-{part[0]}-of-{part[1]}"
        self.files = write_report(self.cohort.name, list(self.records.values()), self.out, suffix)
        if self.cohort.dataset and not self.failed and len(self.records) == len(self.cohort.cases):
            from MedGenLib.cohort.dataset import write_dataset

            made = write_dataset(self.cohort, list(self.records.values()), self.out)
            self.files += [made] if made else []

    def lines(self) -> list[str]:
        """What to say at the end."""
        total, new = len(self.records), len(self.done) - self.kept
        found = [f"{len(self.done)} of {total} cases done ({new} now), {len(self.failed)} failed."]
        if doubtful := sum(record.passed is False for record in self.done):
            found.append(f"{doubtful} of the images failed their checks.")
        return found


def of_part(cases: Sequence[CohortCase], part: int, parts: int) -> list[CohortCase]:
    """The cases of a part, which depend on their ids alone."""
    return [case for case in cases if int(sha256(case.id.encode()).hexdigest(), 16) % parts == part - 1]


def run_cohort(
    cohort: CohortManifest,
    cases: Sequence[CohortCase],
    out: Path,
    make_pool: Callable[[list[CohortCase]], Pool],
    console: Announcer,
    notify: Callable[[dict[str, Any]], None] | None = None,
) -> CohortResult:
    """Run the cases that are not done; `notify` gets the ids of the others, then every change of a case."""
    remove_unfinished(out, [case.id for case in cases])
    found = {case.id: done_record(case, out) for case in cases}
    waiting = [case for case in cases if found[case.id] is None]
    records = {name: record for name, record in found.items() if record is not None}
    result = CohortResult(cohort, out, records, len(records))
    if notify is not None:
        notify({"kept": list(records)})
    if waiting:
        board = Board(len(cases), result.kept, lambda text: console.error(text), console.quiet, notify)

        def keep(record: Record) -> None:
            records[record.id] = record

        run_cases(waiting, out, make_pool(waiting), board, keep)
    result.records = {case.id: records[case.id] for case in cases}
    return result
