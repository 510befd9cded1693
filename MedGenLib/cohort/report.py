"""The report of a cohort: report.html and cases.csv, failures first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from MedGenLib.cohort.case import IMAGE, THUMBNAIL
from MedGenLib.cohort.records import DONE, Record, case_folder
from MedGenLib.evaluation.html import Notice, Part, Picture, Section, Table, Values, page
from MedGenLib.evaluation.tables import csv_text
from MedGenLib.io.atomic import replacing

REPORT, TABLE = "report.html", "cases.csv"
_MOST_PICTURES, _MOST_ROWS = 96, 200


def write_report(name: str, records: Sequence[Record], out: Path, part: str = "") -> list[Path]:
    """Write both files; `part` is appended to their names. Returns their paths."""
    ordered = sorted(records, key=lambda record: (record.status == DONE, bool(record.passed), record.id))
    paths = [out / f"{Path(file).stem}{part}{Path(file).suffix}" for file in (REPORT, TABLE)]
    texts = (_page(name, ordered, out), csv_text([_row(record) for record in ordered]))
    for path, text in zip(paths, texts, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "verb": record.verb,
        "status": record.status,
        "sentence": record.sentence,
        "checks": {True: "passed", False: "failed", None: ""}[record.passed],
        "findings": " ".join(record.checks),
        "seed": record.seed,
        "seconds": record.seconds,
        "peak_memory_mib": record.memory_mib,
        "content_sha256": record.outputs.get(IMAGE, {}).get("content_sha256"),
        "finished": record.finished,
    }


def _page(name: str, records: Sequence[Record], out: Path) -> str:
    failed = [record for record in records if record.status != DONE]
    done = [record for record in records if record.status == DONE]
    doubtful = [record for record in done if record.passed is False]
    sections = [
        Section("Result", _result(records, failed, doubtful, done)),
        Section(
            "Cases that failed", _listed(("Case", "Status", "Why"), [(r.id, r.status, r.sentence) for r in failed])
        ),
        Section(
            "Cases whose checks failed",
            _listed(("Case", "Seed", "Findings"), [(r.id, r.seed, " ".join(r.checks)) for r in doubtful]),
        ),
        Section("Thumbnails", _sheet(done, out)),
        Section(
            "All cases",
            _listed(
                ("Case", "Verb", "Status", "Checks", "Seconds", "Peak memory (MiB)"),
                [(r.id, r.verb, r.status, _row(r)["checks"], r.seconds, r.memory_mib) for r in records],
            ),
        ),
    ]
    return page(f"Cohort {name}", sections, f"{len(done)} of {len(records)} cases done.")


def _result(
    records: Sequence[Record], failed: Sequence[Record], doubtful: Sequence[Record], done: Sequence[Record]
) -> list[Part]:
    parts: list[Part] = []
    if failed:
        parts.append(Notice(f"{len(failed)} of {len(records)} cases failed; they are tried again by the next run."))
    entries = [("Done", len(done), ""), ("Failed", len(failed), ""), ("Checks failed", len(doubtful), "")]
    if done:
        entries += [
            ("Median time", median(record.seconds for record in done), "s"),
            ("Peak memory", max(record.memory_mib for record in done), "MiB"),
        ]
    return [*parts, Values(entries)]


def _listed(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Part]:
    more = len(rows) - _MOST_ROWS
    return [Table(heads, rows[:_MOST_ROWS], f"And {more} more in {TABLE}." if more > 0 else "")] if rows else []


def _sheet(done: Sequence[Record], out: Path) -> list[Part]:
    """The doubtful cases, and others spread over the cohort."""
    from MedGenLib.visual.thumbnails import contact_sheet

    found = [(r.id, case_folder(out, r.id) / THUMBNAIL, r.passed is False) for r in done if THUMBNAIL in r.outputs]
    doubtful, rest = ([item for item in found if item[2] is marked] for marked in (True, False))
    room = max(0, _MOST_PICTURES - len(doubtful))
    step = max(1, -(-len(rest) // room)) if room else 1
    shown = (doubtful + (rest[::step] if room else []))[:_MOST_PICTURES]
    if not shown:
        return []
    caption = f"{len(shown)} of {len(found)} images in their planes; highlighted names failed their checks."
    return [Picture(contact_sheet(shown), caption, wide=True)]
