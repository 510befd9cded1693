"""The worker's method that enhances an image."""

from __future__ import annotations

from typing import Any, Unpack

from MedGenLib.options import EnhanceOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method
from MedGenLib.worker.methods.memory import within_memory
from MedGenLib.worker.methods.synthesis import written


@method("enhance")
@documented("enhance", "worker")
def enhance(job: Request, folder: str | None = None, **options: Unpack[EnhanceOptions]) -> dict[str, Any]:
    """Image -> finer, less noisy or more even image, as `MedGenLib.enhance`. Answers as `generate`.

    Parameters
    ----------
    folder: folder of the volumes; None for the folder of `initialize`.
    {options}
    """
    from MedGenLib.enhancement import enhance as run
    from MedGenLib.result import Result
    from MedGenLib.worker.protocol.transfer import take_images

    target = job.folder(folder)
    images = take_images("enhance", options)

    def attempt(memory: str) -> Result:
        return run(**{**images, "memory": memory}, progress=job.progress)

    return written(job, within_memory(job, attempt, options["memory"], options["device"], "image"), target)
