"""The worker's method that runs one trial of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("benchmark/trial")
def run_one(job: Request, case: dict[str, Any], out: str) -> dict[str, Any]:
    """Train a recipe, in the form of `Trial.to_dict`, in the folder of its benchmark; answers its record."""
    from MedGenLib.trainer.trials import Trial, run_trial

    return run_trial(Trial(**case), Path(out), job.progress).to_dict()
