"""The worker's methods that generate and translate volumes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from MedGenLib.options import GenerateOptions, TranslateOptions, documented
from MedGenLib.progress import Stage
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method
from MedGenLib.worker.methods.memory import within_memory

if TYPE_CHECKING:
    from MedGenLib.result import Result


@method("generate")
@documented("generate", "worker")
def generate(job: Request, folder: str | None = None, **options: Unpack[GenerateOptions]) -> dict[str, Any]:
    """Mask -> volumes, as `MedGenLib.generate`.

    Parameters
    ----------
    folder: folder of the volumes; None for the folder of `initialize`.
    {options}

    Returns
    -------
    volumes, uncertainty: in the form of `transfer.put`; report, sentences, passed.
    """
    from MedGenLib.generate import generate as run

    if options["seed"] is None:
        options["seed"] = secrets.randbelow(2**31)  # a retry has the same seed
    return _made(job, folder, run, options)


@method("translate")
@documented("translate", "worker")
def translate(job: Request, folder: str | None = None, **options: Unpack[TranslateOptions]) -> dict[str, Any]:
    """Image -> image of another modality, as `MedGenLib.translate`. Answers as `generate`.

    Parameters
    ----------
    folder: folder of the volumes; None for the folder of `initialize`.
    {options}
    """
    from MedGenLib.translate import translate as run

    return _made(job, folder, run, options)


def _made(job: Request, folder: str | None, run: Callable[..., Result], options: dict[str, Any]) -> dict[str, Any]:
    from MedGenLib.pipelines.estimate import remember_run
    from MedGenLib.worker.protocol.transfer import take_images

    target = job.folder(folder)
    options = take_images(job.method, options)

    def attempt(memory: str) -> Result:
        return run(**{**options, "memory": memory}, progress=job.progress)

    start = time.perf_counter()
    what = "mask" if "mask" in options else "image"
    result = within_memory(job, attempt, options["memory"], options["device"], what)
    remember_run(result, options, time.perf_counter() - start)
    return written(job, result, target)


def written(job: Request, result: Result, folder: Path) -> dict[str, Any]:
    """Write the volumes; returns the answer."""
    from MedGenLib.worker.protocol.transfer import put

    images = [(f"{job.method}-{job.number}-{n}", v) for n, v in enumerate(result.volumes, 1)]
    if result.uncertainty is not None:
        images.append((f"{job.method}-{job.number}-uncertainty", result.uncertainty))
    stage = Stage("writing", len(images), job.progress)
    items = []
    try:
        for name, image in images:
            items.append(put(image, folder, name, job.check))
            stage.advance()
    except BaseException:  # all or nothing
        for item in items:
            Path(item["path"]).unlink(missing_ok=True)
        raise
    report = result.report
    uncertainty = None if result.uncertainty is None else items[-1]
    return {
        "volumes": items[: len(result.volumes)],
        "uncertainty": uncertainty,
        "spread": uncertainty,  # the former name, for older clients
        "report": report.to_dict(),
        "sentences": report.sentences,
        "passed": report.passed,
    }
