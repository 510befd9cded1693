"""One edit as a run: a volume and the mask it shows, a changed mask, a new volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import WorkerError
from MedGenLib.imaging.volume import Volume
from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer.editing.live import EditChoices
from MedGenSlicer.editing.origin import editedCopy
from MedGenSlicer.editing.segmentation import inModelLabels
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.synthesis import Run
from MedGenSlicer.nodes import reading as nodes


class EditRun(Run):
    """Draws a volume anew where a second mask differs from the first; its node is a changed copy of the volume.

    Attributes
    ----------
    sentences: what the user should know about the edit.
    changed: how many voxels of the mask differ.
    """

    def __init__(
        self,
        engine: Engine,
        volumeNode,
        maskNode,
        newMaskNode,
        manifest,
        choices: EditChoices,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> None:
        super().__init__(engine, choices, onProgress, onDone)
        self.manifest, self.snapshot = manifest, nodes.captureInput(volumeNode, "volume")
        self._masks = {"old": nodes.captureOn(maskNode, volumeNode), "new": nodes.captureOn(newMaskNode, volumeNode)}
        self._new: dict[str, Any] = {}
        self._canvas = ""
        self.sentences: list[str] = []
        self.changed = 0
        for node, role in ((volumeNode, _("volume")), (maskNode, _("mask")), (newMaskNode, _("new mask"))):
            self._watch(node, role)

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        chosen = self.parameters
        old, self._new = (
            put(inModelLabels(mask, self.manifest, chosen.mapping), folder, name) for name, mask in self._masks.items()
        )
        self._masks = {}
        return "edit/open", {
            "image": put(self.snapshot.image, folder, "image"),
            "input": old,
            "model": self.manifest.name,
            "seed": chosen.seed,
            "device": chosen.device,
            "fill": chosen.fill,
            "noise_hu": chosen.noiseHU,
            "accept_license": chosen.acceptLicense,
            "folder": folder,
        }

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
        if not self._canvas:
            self._canvas = answer["canvas"]
            params = {
                "canvas": self._canvas,
                "mask": self._new,
                "preset": self.parameters.preset,
                "folder": self._folder,
            }
            self.engine.request(
                "edit", params, onResult=self._onAnswer, onError=self._fail, onProgress=self._onWorkerProgress
            )
            return
        super()._onAnswer(answer)

    def _receive(self, answer: dict[str, Any]) -> Volume:
        self.sentences, self.changed = list(answer.get("sentences") or []), int(answer.get("changed") or 0)
        image = self.snapshot.image
        array = np.array(image.array, order="F")
        if answer.get("block"):
            block, start = take(answer["block"]).array, answer["offset"]
            box = tuple(slice(first, first + count) for first, count in zip(start, block.shape, strict=True))
            array[box] = block
        return replace(image, array=array)

    def _add(self, received: Volume) -> list:
        node = slicer.mrmlScene.GetNodeByID(self.snapshot.nodeID)
        return [
            editedCopy(
                node,
                self.snapshot,
                received,
                self.manifest,
                _("{name} edited"),
                checks=self.sentences,
                preset=self.parameters.preset,
                seed=self.parameters.seed,
            )
        ]

    def _end(self, *arguments: Any, **keywords: Any) -> None:
        if self._canvas and self.engine.info:
            self.engine.request("edit/close", {"canvas": self._canvas}, _nothing, _nothing)
        super()._end(*arguments, **keywords)


def _nothing(unused: Any) -> None:
    pass
