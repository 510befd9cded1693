"""The worker's method that finds the class of an image."""

from __future__ import annotations

from typing import Any, Unpack

from MedGenLib.options import ClassifyOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("classify")
@documented("classify", "worker")
def classify(job: Request, folder: str | None = None, **options: Unpack[ClassifyOptions]) -> dict[str, Any]:
    """Image -> probabilities of classes, as `MedGenLib.classify`.

    Parameters
    ----------
    folder: folder of the saliency map; None for the folder of `initialize`.
    {options}

    Returns
    -------
    model, version, probabilities (class -> share), several, target, notes; saliency: None if it was not asked for.
    """
    from MedGenLib.classification import classify as run
    from MedGenLib.worker.protocol.transfer import put, take_images

    target = job.folder(folder)
    found = run(**take_images("classify", options), progress=job.progress)
    name = f"{job.method}-{job.number}"
    return {**found.as_dict(), "saliency": found.saliency and put(found.saliency, target, name, job.check)}
