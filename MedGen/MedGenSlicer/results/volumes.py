"""MRML nodes out: a Volume becomes a scalar volume node beside its input.

A node is added whole or not at all: everything that can fail is done before the scene is touched, and what is left
is undone when it fails after all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.hierarchy import placeBeside
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.nodes.voxels import imageData

CT_WINDOW, CT_LEVEL = 400.0, 40.0
"""Soft tissue window in HU."""
PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True)
class PreparedImage:
    """What a node needs of a volume, made where it does not hold up the GUI: voxels (k, j, i), contiguous and owned;
    display window and level in the volume's unit."""

    array: np.ndarray
    window: float
    level: float
    modality: str = ""
    unit: str = "a.u."


def prepareImage(volume, spread: bool = False) -> PreparedImage:
    """Copy a Volume's voxels into Slicer's order and choose its window and level; may run in any thread."""
    array = np.array(volume.array.transpose(2, 1, 0), order="C", copy=True)
    if volume.modality == "CT" and not spread:
        window, level = CT_WINDOW, CT_LEVEL
    else:
        window, level = _windowOf(array)
    return PreparedImage(array, window, level, volume.modality or "", volume.unit)


def likeSource(image: PreparedImage, node) -> PreparedImage:
    """The same with the window of the volume that it was made from."""
    display = node.GetDisplayNode() if node is not None else None
    return image if display is None else replace(image, window=display.GetWindow(), level=display.GetLevel())


def checkOutput(snapshot: InputSnapshot, outputNode) -> None:
    """Raise InputError where a result cannot be written over the chosen node."""
    if outputNode is None:
        return
    if outputNode.GetID() == snapshot.nodeID:
        raise InputError(
            _("'{name}' is the input; choose another node for the output, or none to make a new one.").format(
                name=outputNode.GetName()
            )
        )
    if outputNode.GetScene() is None or slicer.mrmlScene.GetNodeByID(outputNode.GetID() or "") is not outputNode:
        raise InputError(
            _("The output node '{name}' is no longer in the scene; choose another.").format(name=outputNode.GetName())
        )
    if outputNode.GetClassName() != "vtkMRMLScalarVolumeNode":
        raise InputError(
            _("'{name}' cannot take the result; choose a scalar volume for the output, or none.").format(
                name=outputNode.GetName()
            )
        )


def addResult(snapshot: InputSnapshot, image, made: NodeProvenance, outputNode=None, saveState: bool = True):
    """Put a synthetic volume into the scene, on the grid and under the parent transform of its input.

    Parameters
    ----------
    snapshot: the input.
    image: MedGenLib Volume on the input's grid, or a `PreparedImage` of it.
    made: becomes the node's attributes and description.
    outputNode: a scalar volume to write over; None makes a new one.
    saveState: make this a step of its own for undo.

    Returns
    -------
    The vtkMRMLScalarVolumeNode. Undo takes it back where the scene's undo is on.

    Raises
    ------
    InputError: the voxels do not fit the input's grid, or the output node cannot be used; nothing was changed.
    """
    if not isinstance(image, PreparedImage):
        image = prepareImage(image, made.content == "spread")
    if image.array.shape != tuple(snapshot.shape)[::-1]:
        raise InputError(
            _("The result has {found} voxels, but '{name}' has {wanted}; nothing was added.").format(
                found=" x ".join(map(str, image.array.shape[::-1])),
                name=snapshot.name,
                wanted=" x ".join(map(str, snapshot.shape)),
            )
        )
    checkOutput(snapshot, outputNode)
    if outputNode is not None:
        return _overwrite(outputNode, snapshot, image, made, saveState)
    scene = slicer.mrmlScene
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(resultName(snapshot, made)))
    _fill(node, snapshot, image, made)
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    _setDisplay(display, image, made)
    undoable = scene.GetUndoFlag()
    node.SetUndoEnabled(undoable)
    display.SetUndoEnabled(undoable)
    if saveState:
        scene.SaveStateForUndo()
    try:
        scene.AddNode(display)
        node.SetAndObserveDisplayNodeID(display.GetID())
        scene.AddNode(node)
        placeBeside(node, snapshot.node)
    except BaseException:
        for added in (node, display):
            if added.GetScene() is not None:
                scene.RemoveNode(added)
        raise
    return node


