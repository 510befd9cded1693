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
    halo_voxels, halo_mm: maximum distance of changed voxels from the lesion; later: volume and lesion at the further
    times of a lesion that grows.
    """
    from MedGenLib.editing.lesions import insert_lesion as run
    from MedGenLib.worker.protocol.transfer import put, take_images

    target = job.folder(folder)
    made = run(**take_images("insert_lesion", options), progress=job.progress)
    written: list[dict[str, Any]] = []
    try:
        for number, frame in enumerate(made.frames):
            for kind, image in (("", frame.volume), ("-lesion", frame.lesion)):
                name = f"{job.method}-{job.number}{f'-{number}' if number else ''}{kind}"
                written.append(put(image, target, name, job.check))
    except BaseException:  # all or nothing
        for item in written:
            Path(item["path"]).unlink(missing_ok=True)
        raise
    report, last = made.result.report, made.frames[-1]
    volume, lesion, *later = written
    return {
        "volume": volume,
        "lesion": lesion,
        "later": [{"volume": one, "lesion": other} for one, other in zip(later[::2], later[1::2], strict=True)],
        "at": report.parameters["at_ras_mm"],
        "halo_voxels": list(last.halo_voxels),
        "halo_mm": last.halo_mm,
        "report": report.to_dict(),
        "sentences": report.sentences,
        "passed": report.passed,
    }
