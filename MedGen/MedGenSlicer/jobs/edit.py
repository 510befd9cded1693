"""One edit as a run: a volume and the mask it shows, a changed mask, a new volume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import WorkerError
from MedGenLib.imaging.volume import Volume
from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.editing.mask import inModelLabels
from MedGenSlicer.engine.background import ignore
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.voxels import boxAt
from MedGenSlicer.results.edited_copy import editedCopy


class EditRun(Run):
    """Redraws a volume where a second mask differs from the first; its node is a changed copy of the volume.

    Attributes
    ----------
    changed: how many voxels of the mask differ.
    """

    def __init__(self, engine: Engine, parameters: RunParameters, manifest) -> None:
        super().__init__(engine, parameters)
        self.manifest = manifest
        self.snapshot: InputSnapshot = parameters.options["volume"]
        self._newMask: dict[str, Any] = {}
        self._canvas = ""
        self.changed = 0
        for name, role in (("volume", _("volume")), ("mask", _("mask")), ("new_mask", _("new mask"))):
            self._watch(parameters.options[name].node, role)

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        chosen = self.parameters
        old, self._newMask = (
            put(inModelLabels(chosen.options[name], self.manifest, chosen.mapping), folder, name)
            for name in ("mask", "new_mask")
        )
        params = chosen.replaced(model=self.manifest.name, mask=old, mapping=None).forWorker(folder)
        return "edit/open", params

    def _onAnswer(self, answer: dict) -> None:
        if self.isDone:
            return
        if answer.get("closed"):
            self._fail(
                WorkerError(
                    _(
                        "The worker needed the memory for something else, so nothing was edited; stop "
                        "live editing, then run again."
                    )
                )
            )
            return
        if self._canvas:
            super()._onAnswer(answer)
            return
        self._canvas = answer["canvas"]
        params = {"mask": self._newMask, "preset": self.parameters.preset, "folder": self._folder}
        self._send(("edit", {"canvas": self._canvas, **params}))

    def _receive(self, answer: dict[str, Any]) -> Volume:
        self.sentences, self.changed = list(answer.get("sentences") or []), int(answer.get("changed") or 0)
        image = self.snapshot.image
        array = np.array(image.array, order="F")
        if answer.get("block"):
            block = take(answer["block"]).array
            array[boxAt(answer["offset"], block.shape)] = block
        return replace(image, array=array)

    def _add(self, received: Volume) -> list:
        facts = {"checks": self.sentences, "preset": self.parameters.preset, "seed": self.parameters.seed}
        name = _("{name} edited")
        return [editedCopy(self.snapshot.node, self.snapshot, received, self.manifest, name, **facts)]

    def _end(self, *arguments: Any, **keywords: Any) -> None:
        if self._canvas and self.engine.info:
            self.engine.request("edit/close", {"canvas": self._canvas}, ignore, ignore)
        super()._end(*arguments, **keywords)
