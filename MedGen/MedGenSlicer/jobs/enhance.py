"""A run that makes an image finer, less noisy or more even."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.synthesis import SynthesisRun
from MedGenSlicer.nodes.geometry import GridPlace


class EnhanceRun(SynthesisRun):
    """Enhances an image. The result of superres has a grid of its own, under the parent transform of its input."""

    def __init__(self, engine: Engine, parameters: RunParameters, outputNode=None) -> None:
        super().__init__(engine, parameters, None, outputNode)

    def _receive(self, answer: dict) -> tuple:
        received, given, made = super()._receive(answer), self.snapshot, take(answer["volumes"][0])
        if self.parameters.options["task"] == "superres":
            # World -> the frame of the input's node.
            toNode = given.ijkToParent @ np.linalg.inv(given.affine)
            place = GridPlace.ofAffine(toNode @ made.affine)
            self.snapshot = replace(given, place=place, shape=made.shape, affine=made.affine)
        return received
