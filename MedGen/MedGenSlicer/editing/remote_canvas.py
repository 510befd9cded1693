"""A canvas in the worker, seen from Slicer: an image with its mask, changed block by block.

Only the changed block of the mask travels to the worker, and only the block that it drew comes back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError, WorkerError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.options import of
from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer.engine.background import Background, ignore
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.engine.faults import asSentence

SMALL_BYTES = 8 * 2**20
"""Masks up to this size are written at once; a thread would take longer to start."""


@dataclass(frozen=True)
class RedrawnBlock:
    """What the worker drew.

    Attributes
    ----------
    values: (i, j, k) the new voxels, None where nothing changed; they lie in a file until they are copied.
    start: (i, j, k) their first voxel.
    mask: (i, j, k) labels of the same block, after undo and redo only.
    canUndo, canRedo: what can be done now.
    """

    values: np.ndarray | None
    start: tuple[int, int, int] = (0, 0, 0)
    mask: np.ndarray | None = None
    sentences: list[str] = field(default_factory=list)
    canUndo: bool = False
    canRedo: bool = False


class RemoteCanvas:
    """One canvas of the worker. Every call returns at once; exactly one of its callbacks is called later, unless it is
    closed before.

    Attributes
    ----------
    haloVoxels: how far from a changed voxel the image may change, along (i, j, k).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._name = self._folder = ""
        self._pid: int | None = None
        self._count = 0
        self.haloVoxels: tuple[int, ...] = (0, 0, 0)

    @property
    def isThere(self) -> bool:
        """Whether the worker that was asked for the canvas still runs."""
        return self._pid is not None and self._engine.info.get("pid") == self._pid

    def open(
        self,
        makeImage: Callable[[], Volume],
        labels: LabelMap,
        options: Mapping[str, Any],
        onOpened: Callable[[dict], None],
        onError: Callable[[MedGenError], None],
    ) -> None:
        """Hand over image and mask; the worker has to be ready.

        makeImage: called in a thread. options: of the command "edit", by their Python names. onOpened(answer).
        """
        self._pid = pid = self._engine.info.get("pid")
        try:
            self._folder = folder = self._engine.runFolder()
        except MedGenError as error:
            onError(error)
            return

        def write() -> dict[str, Any]:
            params = {name: options.get(option.name) for name, option in of("edit", "worker").items()}
            images = {"image": put(makeImage(), folder, "image"), "input": put(labels, folder, "labels")}
            return {**params, **images, "folder": folder}

        def opened(answer: dict) -> None:
            if self._folder != folder:  # closed meanwhile
                self._engine.request("edit/close", {"canvas": answer["canvas"]}, ignore, ignore)
                return
            self._name = answer["canvas"]
            self.haloVoxels = tuple(answer["halo_voxels"])
            onOpened(answer)

        def send(params: dict[str, Any]) -> None:
            if self._folder != folder:  # closed while it was written to
                shutil.rmtree(folder, ignore_errors=True)
            elif self._engine.info.get("pid") == pid:
                self._engine.request("edit/open", params, opened, onError)
            else:
                onError(stopped)

        stopped = WorkerError(_("The worker stopped before it had the volume; switch live editing on again."))
        # The folder goes with its worker, so that the writing may fail for the same reason.
        Background(
            write, send, lambda error: onError(asSentence(error) if self._engine.info.get("pid") == pid else stopped)
        )

    def edit(
        self,
        labels: LabelMap,
        start: tuple[int, int, int],
        preset: str,
        onDrawn: Callable[[RedrawnBlock | None], None],
        onError: Callable[[MedGenError], None],
    ) -> None:
        """Draw a block of the mask whose first voxel is `start` (i, j, k); onDrawn(None): the canvas is gone."""
        self._count += 1
        name = f"mask-{self._count}"
        folder = self._folder

        def send(item: dict[str, Any]) -> None:
            params = {"canvas": self._name, "mask": item, "offset": list(start), "preset": preset, "folder": folder}
            self._ask("edit", params, onDrawn, onError, item["path"])

        if labels.array.nbytes > SMALL_BYTES:
            Background(lambda: put(labels, folder, name), send, lambda error: onError(asSentence(error)))
            return
        try:
            item = put(labels, folder, name)
        except MedGenError as error:
            onError(error)
            return
        send(item)

    def step(
        self, method: str, onDrawn: Callable[[RedrawnBlock | None], None], onError: Callable[[MedGenError], None]
    ) -> None:
        """ "undo" or "redo"; onDrawn(None): the canvas is gone."""
        self._ask(f"edit/{method}", {"canvas": self._name, "folder": self._folder}, onDrawn, onError)

    def close(self) -> None:
        """Let the worker forget it."""
        if self._name and self.isThere:
            self._engine.request("edit/close", {"canvas": self._name}, ignore, ignore)
        self._name, self._pid = "", None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = ""

    def _ask(
        self,
        method: str,
        params: dict[str, Any],
        onDrawn: Callable[[RedrawnBlock | None], None],
        onError: Callable[[MedGenError], None],
        sent: str = "",
    ) -> None:
        name = self._name

        def answered(answer: dict) -> None:
            files = [sent]
            try:
                drawn = None if answer.get("closed") else _drawn(answer, files)
            except MedGenError as error:
                # What the worker shows is not what is here: it forgets it, and takes the volume again at the next edit.
                self._engine.request("edit/close", {"canvas": name}, ignore, ignore)
                onError(error)
            else:
                onDrawn(drawn)
                drawn = None  # on Windows a file that is still mapped cannot be removed
            _remove(files)

        def failed(error: MedGenError) -> None:
            _remove([sent])
            onError(error)

        self._engine.request(method, params, answered, failed)


def _remove(files: list[str]) -> None:
    for path in filter(None, files):
        with suppress(OSError):
            os.unlink(path)


def _drawn(answer: dict[str, Any], files: list[str]) -> RedrawnBlock:
    block, mask = answer.get("block"), answer.get("mask")
    files += [item["path"] for item in (block, mask) if item]
    return RedrawnBlock(
        take(block).array if block else None,
        tuple(answer.get("offset") or (0, 0, 0)),
        take(mask).array if mask else None,
        list(answer.get("sentences") or []),
        bool(answer.get("can_undo")),
        bool(answer.get("can_redo")),
    )
