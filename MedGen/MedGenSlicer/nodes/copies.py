"""Copies of nodes, beside the original."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes.hierarchy import placeBeside
from MedGenSlicer.nodes.kinds import isSegmentation, kindOf
from MedGenSlicer.nodes.segmentations import referenceVolume


def hardenedCopy(node):
    """A copy of a node, beside it in the subject hierarchy, with its parent transforms applied to its data.

    Works for non-linear transforms too: the voxels are resampled. The original stays as it is.

    Raises
    ------
    InputError: the node is of another kind, or Slicer cannot harden this transform.
    """
    kindOf(node)
    name = slicer.mrmlScene.GenerateUniqueName(_("{name} hardened").format(name=node.GetName()))
    copy = copyOfSegmentation(node, name) if isSegmentation(node) else _copyOfVolume(node, name)
    try:
        reason = "" if copy.HardenTransform() else _("use the Transforms module")
    except Exception as error:  # whatever the class of the transform raises
        reason = str(error)
    if reason:
        slicer.mrmlScene.RemoveNode(copy)
        raise InputError(
            _("The transform of '{name}' cannot be hardened; {reason}.").format(name=node.GetName(), reason=reason)
        )
    return copy


def _copyOfVolume(node, name: str):
    copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, node, name)
    copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    return copy


def shiftedCopy(node, shift: int):
    """A copy of a CT, beside it, with a number added to its values."""
    name = slicer.mrmlScene.GenerateUniqueName(_("{name} in HU").format(name=node.GetName()))
    copy = _copyOfVolume(node, name)
    array = slicer.util.arrayFromVolume(node)
    slicer.util.updateVolumeFromArray(copy, array.astype(np.promote_types(array.dtype, np.int32)) + shift)
    if copy.GetDisplayNode() is not None:
        copy.GetDisplayNode().AutoWindowLevelOn()
    placeBeside(copy, node)
    return copy


def copyOfSegmentation(node, name: str):
    """A copy of a segmentation, beside it and under its transform."""
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    copy.CreateDefaultDisplayNodes()
    volume = referenceVolume(node)
    if volume is not None:
        copy.SetNodeReferenceID(copy.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    placeBeside(copy, node)
    return copy
