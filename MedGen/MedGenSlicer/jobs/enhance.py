"""A run that makes an image finer, less noisy or more even."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import PICTURE
from MedGenLib.imaging.volume import Volume, by_axis
from MedGenLib.packages.catalogue import light_catalogue
from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.synthesis import SynthesisRun
from MedGenSlicer.nodes.geometry import GridPlace, worldTransform
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.results.volumes import likeSource

LEARNED = ("superres", "denoise")
"""Tasks that need a model."""
STACKS = ("image", "second", "third")


class EnhanceRun(SynthesisRun):
    """Enhances an image. The result of superres has a grid of its own, under the parent transform of its input.

    Raises
    ------
    InputError, PackageError: as `planned`.
    """

    def __init__(self, engine: Engine, parameters: RunParameters, outputNode=None) -> None:
        planned(parameters.options)
        super().__init__(engine, parameters, None, outputNode)

    def _receive(self, answer: dict) -> tuple:
        received, given, made = super()._receive(answer), self.snapshot, take(answer["volumes"][0])
        if self.parameters.options["task"] == "superres":
            # World -> the frame of the input's node.
            toNode = given.ijkToParent @ np.linalg.inv(given.affine)
            place = GridPlace.ofAffine(toNode @ made.affine)
            self.snapshot = replace(given, place=place, shape=made.shape, affine=made.affine)
        return received

    def _add(self, received: tuple) -> list:
        answer, images, spread = received
        return super()._add((answer, [likeSource(image, self.snapshot.node) for image in images], spread))


def planned(options: Mapping[str, Any]) -> str:
    """What a run does with the grid of its image, in words; no voxel is looked at.

    Parameters
    ----------
    options: of the run; images are an `InputSnapshot`, of which the outline is enough.

    Raises
    ------
    InputError: it cannot be done, as far as grids and stated modalities show it. PackageError: no model does it.
    """
    from MedGenLib.enhancement.inputs import require_suits
    from MedGenLib.enhancement.stacks import fine_grid
    from MedGenLib.enhancement.tasks import model_for

    given, task = [options[name] for name in STACKS if options[name] is not None], options["task"]
    modality = next((one.modality for one in given if one.modality), None)
    require_suits(modality, task)
    _requirePlaces(given)
    if task in LEARNED and modality not in (None, PICTURE) and not options["model"]:
        model_for(modality, light_catalogue())
    stacks = [Volume(np.broadcast_to(np.float32(0), s.shape), s.affine, s.modality or modality) for s in given]
    first = stacks[0]
    sides, voxels = by_axis(first.spacing, ".3g"), by_axis(first.shape)
    if task != "superres":
        return _("{sides} mm, {voxels} voxels, which stay where they are").format(sides=sides, voxels=voxels)
    grid = fine_grid(stacks, options["spacing"])
    return _("{sides} mm, {count} slices -> {side:.3g} mm cubes, {voxels}").format(
        sides=sides, count=first.shape[np.argmax(first.spacing)], side=min(grid.spacing), voxels=by_axis(grid.shape)
    )


def _requirePlaces(given: Sequence[InputSnapshot]) -> None:
    """Raise InputError unless it is clear how the stacks lie to each other."""
    for number, snapshot in enumerate(given if len(given) > 1 else ()):
        if snapshot.nodeID in [other.nodeID for other in given[:number]]:
            sentence = _("'{name}' is chosen for two stacks; choose another one, or none.")
        elif not np.allclose(worldTransform(snapshot.node) @ snapshot.ijkToParent, snapshot.affine):
            sentence = _("The parent transform of '{name}' shears its grid; resample it before it is used as a stack.")
        else:
            continue
        raise InputError(sentence.format(name=snapshot.name))
