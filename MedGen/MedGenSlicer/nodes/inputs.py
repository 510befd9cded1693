"""MRML nodes in: a segmentation, label map or scalar volume becomes a LabelMap or Volume.

Reading has two parts. `captureInput` takes what the scene holds (geometry, names, voxels) in the GUI thread and
is quick; the arithmetic on voxels happens when `InputSnapshot.image` is first asked for, which may be in another
thread. Nodes are only read. A result gets the input's grid in the node's own frame and the same parent transform.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume, check_finite
from MedGenSlicer.nodes import labels
from MedGenSlicer.nodes.geometry import GridPlace, gridIn, isRectangular, isSameGrid, shapeOf, worldTransform
from MedGenSlicer.nodes.kinds import isSegmentation, kindOf
from MedGenSlicer.nodes.modality import statedModality
from MedGenSlicer.nodes.segmentations import merged, referenceGrid, sourcesOf
from MedGenSlicer.nodes.segments import SegmentInfo, segmentsOf
from MedGenSlicer.nodes.voxels import Holder


@dataclass
class InputSnapshot:
    """An input as it was when the run was started.

    Attributes
    ----------
    kind: "labels" or "volume"; "" for a grid without a node.
    nodeID, name: of the input node.
    place: the grid in the node's own frame.
    affine: (4, 4) voxel index -> world RAS mm through linear parent transforms; through none where they would make
        the grid oblique-angled (a note says so).
    parentTransformID: of the input's parent transform, or None.
    segments: structures of a mask, empty for a volume.
    modality: "CT", "MR" or None.
    notes: sentences for the user.
    """

    kind: str
    nodeID: str
    name: str
    place: GridPlace
    shape: tuple[int, int, int]
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    parentTransformID: str | None = None
    segments: list[SegmentInfo] = field(default_factory=list)
    modality: str | None = None
    notes: list[str] = field(default_factory=list)
    build: Callable[[InputSnapshot], LabelMap | Volume] | None = None

    def __post_init__(self) -> None:
        self._image: LabelMap | Volume | None = None
        self._lock = threading.Lock()

    @classmethod
    def ofNode(cls, node, kind: str, place: GridPlace, shape: tuple[int, ...]) -> InputSnapshot:
        """Of an input node, without its voxels."""
        snapshot = cls(kind, node.GetID(), node.GetName(), place, shape, parentTransformID=node.GetTransformNodeID())
        if kind == "labels":
            snapshot.segments = segmentsOf(node)
        else:
            snapshot.modality = statedModality(node)
        return snapshot

    @classmethod
    def ofGrid(cls, volume: Volume) -> InputSnapshot:
        """The grid of a result that has no input node."""
        return cls("", "", "", GridPlace.ofAffine(volume.affine), volume.shape, volume.affine)

    @property
    def ijkToParent(self) -> np.ndarray:
        """(4, 4) voxel index -> the node's own frame, mm."""
        return self.place.matrix

    @property
    def image(self) -> LabelMap | Volume:
        """Voxels (i, j, k) on `affine`; computed once, in whichever thread asks first.

        Raises
        ------
        InputError: the mask is empty or not a mask, or the volume holds numbers that are not finite.
        """
        with self._lock:
            if self._image is None:
                self._image = self.build(self)
                self.build = None  # lets go of the captured voxels
            return self._image

    @property
    def node(self):
        """The input node, None where it has left the scene."""
        return slicer.mrmlScene.GetNodeByID(self.nodeID) if self.nodeID else None

    def mappingByValue(self, mapping):
        """A label mapping with segment names replaced by their values."""
        return labels.mappingByValue(self.segments, mapping)


def captureInput(node, kind: str | None = None) -> InputSnapshot:
    """The input of a run; the node and the scene are not changed. Quick: the voxels are worked on when `image` is
    asked for.

    Parameters
    ----------
    node: vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode or vtkMRMLScalarVolumeNode.
    kind: "labels" or "volume" to insist on one; None takes what the node is.

    Raises
    ------
    InputError: one sentence why the node cannot be used.

    Example
    -------
    >>> snapshot = captureInput(slicer.util.getNode("Segmentation"))   # doctest: +SKIP
    >>> snapshot.image.shape, snapshot.kind                            # doctest: +SKIP
    """
    snapshot, reference = _outlined(node, kind)
    if reference is None:
        _takeVoxels(snapshot, node)
    else:
        _takeSegments(snapshot, node, reference)
    return snapshot


def outlineOf(node, kind: str | None = None) -> InputSnapshot:
    """The geometry and the names of an input without its voxels, for planning; parameters as in `captureInput`. No
    voxel is converted or copied.

    Raises
    ------
    InputError: as in `captureInput`, as far as the geometry shows it.
    """
    return _outlined(node, kind)[0]


