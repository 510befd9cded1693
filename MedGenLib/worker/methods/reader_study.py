"""The worker's methods for reader studies; reading needs no worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("reader_study/make")
def make_study(
    job: Request,
    real: Sequence[str],
    synthetic: Sequence[str],
    output: str,
    items: str = "slices",
    per_volume: int = 3,
    window: Sequence[float] | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Prepare a study, as `MedGenLib.reader_study.preparation.make`."""
    from MedGenLib.reader_study.preparation import make

    made = make(
        real, synthetic, output, items=items, per_volume=per_volume, window=window, seed=seed, progress=job.progress
    )
    return {"study": str(made.study), "key": str(made.key), "items": made.items, "warnings": list(made.warnings)}


@method("reader_study/score")
def score_study(
    job: Request, study: str, output: str, key: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Score all readers of a study and write the report.

    Returns
    -------
    rows: name, label (the reader, or "all readers"), value, unit, sentence; report: path of the
    page; note: summary.
    """
    from MedGenLib.reader_study.report import write_report
    from MedGenLib.reader_study.scoring import score

    scores = score(study, key, progress=job.progress)
    report = write_report(scores, output, overwrite=overwrite)
    return {"rows": scores.to_dict()["rows"], "report": str(report), "note": scores.note}
