"""The worker's method that makes a breathing series from a CT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from MedGenLib.options import BreatheOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("breathe")
@documented("breathe", "worker")
def breathe(
    job: Request, folder: str | None = None, displacements: bool = False, **options: Unpack[BreatheOptions]
) -> dict[str, Any]:
    """CT -> breathing series, as `MedGenLib.breathe`.

    Parameters
    ----------
    folder: folder of the volumes; None for the folder of `initialize`.
    displacements: whether to write the displacement fields, too.
    {options}

    Returns
    -------
    volumes, labels: one of each for each phase, in the form of `transfer.put`; displacements: paths of .nrrd files;
    phases: what was measured in each; tracks: name -> places in RAS mm; parameters; sentences.
    """
    from MedGenLib.io.frames import write_displacement
    from MedGenLib.io.provenance import plain
    from MedGenLib.motion import breathe as run
    from MedGenLib.worker.protocol.transfer import put, take_images

    target = Path(job.folder(folder))
    made = run(**take_images("breathe", options), progress=job.progress)
    stem, written = f"{job.method}-{job.number}", []
    answer: dict[str, Any] = {"volumes": [], "labels": [], "displacements": []}
    try:
        for number, images in enumerate(zip(made.volumes, made.labels, strict=True)):
            for kind, image in zip(("volumes", "labels"), images, strict=True):
                answer[kind].append(put(image, target, f"{stem}-{kind}-{number}", job.check))
                written.append(Path(answer[kind][-1]["path"]))
            if displacements:
                written.append(target / f"{stem}-displacement-{number}.nrrd")
                write_displacement(made.displacement(number), made.source.affine, written[-1])
                answer["displacements"].append(str(written[-1]))
                job.check()
    except BaseException:  # all or nothing
        for path in written:
            path.unlink(missing_ok=True)
        raise
    measured = {"phases": plain(made.phases), "tracks": plain(made.tracks), "parameters": plain(made.parameters)}
    return {**answer, **measured, "sentences": made.sentences}
