"""Of which modality an image is."""

from __future__ import annotations

import numpy as np
import slicer

from MedGenLib.imaging.modality import MR_MODALITIES, PICTURE, guess_modality
from MedGenLib.imaging.volume import Volume
from MedGenSlicer.nodes import hierarchy, provenance
from MedGenSlicer.nodes.kinds import isLabelMap

RADIOGRAPHS = ("CR", "DX", "RF", "IO", "PX")
"""Modalities of projections in DICOM; those of MG and XA may be volumes."""
GUESSED_VOXELS = 100_000
"""About how many voxels a guess looks at: those of a large volume lie far apart in memory, and the window waits."""


def statedModality(node) -> str | None:
    """The modality that is kept with an image ("CT", "MR", "T1w", "picture" of radiographs), or None."""
    stated = node.GetAttribute(provenance.MODALITY) or node.GetAttribute("DICOM.Modality")
    stated = stated or hierarchy.attribute(node, "DICOM.Modality")
    stated = {"MRI": "MR"}.get(stated, stated)
    stated = PICTURE if stated in RADIOGRAPHS else stated
    return stated if stated in ("CT", *MR_MODALITIES, PICTURE) else None


def guessModality(node) -> str | None:
    """ "CT", "MR" or None: the modality that is kept with the node, else what the values look like."""
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode") or isLabelMap(node):
        return None
    stated = statedModality(node)
    if stated or node.GetImageData() is None or node.GetImageData().GetNumberOfScalarComponents() != 1:
        return stated
    array = slicer.util.arrayFromVolume(node)
    step = max(1, round((array.size / GUESSED_VOXELS) ** (1 / 3)))
    # The order of the axes does not matter for values, and this one needs no copy.
    return guess_modality(Volume(array[::step, ::step, ::step], np.eye(4))) if array.size > 1 else None
