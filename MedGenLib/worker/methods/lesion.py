"""The worker's method that inserts a lesion into an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from MedGenLib.options import LesionOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("insert_lesion")
@documented("insert_lesion", "worker")
def insert_lesion(job: Request, folder: str | None = None, **options: Unpack[LesionOptions]) -> dict[str, Any]:
    """Image -> image with a lesion, as `MedGenLib.editing.lesions.insert_lesion`.

    Parameters
    ----------
    folder: folder of the volumes; None for the folder of `initialize`.
    {options}

    Returns
    -------
    volume, lesion: in the form of `transfer.put`; report, sentences, passed: as of "generate"; at: center in RAS mm;
    halo_voxels, halo_mm: maximum distance of changed voxels from the lesion.
    """
    from MedGenLib.editing.lesions import insert_lesion as run
    from MedGenLib.worker.protocol.transfer import put, take_images

    target = job.folder(folder)
    made = run(**take_images("insert_lesion", options), progress=job.progress)
    volume = put(made.volume, target, f"{job.method}-{job.number}", job.check)
    try:
        lesion = put(made.lesion, target, f"{job.method}-{job.number}-lesion", job.check)
    except BaseException:  # all or nothing
        Path(volume["path"]).unlink(missing_ok=True)
        raise
    report = made.report
    return {
        "volume": volume,
        "lesion": lesion,
        "at": report.parameters["at_ras_mm"],
        "halo_voxels": list(made.halo_voxels),
        "halo_mm": made.halo_mm,
        "report": report.to_dict(),
        "sentences": report.sentences,
        "passed": report.passed,
    }
