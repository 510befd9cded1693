"""The worker's method that finds candidates of lesions."""

from __future__ import annotations

from typing import Any, Unpack

from MedGenLib.options import DetectOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("detect")
@documented("detect", "worker")
def detect(job: Request, folder: str | None = None, **options: Unpack[DetectOptions]) -> dict[str, Any]:
    """Image -> candidates of lesions, as `MedGenLib.detect`.

    Parameters
    ----------
    folder: folder of the labels; None for the folder of `initialize`.
    {options}

    Returns
    -------
    model, version, threshold, candidates (score, position_lps, diameter_mm, volume_ml), notes; labels in the form of
    `transfer.put`, with n inside the n-th candidate.
    """
    from MedGenLib.detection import detect as run
    from MedGenLib.worker.protocol.transfer import put, take_images

    target = job.folder(folder)
    found = run(**take_images("detect", options), progress=job.progress)
    return {**found.as_dict(), "labels": put(found.labels, target, f"{job.method}-{job.number}", job.check)}
