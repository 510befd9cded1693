"""The worker's methods of live editing: canvases stay in memory between edits."""

from __future__ import annotations

import collections
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from MedGenLib.options import CanvasOptions, RedrawOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method
from MedGenLib.worker.threads import note_memory_failure, run

if TYPE_CHECKING:
    from MedGenLib.editing.session import Canvas, Edit

MOST_CANVASES = 4
"""Canvases that are kept; a new one replaces the least recently used."""
LEAST_FREE = 1 / 16
"""Fraction of the machine's memory; with less free, other canvases are closed before an edit."""

_canvases: collections.OrderedDict[str, Canvas] = collections.OrderedDict()


@method("edit/open")
def open_canvas(
    job: Request,
    input: dict[str, Any],
    image: dict[str, Any] | None = None,
    model: str = "ct-tissue",
    folder: str | None = None,
    **options: Unpack[CanvasOptions],
) -> dict[str, Any]:
    """Open a canvas: `Canvas.of_image` with `image` and its mask `input`, `Canvas.generate` with the mask alone.

    Returns
    -------
    canvas: its name for the other methods; volume: the generated image in the form of `transfer.put`,
    None with `image`; report, passed: as of "generate" (None, True with `image`); sentences; seed; halo_voxels [i, j,
    k], halo_mm.
    """
    from MedGenLib.editing.session import Canvas
    from MedGenLib.worker.protocol.transfer import put, take, take_images

    target = job.folder(folder)
    mask = take({**input, "kind": "labels"})
    options = {**take_images("generate", options), "progress": job.progress}
    _make_room(MOST_CANVASES - 1)
    if image is None:
        canvas = Canvas.generate(mask, model, **options)
    else:
        canvas = Canvas.of_image(take({**image, "kind": "volume"}), mask, model, **options)
    report = None if canvas.result is None else canvas.result.report
    volume = put(canvas.volume, target, f"edit-open-{job.number}", job.check) if image is None else None
    name = secrets.token_hex(8)
    _canvases[name] = canvas
    sentences = [finding.sentence for finding in canvas.findings]
    return {
        "canvas": name,
        "volume": volume,
        "report": None if report is None else report.to_dict(),
        "sentences": sentences if report is None else report.sentences,
        "passed": report is None or report.passed,
        "seed": canvas.seed,
        "halo_voxels": list(canvas.halo_voxels),
        "halo_mm": canvas.halo_mm,
    }


@method("edit")
@documented("redraw", "worker")
def edit(
    job: Request,
    canvas: str,
    mask: dict[str, Any],
    offset: list[int] | None = None,
    folder: str | None = None,
    **options: Unpack[RedrawOptions],
) -> dict[str, Any]:
    """Adapt the canvas to a mask, or to a block of it whose first voxel is `offset`.

    The mask has the client's values (and names), as the mask with which the canvas was opened.

    Parameters
    ----------
    {options}

    Returns
    -------
    closed: the canvas was closed, also for lack of memory; open it again. The only key in that case.
    block: voxels to copy, in the form of `transfer.put`; None without changes.
    mask: labels of the same block with the client's values; only from undo and redo, otherwise None.
    offset: [i, j, k] of the block's first voxel; changed: voxels of the mask; changed_beyond: voxels of the image with
    another value although their label is the same, by up to largest_change_beyond; both 0 from undo and redo; seconds;
    sentences; can_undo, can_redo.
    """
    from MedGenLib.devices import is_out_of_memory
    from MedGenLib.errors import MemoryPlanError
    from MedGenLib.worker.protocol.transfer import take

    target = job.folder(folder)
    known = warm_canvas(canvas)
    if known is None:
        return {"closed": True}
    new = take({**mask, "kind": "labels"})
    box = None
    if offset is not None:
        box = tuple(slice(int(a), int(a) + n) for a, n in zip(offset, new.shape, strict=True))
    try:
        done = known.edit(new, box, **options, progress=job.progress)
    except Exception as error:
        if not isinstance(error, MemoryPlanError) and not is_out_of_memory(error):
            raise
        note_memory_failure()
        forget(canvas)
        done = run(lambda: known.edit(new, box, **options, progress=job.progress))
    return _answer(job, canvas, done, target)


@method("edit/undo")
def undo(job: Request, canvas: str, folder: str | None = None) -> dict[str, Any]:
    """Undo the last edit. Answers as `edit`."""
    return _gone(job, canvas, folder, "undo")


@method("edit/redo")
def redo(job: Request, canvas: str, folder: str | None = None) -> dict[str, Any]:
    """Redo the last undone edit. Answers as `edit`."""
    return _gone(job, canvas, folder, "redo")


@method("edit/close")
def close_canvas(job: Request, canvas: str) -> dict[str, Any]:
    """Close a canvas, if it is open."""
    known = _canvases.pop(canvas, None)
    if known is not None:
        known.close()
    return {}


def forget(but: str | None = None) -> None:
    """Close all canvases, or all but one, to free their memory."""
    for name in [name for name in _canvases if name != but]:
        _canvases.pop(name).close()


def _gone(job: Request, canvas: str, folder: str | None, direction: str) -> dict[str, Any]:
    target = job.folder(folder)
    known = warm_canvas(canvas)
    if known is None:
        return {"closed": True}
    return _answer(job, canvas, getattr(known, direction)(), target, with_mask=True)


def warm_canvas(name: str) -> Canvas | None:
    """The canvas of that name, marked as most recently used."""
    if name not in _canvases:
        return None
    _canvases.move_to_end(name)
    if _short_of_memory():
        forget(name)
    return _canvases[name]


def _make_room(most: int) -> None:
    if _short_of_memory():
        forget()
    while len(_canvases) > most:
        _canvases.popitem(last=False)[1].close()


def _short_of_memory() -> bool:
    import psutil

    from MedGenLib.devices import free_memory

    return free_memory() < LEAST_FREE * psutil.virtual_memory().total


def _answer(job: Request, name: str, done: Edit | None, folder: Path, with_mask: bool = False) -> dict[str, Any]:
    try:
        return _described(job, _canvases[name], done, folder, with_mask)
    except BaseException:  # the client would miss the changes of the canvas
        close_canvas(job, name)
        raise


def _described(job: Request, canvas: Canvas, done: Edit | None, folder: Path, with_mask: bool) -> dict[str, Any]:
    from MedGenLib.imaging.volume import crop
    from MedGenLib.worker.protocol.transfer import put

    answer = {
        "block": None,
        "mask": None,
        "offset": [0, 0, 0],
        "changed": 0,
        "changed_beyond": 0,
        "largest_change_beyond": 0.0,
        "seconds": 0.0,
        "sentences": [],
        "can_undo": canvas.can_undo,
        "can_redo": canvas.can_redo,
    }
    if done is None:
        return answer
    answer |= {
        "changed": done.changed,
        "changed_beyond": done.beyond,
        "largest_change_beyond": done.farthest,
        "seconds": round(done.seconds, 4),
        "sentences": [finding.sentence for finding in done.findings],
    }
    if done.values.size:
        start, stop = zip(*((part.start, part.stop) for part in done.box), strict=True)
        name = f"edit-{job.number}"
        answer["offset"] = list(start)
        answer["block"] = put(crop(canvas.volume, start, stop), folder, name)
        if with_mask:
            answer["mask"] = put(crop(canvas.mask, start, stop), folder, f"{name}-mask")
    return answer
