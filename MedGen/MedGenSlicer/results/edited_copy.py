"""Changed copies of a volume node, and what is kept with a volume that was changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import volumes as results

EDITED = "edited"
"""Key of a parameter in the provenance of a volume that was changed in place."""


def editedCopy(node, snapshot: InputSnapshot, image, manifest, name: str, task: str = "edit", **facts: Any):
    """A changed copy of a volume node, beside it and with its window.

    Parameters
    ----------
    snapshot: the node as the worker got it; image: a Volume or `PreparedImage` of the copy's voxels.
    name: of the copy, with {name} for the node's own.
    task, facts: of its provenance.
    """
    if not isinstance(image, results.PreparedImage):
        image = results.prepareImage(image)
    image = replace(results.likeSource(image, node), modality=manifest.output.modality, unit=manifest.output.unit)
    made = NodeProvenance(
        model=manifest.name,
        modelVersion=manifest.version,
        task=task,
        modality=image.modality,
        unit=image.unit,
        input=snapshot.name,
        **facts,
    )
    copy = results.addResult(snapshot, image, made)
    copy.SetName(slicer.mrmlScene.GenerateUniqueName(name.format(name=snapshot.name)))
    return copy


def markEdited(node) -> None:
    """Note that a volume is no longer what the model made from its mask; only the first time changes anything."""
    made = provenance.read(node)
    if made is None or EDITED in made.parameters:
        return
    note = _("Regions were redrawn after the mask was edited; the checks of the image are from before.")
    provenance.write(
        node, replace(made, python="", parameters={**made.parameters, EDITED: True}, checks=[*made.checks, note])
    )
