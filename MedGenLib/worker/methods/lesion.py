"""The worker's method that puts a lesion into an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from MedGenLib.worker.server import Request


def insert_lesion(
    job: Request,
    image: dict[str, Any],
    at: Sequence[float] | None = None,
    mask: dict[str, Any] | None = None,
    labels: dict[str, Any] | None = None,
    shape: str = "sphere",
    size_mm: float | None = None,
    label: int | str | None = None,
    contrast: float | None = None,
    organ: int | str | None = None,
    mapping: Any = None,
    fill: int | str | None = None,
    model: str = "ct-tissue",
    seed: int | None = None,
    preset: str = "normal",
    device: str = "auto",
    memory: str = "auto",
    accept_license: bool = False,
    folder: str | None = None,
) -> dict[str, Any]:
    """Image -> image with a lesion, as `MedGenLib.editing.lesions.insert_lesion`; `mask` is a painted one.

    Returns
    -------
    volume, lesion: as `transfer.put` tells them; report, sentences, passed: as of "generate"; at:
    centre in RAS mm; halo_voxels, halo_mm: how far from the lesion voxels may differ.
    """
    from MedGenLib.editing.lesions import insert_lesion as run
    from MedGenLib.worker.methods.core import _folder
    from MedGenLib.worker.protocol.transfer import put, take

    target = _folder(job, folder)
    masks = {
        role: None if item is None else take({**item, "kind": "labels"})
        for role, item in (("lesion", mask), ("labels", labels))
    }
    made = run(
        take({**image, "kind": "volume"}),
        at=at,
        shape=shape,
        size_mm=size_mm,
        label=label,
        contrast=contrast,
        organ=organ,
        mapping=mapping,
        fill=fill,
        model=model,
        seed=seed,
        preset=preset,
        device=device,
        memory=memory,
        accept_license=accept_license,
        progress=job.progress,
        **masks,
    )
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
