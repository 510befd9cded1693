"""Which volume is edited, and what is told with it afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError, PackageError
from MedGenSlicer.editing.segmentation import knownInModelLabels
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.labels import suggestMapping
from MedGenSlicer.nodes.modality import guessModality, statedModality
from MedGenSlicer.nodes.provenance import Provenance
from MedGenSlicer.results import volumes as results
from MedGenSlicer.results.volumes import PreparedImage

EDITED = "edited"


def isOurs(node) -> bool:
    """Whether MedGen made this image, so that it may be changed in place."""
    made = provenance.read(node)
    return made is not None and made.content == "image"


def requireSuits(node, manifest) -> None:
    """Raise InputError where the model takes no mask, or draws another modality than the image has."""
    from MedGenLib.imaging.modality import same_modality

    if manifest.input.kind != "labels":
        raise InputError(
            _(
                "The model '{model}' makes images without a mask, so nothing can be edited with it; choose "
                "a model for masks."
            ).format(model=manifest.name)
        )
    stated = statedModality(node)
    if stated is not None and not same_modality(stated, manifest.output.modality):
        raise InputError(
            _("'{name}' is {found}, but the model '{model}' draws {wanted}; choose another model.").format(
                name=node.GetName(), found=stated, model=manifest.name, wanted=manifest.output.modality
            )
        )


def modelFor(node, manifests: list, mask=None) -> str:
    """The name of the model that draws a volume: the one that made it, else one of its modality; of several the one
    that knows most segments of the mask.

    Raises
    ------
    PackageError: no model draws this modality.
    """
    from MedGenLib.imaging.modality import same_modality

    # A model that works on few sizes of the whole body cannot draw a region.
    able = [
        manifest
        for manifest in manifests
        if manifest.task == "generate" and manifest.input.kind == "labels" and manifest.pipeline != "maisi"
    ]
    made = provenance.read(node)
    if made is not None and any(manifest.name == made.model for manifest in able):
        return made.model
    modality = statedModality(node) or guessModality(node)
    suiting = [manifest for manifest in able if same_modality(modality, manifest.output.modality)]
    if not suiting:
        raise PackageError(
            _("No model draws {modality} from a mask; choose a model.").format(
                modality=modality or _("what '{name}' looks like").format(name=node.GetName())
            )
        )
    if mask is None or len(suiting) == 1:
        return suiting[0].name
    return max(suiting, key=lambda manifest: sum(map(bool, suggestMapping(mask, manifest).values()))).name


def choicesOf(volumeNode, earlier, choices):
    """The choices of live editing, completed by those that the volume was made with: the seed that is kept with it,
    and mapping, fill and noise of the earlier run or editing, where that is known."""
    made = provenance.read(volumeNode)
    if choices.seed is None and made is not None:
        choices = replace(choices, seed=made.seed)
    for name in ("seed", "mapping", "fill", "noiseHU") if earlier is not None else ():
        if getattr(choices, name) is None:
            choices = replace(choices, **{name: getattr(earlier, name)})
    return choices


def maskOf(run, volumeNode, segmentationNode, mapping) -> np.ndarray | None:
    """(k, j, i) The mask in the model's labels that a run made a volume from; None where it is of another segmentation
    or the volume does not show it any more."""
    made, snapshot = provenance.read(volumeNode), run.snapshot
    isOther = snapshot.nodeID != segmentationNode.GetID() or made is None or EDITED in made.parameters
    if isOther or tuple(snapshot.shape) != volumeNode.GetImageData().GetDimensions():
        return None
    return knownInModelLabels(snapshot, run.manifest, mapping)


def editedCopy(node, snapshot: InputSnapshot, volume, manifest, name: str, task: str = "edit", **facts: Any):
    """A changed copy of a volume node, beside it and with its window.

    Parameters
    ----------
    snapshot: the node as the worker got it; volume: a Volume or PreparedImage of the copy's voxels.
    name: of the copy, with {name} for the node's own.
    task, facts: of its provenance.
    """
    image = volume if isinstance(volume, PreparedImage) else results.prepareImage(volume)
    display = node.GetDisplayNode()
    if display is not None:
        image = replace(image, window=display.GetWindow(), level=display.GetLevel())
    image = replace(image, modality=manifest.output.modality, unit=manifest.output.unit)
    made = Provenance(
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
    """Tell that a volume is no longer what the model made from its mask; only the first time changes anything."""
    made = provenance.read(node)
    if made is None or EDITED in made.parameters:
        return
    note = _("Regions were redrawn after the mask was edited; the checks of the image are from before.")
    provenance.write(
        node, replace(made, python="", parameters={**made.parameters, EDITED: True}, checks=[*made.checks, note])
    )


def showInstead(node, copy) -> None:
    """The slice views that show the volume show its copy."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if view.GetBackgroundVolumeID() == node.GetID():
            view.SetBackgroundVolumeID(copy.GetID())
        if view.GetForegroundVolumeID() == node.GetID():
            view.SetForegroundVolumeID(copy.GetID())
