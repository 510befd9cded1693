"""Which MRML nodes can be an input, and why another one cannot."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError


def isSegmentation(node) -> bool:
    return node is not None and node.IsA("vtkMRMLSegmentationNode")


def isLabelMap(node) -> bool:
    return node is not None and node.IsA("vtkMRMLLabelMapVolumeNode")


def isMask(node) -> bool:
    """Whether a node is a segmentation or a label map."""
    return isSegmentation(node) or isLabelMap(node)


def kindOf(node, kind: str | None = None) -> str:
    """ "labels" or "volume".

    Parameters
    ----------
    kind: one of the two to insist on it: a scalar volume can be taken as labels.

    Raises
    ------
    InputError: the node is no input, or not of that kind.
    """
    if node is None:
        raise InputError(_("No node is selected; choose a segmentation, a label map or a volume."))
    if not hasattr(node, "IsA") or not node.IsA("vtkMRMLNode"):
        raise InputError(
            _("'{node}' is not a node; give one, for instance slicer.util.getNode('Segmentation').").format(node=node)
        )
    name = node.GetName()
    if node.GetScene() is None or slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
        raise InputError(_("'{name}' is no longer in the scene; choose another node.").format(name=name))
    if not isMask(node):
        _requireScalarVolume(node, name)
    elif kind == "volume":
        raise InputError(_("'{name}' is a mask, but an image is needed; choose a scalar volume.").format(name=name))
    return kind or ("labels" if isMask(node) else "volume")


def _requireScalarVolume(node, name: str) -> None:
    if node.IsA("vtkMRMLSequenceNode"):
        raise InputError(_("'{name}' is a sequence (4-D); choose one of its volumes.").format(name=name))
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(
            _("'{name}' is neither a segmentation nor a label map nor a scalar volume; choose one.").format(name=name)
        )
    image = node.GetImageData()
    components = image.GetNumberOfScalarComponents() if image is not None else 1
    # vtkMRMLTensorVolumeNode and its children (vector, diffusion) keep several numbers per voxel; a multi-volume
    # node is a series of frames.
    if components != 1 or node.IsA("vtkMRMLTensorVolumeNode") or node.IsA("vtkMRMLMultiVolumeNode"):
        sentence = _(
            "'{name}' holds {count} numbers per voxel (a vector, color or 4-D volume); choose a volume with "
            "one, for instance made with the module Vector to Scalar Volume."
        )
        raise InputError(sentence.format(name=name, count=components))