def captureOn(node, volume) -> InputSnapshot:
    """A segmentation or label map as it is on the grid of a volume; quick, like `captureInput`.

    Raises
    ------
    InputError: the mask cannot be used, or a label map lies on another grid.
    """
    kindOf(node, "labels")
    image = outlineOf(volume, "volume")
    if isSegmentation(node):
        _requireSegments(node)
        snapshot = InputSnapshot.ofNode(node, "labels", image.place, image.shape)
        _takeSegments(snapshot, node, gridIn(node, volume))
        snapshot.affine = image.affine
        return snapshot
    snapshot = captureInput(node, "labels")
    if snapshot.shape != image.shape or not isSameGrid(snapshot.affine, image.affine, image.shape):
        sentence = _(
            "'{mask}' and '{volume}' lie on different grids; resample the mask, or import it into a segmentation."
        )
        raise InputError(sentence.format(mask=snapshot.name, volume=volume.GetName()))
    return snapshot


def _placeInWorld(snapshot: InputSnapshot, node, worldMatrix: np.ndarray) -> None:
    own = snapshot.ijkToParent
    if not isRectangular(own):
        sentence = _(
            "The axes of '{name}' are not at right angles to each other; resample it onto a rectangular grid "
            "first, for instance with the module Resample Scalar/Vector/DWI Volume."
        )
        raise InputError(sentence.format(name=node.GetName()))
    world = worldMatrix @ own
    if isRectangular(world):
        snapshot.affine = world
        return
    snapshot.affine = own
    snapshot.notes.append(
        _(
            "The parent transform '{transform}' shears the grid of '{name}', so the grid without the transform was "
            "used; the result lies under the same transform."
        ).format(transform=node.GetParentTransformNode().GetName(), name=node.GetName())
    )


def _outlined(node, kind: str | None):
    """The snapshot of a node without its voxels, and the reference grid of a segmentation."""
    kind = kindOf(node, kind)
    worldMatrix = worldTransform(node)
    notes: list[str] = []
    if isSegmentation(node):
        _requireSegments(node)
        reference, place = referenceGrid(node, notes)
        shape = shapeOf(reference)
    else:
        reference, place, shape = None, GridPlace.ofVolume(node), shapeOf(_imageOf(node))
    snapshot = InputSnapshot.ofNode(node, kind, place, shape)
    snapshot.notes = notes
    if min(shape) < 1:
        raise InputError(_("'{name}' holds no voxels; load or draw its data first.").format(name=node.GetName()))
    if max(shape) == 1:
        raise InputError(_("'{name}' has one voxel only; choose an image with more.").format(name=node.GetName()))
    _placeInWorld(snapshot, node, worldMatrix)
    return snapshot, reference


def _requireSegments(node) -> None:
    segmentation = node.GetSegmentation()
    if segmentation is None or not segmentation.GetNumberOfSegments():
        raise InputError(_("'{name}' has no segments; draw or load some first.").format(name=node.GetName()))


def _imageOf(node):
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("'{name}' holds no image data; load its file first.").format(name=node.GetName()))
    return image


def _takeVoxels(snapshot: InputSnapshot, node) -> None:
    array = Holder()(_imageOf(node)).transpose(2, 1, 0)
    make = _labelMap if snapshot.kind == "labels" else _volume
    # Given the snapshot, which would keep itself alive otherwise.
    snapshot.build = lambda snapshot: make(snapshot, array)


def _takeSegments(snapshot: InputSnapshot, node, reference) -> None:
    sources = sourcesOf(node, snapshot.segments, reference)

    def build(snapshot: InputSnapshot) -> LabelMap:
        array, found = merged(sources, snapshot.shape, snapshot.name)
        snapshot.notes += found
        return _labelMap(snapshot, array)

    snapshot.build = build


def _volume(snapshot: InputSnapshot, array: np.ndarray) -> Volume:
    unit = "HU" if snapshot.modality == "CT" else "a.u."
    volume = Volume(array, snapshot.affine, snapshot.modality, unit, tuple(snapshot.notes))
    check_finite(volume, f"'{snapshot.name}'")
    return volume


def _labelMap(snapshot: InputSnapshot, array: np.ndarray) -> LabelMap:
    names = {segment.value: segment.name for segment in snapshot.segments}
    result = LabelMap(array, snapshot.affine, names, tuple(snapshot.notes))
    if not result.array.any():
        raise InputError(
            _("'{name}' is empty: all voxels are background; draw or load labels.").format(name=snapshot.name)
        )
    return result