def removeResult(node) -> None:
    """Take a result and its display nodes out of the scene again."""
    displays = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    for removed in (node, *displays):
        if removed is not None and removed.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(removed)


def resultName(snapshot: InputSnapshot, made: NodeProvenance) -> str:
    """ "Mask synthetic CT (ct-tissue)"."""
    if made.content == "error":
        return _("{image} error").format(image=snapshot.name)
    if made.content == "saliency":
        return _("{image} saliency of {target}").format(image=snapshot.name, target=made.parameters["target"])
    if made.task == "enhance":
        return _("{image} enhanced ({model})").format(image=snapshot.name, model=made.model)
    what = made.modality or _("volume")
    if made.content == "spread":
        what = _("{modality} spread").format(modality=what)
    text = _("{input} synthetic {what} ({model})") if snapshot.name else _("Synthetic {what} ({model})")
    return text.format(input=snapshot.name, what=what, model=made.model)


def _overwrite(node, snapshot: InputSnapshot, image: PreparedImage, made: NodeProvenance, saveState: bool):
    scene = slicer.mrmlScene
    if saveState:
        scene.SaveStateForUndo()
    before = slicer.vtkMRMLScalarVolumeNode()
    before.Copy(node)
    isEmpty = node.GetImageData() is None
    display = node.GetDisplayNode()
    hadDisplay = display is not None
    displayBefore = display.NewInstance() if hadDisplay else None
    if hadDisplay:
        displayBefore.Copy(display)
    try:
        with slicer.util.NodeModify(node):
            _fill(node, snapshot, image, made)
            if isEmpty:  # made by a selector's "create new", with a name that says nothing
                node.SetName(scene.GenerateUniqueName(resultName(snapshot, made)))
            if not hadDisplay:
                node.CreateDefaultDisplayNodes()
            _setDisplay(node.GetDisplayNode(), image, made)
            placeBeside(node, snapshot.node)
    except BaseException:
        newDisplay = None if hadDisplay else node.GetDisplayNode()
        provenance.erase(node)
        node.Copy(before)
        node.SetVoxelValueUnits(before.GetVoxelValueUnits())  # Copy leaves units alone where there were none
        if hadDisplay:
            display.Copy(displayBefore)
        elif newDisplay is not None:
            scene.RemoveNode(newDisplay)
        raise
    return node


def _fill(node, snapshot: InputSnapshot, image: PreparedImage, made: NodeProvenance) -> None:
    """Voxels, geometry, transform and provenance. The image data is a new object: undo keeps the old one."""
    node.SetAndObserveImageData(imageData(image.array))
    snapshot.place.applyTo(node)
    transform = snapshot.parentTransformID
    if transform is not None and slicer.mrmlScene.GetNodeByID(transform) is None:
        transform = None  # deleted meanwhile; the input lies under no transform now either
    if node.GetScene() is None:
        node.SetScene(slicer.mrmlScene)  # a reference is resolved in the scene that the node will be in
        node.SetAndObserveTransformNodeID(transform)
        node.SetScene(None)
    else:
        node.SetAndObserveTransformNodeID(transform)
    provenance.write(node, made)
    _setUnits(node, image.unit)


def _setUnits(node, unit: str) -> None:
    units = None
    if unit == "HU":
        units = slicer.vtkCodedEntry()
        units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    node.SetVoxelValueUnits(units)


def _setDisplay(display, image: PreparedImage, made: NodeProvenance) -> None:
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(image.window, image.level)
    display.SetInterpolate(True)
    if made.content == "spread":
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFilePlasma.txt")
    if display.GetColorNode() is None:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")


def _windowOf(array: np.ndarray) -> tuple[float, float]:
    """Between the percentiles of what is not background; a sample of the voxels is enough."""
    sample = array.reshape(-1)[:: max(1, array.size // 500_000)]
    inside = sample[sample > sample.min()]
    low, high = np.percentile(inside if inside.size else sample, PERCENTILES)
    return max(float(high - low), 1e-3), float(high + low) / 2
