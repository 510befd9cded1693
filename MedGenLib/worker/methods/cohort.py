"""The worker's method that runs one case of a cohort, or one trial of a benchmark."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method
from MedGenLib.worker.methods.memory import within_memory


@method("cohort/case")
def run_one(job: Request, case: dict[str, Any], out: str) -> dict[str, Any]:
    """Run a case, in the form of `CohortCase.to_dict`, into the folder of its cohort; answers its record."""
    from MedGenLib.cohort.case import run_case
    from MedGenLib.cohort.manifest import CohortCase

    given = CohortCase(**case)
    if given.verb == "train":  # which no manifest can name
        from MedGenLib.trainer.trials import run_trial

        return run_trial(given, Path(out), job.progress).to_dict()
    return run_case(given, Path(out), job.progress, partial(within_memory, job)).to_dict()
