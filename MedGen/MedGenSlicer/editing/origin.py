"""Where a volume comes from: the model that draws it, the options it was made with, the mask that it shows."""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.modality import same_modality
from MedGenLib.pipelines.base import is_editable
from MedGenSlicer.console import RunParameters
from MedGenSlicer.editing.mask import knownInModelLabels
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.kinds import kindOf
from MedGenSlicer.nodes.labels import suggestMapping
from MedGenSlicer.nodes.modality import guessModality, statedModality
from MedGenSlicer.results.edited_copy import EDITED


def isOurs(node) -> bool:
    """Whether MedGen made this image, so that it may be changed in place."""
    made = provenance.read(node)
    return made is not None and made.content == "image"


def requireSuits(node, manifest) -> None:
    """Raise InputError where the model takes no mask, or draws another modality than the image has."""
    if manifest.input.kind != "labels":
        sentence = _(
            "The model '{model}' makes images without a mask, so nothing can be edited with it; choose "
            "a model for masks."
        )
        raise InputError(sentence.format(model=manifest.name))
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
    InputError: the node is no image.
    PackageError: no model draws this modality.
    """
    kindOf(node, "volume")
    # A model that works on few sizes of the whole body cannot draw a region.
    able = [
        manifest
        for manifest in manifests
        if manifest.task == "generate" and manifest.input.kind == "labels" and is_editable(manifest)
    ]
    made = provenance.read(node)
    if made is not None and any(manifest.name == made.model for manifest in able):
        return made.model
    modality = guessModality(node)
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


def completed(chosen: RunParameters, volumeNode, earlier: RunParameters | None) -> RunParameters:
    """Options completed by those that the volume was made with: the seed that is kept with it, and mapping, fill and
    noise of the earlier run or editing, where that is known."""
    made = provenance.read(volumeNode)
    if chosen.options["seed"] is None and made is not None:
        chosen = chosen.replaced(seed=made.seed)
    return chosen if earlier is None else chosen.completedFrom(earlier, "seed", "mapping", "fill", "noise_hu")


def maskOf(run, volumeNode, segmentationNode, mapping) -> np.ndarray | None:
    """(k, j, i) The mask in the model's labels that a run made a volume from; None where it is of another segmentation
    or the volume no longer shows it."""
    made, snapshot = provenance.read(volumeNode), run.snapshot
    isOther = snapshot.nodeID != segmentationNode.GetID() or made is None or EDITED in made.parameters
    if isOther or tuple(snapshot.shape) != volumeNode.GetImageData().GetDimensions():
        return None
    return knownInModelLabels(snapshot, run.manifest, mapping)
