"""MRML nodes in: a segmentation, label map or scalar volume becomes a LabelMap or Volume.

Reading has two parts. `captureInput` takes what the scene holds (geometry, names, voxels) in the GUI thread and
is quick; the arithmetic on voxels happens when `InputSnapshot.image` is first asked for, which may be in another
thread. Nodes are only read: no representation is made on them, nothing is added to the scene.

Three frames are involved: IJK (voxel index), the node's own frame ("parent": RAS below the parent transform) and
world RAS. A result gets the input's grid in the node's own frame and the same parent transform.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume, check_finite

LARGEST_COSINE = 1e-3
"""Axes of a grid whose cosine is larger are not rectangular; the library's own limit."""
SMALLEST_DETERMINANT = 1e-12
COPY_BYTES = 64 * 2**20
"""Larger arrays are not copied in the GUI thread: their memory is held and read by the thread that writes it."""
COUNT_BLOCK = 2**20
BINARY_LABELMAP = "Binary labelmap"
LEFT_OUT = "0"
"""Background in a mapping: what a model makes nothing of."""


@dataclass(frozen=True)
class SegmentInfo:
    """One structure of a mask.

    value: its number in the label map that is sent; segmentID: empty for label maps; color: red, green, blue from
    0 to 1, or None; terminology: the type that the terminology names ("Liver"), empty where there is none.
    """

    value: int
    name: str
    color: tuple[float, float, float] | None = None
    terminology: str = ""
    segmentID: str = ""


@dataclass(frozen=True)
class GridPlace:
    """Where a volume node's voxels lie in its own frame, as the node stores it, so that it can be set bit by bit."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    directions: tuple[float, ...]

    @classmethod
    def ofVolume(cls, node) -> GridPlace:
        directions = vtk.vtkMatrix4x4()
        node.GetIJKToRASDirectionMatrix(directions)
        return cls(tuple(node.GetOrigin()), tuple(node.GetSpacing()), _rotation(directions))

    @classmethod
    def ofOrientedImage(cls, image) -> GridPlace:
        """Of a vtkOrientedImageData; the first voxel of its extent becomes voxel (0, 0, 0)."""
        directions, matrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        image.GetDirectionMatrix(directions)
        image.GetImageToWorldMatrix(matrix)
        extent = image.GetExtent()
        first = (extent[0], extent[2], extent[4])
        origin = matrix.MultiplyPoint((*first, 1.0))[:3] if any(first) else image.GetOrigin()
        return cls(tuple(origin), tuple(image.GetSpacing()), _rotation(directions))

    def applyTo(self, node) -> None:
        """Set origin, spacing and directions of a volume node."""
        node.SetOrigin(self.origin)
        node.SetSpacing(self.spacing)
        directions = vtk.vtkMatrix4x4()
        for row in range(3):
            for column in range(3):
                directions.SetElement(row, column, self.directions[3 * row + column])
        node.SetIJKToRASDirectionMatrix(directions)

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) voxel index -> the node's own frame, mm."""
        result = np.eye(4)
        result[:3, :3] = np.reshape(self.directions, (3, 3)) * np.array(self.spacing)
        result[:3, 3] = self.origin
        return result


@dataclass
class InputSnapshot:
    """An input as it was when the run was started.

    Attributes
    ----------
    kind: "labels" or "volume".
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
    affine: np.ndarray
    parentTransformID: str | None
    segments: list[SegmentInfo] = field(default_factory=list)
    modality: str | None = None
    notes: list[str] = field(default_factory=list)
    build: Callable[[InputSnapshot], LabelMap | Volume] | None = None

    def __post_init__(self) -> None:
        self._image: LabelMap | Volume | None = None
        self._lock = threading.Lock()

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

    def mappingByValue(self, mapping):
        """A label mapping with segment names replaced by their values."""
        return mappingByValue(self.segments, mapping)


def mappingByValue(segments: list[SegmentInfo], mapping):
    """A label mapping with segment names replaced by their values.

    A name may say nothing to the library ("Segment_1"), or be used for two segments. Other mappings (None, the
    name of a table) are returned as they are.
    """
    if not isinstance(mapping, dict):
        return mapping
    result = {}
    for key, target in mapping.items():
        values = [segment.value for segment in segments if segment.name == key]
        for name in values or [key]:
            result[str(name)] = target
    return result


def readInput(node, kind: str | None = None) -> InputSnapshot:
    """The input of a run, with its voxels; the node and the scene are not changed.

    Parameters
    ----------
    node: vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode or vtkMRMLScalarVolumeNode.
    kind: "labels" or "volume" to insist on one; None takes what the node is.

    Raises
    ------
    InputError: one sentence why the node cannot be used.

    Example
    -------
    >>> snapshot = readInput(slicer.util.getNode("Segmentation"))   # doctest: +SKIP
    >>> snapshot.image.shape, snapshot.kind                         # doctest: +SKIP
    """
    snapshot = captureInput(node, kind)
    snapshot.image  # noqa: B018 - raises what is wrong with the voxels
    return snapshot


def captureInput(node, kind: str | None = None) -> InputSnapshot:
    """Like `readInput`, but the voxels are worked on only when `image` is asked for; quick."""
    kind = _kindOf(node, kind)
    worldMatrix = worldTransform(node)
    isSegmentation = node.IsA("vtkMRMLSegmentationNode")
    snapshot = _captureSegmentation(node) if isSegmentation else _captureVolume(node, kind)
    _checkSize(node, snapshot.shape)
    _placeInWorld(snapshot, node, worldMatrix)
    return snapshot


def captureOn(node, volume) -> InputSnapshot:
    """A segmentation or label map as it is on the grid of a volume; quick, like `captureInput`.

    Raises
    ------
    InputError: the mask cannot be used, or a label map lies on another grid.
    """
    _kindOf(node, "labels")
    image = captureInput(volume, "volume")
    if node.IsA("vtkMRMLSegmentationNode"):
        snapshot = _captureSegmentation(node, volume)
        snapshot.affine = image.affine
        return snapshot
    snapshot = captureInput(node, "labels")
    if snapshot.shape != image.shape or not _sameGrid(snapshot.affine, image.affine, image.shape):
        raise InputError(
            _(
                "'{mask}' and '{volume}' lie on different grids; resample the mask, or import it into a segmentation."
            ).format(mask=snapshot.name, volume=volume.GetName())
        )
    return snapshot


def worldTransform(node) -> np.ndarray:
    """(4, 4) from the node's own frame to world RAS through its linear parent transforms.

    Raises
    ------
    InputError: a parent transform is not linear, cannot be inverted or is not finite.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise InputError(
            _(
                "'{name}' lies under the non-linear transform '{transform}'; harden the transform on a copy and use "
                "the copy."
            ).format(name=node.GetName(), transform=parent.GetName())
        )
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    result = slicer.util.arrayFromVTKMatrix(matrix)
    columns = np.linalg.norm(result[:3, :3], axis=0) if np.isfinite(result).all() else np.zeros(3)
    flat = columns.min() <= 0 or abs(np.linalg.det(result[:3, :3] / columns)) < SMALLEST_DETERMINANT
    if flat or not np.allclose(result[3], (0, 0, 0, 1)):
        raise InputError(
            _(
                "'{name}' lies under the transform '{transform}', which cannot be inverted; correct the transform "
                "or take the node out of it."
            ).format(name=node.GetName(), transform=parent.GetName())
        )
    return result


def hardenedCopy(node):
    """A copy of a node, beside it in the subject hierarchy, with its parent transforms applied to its data.

    Works for non-linear transforms too: the voxels are resampled. The original stays as it is.

    Raises
    ------
    InputError: the node is of another kind, or Slicer cannot harden this transform.
    """
    _kindOf(node, None)
    name = slicer.mrmlScene.GenerateUniqueName(_("{name} hardened").format(name=node.GetName()))
    if node.IsA("vtkMRMLSegmentationNode"):
        copy = _copyOfSegmentation(node, name)
    else:
        copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, node, name)
        copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    try:
        hardened = copy.HardenTransform()
    except Exception as error:  # whatever the transform's own class says
        slicer.mrmlScene.RemoveNode(copy)
        raise InputError(
            _("The transform of '{name}' cannot be hardened: {error}.").format(name=node.GetName(), error=error)
        ) from error
    if not hardened:
        slicer.mrmlScene.RemoveNode(copy)
        raise InputError(
            _("The transform of '{name}' cannot be hardened; use the Transforms module.").format(name=node.GetName())
        )
    return copy


def guessModality(node) -> str | None:
    """ "CT", "MR" or None: the DICOM modality that Slicer keeps with the node, else what the values look like."""
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return None
    stated = _statedModality(node)
    if stated or node.GetImageData() is None or node.GetImageData().GetNumberOfScalarComponents() != 1:
        return stated
    from MedGenLib.checks.input import guess_modality

    array = slicer.util.arrayFromVolume(node)
    # The order of the axes does not matter for values, and this one needs no copy.
    return guess_modality(Volume(array, np.eye(4))) if array.size > 1 else None


def statedModality(node) -> str | None:
    """The modality that is kept with an image ("CT", "MR", "T1w"), or None.

    Raises
    ------
    InputError: the node is no image.
    """
    _kindOf(node, "volume")
    return _statedModality(node)


def segmentNames(node) -> list[SegmentInfo]:
    """The structures of a segmentation, or the named ones of a label map's own color table; no voxel is touched."""
    if node is None:
        return []
    if node.IsA("vtkMRMLSegmentationNode"):
        return _segmentsOf(node)
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return [SegmentInfo(value, name, color) for value, (name, color) in _ownColors(node).items()]
    return []


def mapLabels(labels: LabelMap, manifest, mapping=None) -> tuple[LabelMap, list[str]]:
    """A mask in a model's labels, and the names (or numbers) of the labels that the model does not know."""
    from MedGenLib.labels.mapping import map_labels

    mapped, report = map_labels(labels, vocabularyOf(manifest), mapping, strict=False)
    return mapped, [report.names.get(value) or labels.names.get(value) or str(value) for value in report.unmapped]


def requireMapped(labels: LabelMap, manifest, mapping=None) -> None:
    """Raise InputError that names the labels which the model does not know, as the panel shows them."""
    # One voxel of each label is enough to ask about, and much quicker than all of them.
    values = _presentValues(labels.array)
    unknown = mapLabels(LabelMap(values.reshape(-1, 1, 1), np.eye(4), labels.names), manifest, mapping)[1]
    if unknown:
        raise InputError(unmappedSentence(unknown, manifest))


def _presentValues(array: np.ndarray) -> np.ndarray:
    """The different values of an array of labels."""
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        return np.unique(array)
    flat, seen = array.ravel(order="K"), np.zeros(np.iinfo(array.dtype).max + 1, bool)
    # In blocks, because bincount makes eight bytes of each voxel and holds Python's lock meanwhile.
    for start in range(0, flat.size, COUNT_BLOCK):
        seen |= np.bincount(flat[start : start + COUNT_BLOCK], minlength=seen.size) > 0
    return np.flatnonzero(seen)


def unmappedSentence(names: list[str], manifest) -> str:
    """What to do about labels that a model does not know."""
    known = [label.name for label in manifest.input.labels.values()]
    shown = ", ".join(f"'{name}'" for name in names[:6]) + (_(" and more") if len(names) > 6 else "")
    return _(
        "The model '{model}' does not know {names}: choose one of its labels ({known}) for each in the label "
        'table, or drop it (in Python: mapping={{{example}: "{label}"}}).'
    ).format(model=manifest.name, names=shown, known=", ".join(known), example=f'"{names[0]}"', label=known[0])


def vocabularyOf(manifest):
    """The labels of a model as the library compares them."""
    from MedGenLib.labels.mapping import Vocabulary

    return Vocabulary.from_dict(
        {str(value): {"name": label.name, "aliases": label.aliases} for value, label in manifest.input.labels.items()},
        manifest.input.left_out,
    )


def suggestMapping(node, manifest) -> dict[str, str | None]:
    """Which of a model's labels each segment means: segment name -> label name, `LEFT_OUT` for what the model leaves
    out, None where nothing fits.

    The segment's name counts first, then its terminology, then what common tools' label tables say it is part of.
    """
    vocabulary = vocabularyOf(manifest)
    result: dict[str, str | None] = {}
    for segment in segmentNames(node):
        if segment.name not in result or result[segment.name] is None:
            result[segment.name] = _suggestion(segment, vocabulary)
    return result


def _suggestion(segment: SegmentInfo, vocabulary) -> str | None:
    from MedGenLib.labels.mapping import map_labels

    for word in dict.fromkeys((segment.name, segment.terminology)):
        if not word:
            continue
        # A one-voxel mask asks the library itself, so that both always agree. The value is one that no model has,
        # because it must be the name that decides.
        probe = LabelMap(np.full((1, 1, 1), 65535, np.uint16), np.eye(4), {65535: word})
        unused, report = map_labels(probe, vocabulary, strict=False)
        if 65535 in report.mapped:
            return vocabulary.names.get(report.mapped[65535], LEFT_OUT)
    if segment.name.strip() and not any(letter.isalpha() for letter in _withoutGenericWord(segment.name)):
        return vocabulary.names.get(segment.value)  # "Segment_2" says no more than its number
    return None


def _withoutGenericWord(name: str) -> str:
    plain = name.lower().replace("_", " ").strip()
    for word in ("segment", "label", "class", "region"):
        if plain.startswith(word):
            return plain[len(word) :]
    return plain


def _kindOf(node, kind: str | None) -> str:
    if node is None:
        raise InputError(_("No node is selected; choose a segmentation, a label map or a volume."))
    if not hasattr(node, "IsA") or not node.IsA("vtkMRMLNode"):
        raise InputError(
            _("'{node}' is not a node; give one, for instance slicer.util.getNode('Segmentation').").format(node=node)
        )
    if node.GetScene() is None or slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
        raise InputError(_("'{name}' is no longer in the scene; choose another node.").format(name=node.GetName()))
    found = _usableKind(node)
    if kind == "volume" and found == "labels":
        raise InputError(
            _("'{name}' is a mask, but an image is needed; choose a scalar volume.").format(name=node.GetName())
        )
    return kind or found


def _usableKind(node) -> str:
    if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return "labels"
    name = node.GetName()
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
        raise InputError(
            _(
                "'{name}' holds {count} numbers per voxel (a vector, color or 4-D volume); choose a volume with "
                "one, for instance made with the module Vector to Scalar Volume."
            ).format(name=name, count=components)
        )
    return "volume"


def _checkSize(node, shape: tuple[int, int, int]) -> None:
    if min(shape) < 1:
        raise InputError(_("'{name}' holds no voxels; load or draw its data first.").format(name=node.GetName()))
    if max(shape) == 1:
        raise InputError(_("'{name}' has one voxel only; choose an image with more.").format(name=node.GetName()))


def _placeInWorld(snapshot: InputSnapshot, node, worldMatrix: np.ndarray) -> None:
    own = snapshot.ijkToParent
    if not _isRectangular(own):
        raise InputError(
            _(
                "The axes of '{name}' are not at right angles to each other; resample it onto a rectangular grid "
                "first, for instance with the module Resample Scalar/Vector/DWI Volume."
            ).format(name=node.GetName())
        )
    world = worldMatrix @ own
    if _isRectangular(world):
        snapshot.affine = world
        return
    snapshot.affine = own
    snapshot.notes.append(
        _(
            "The parent transform '{transform}' shears the grid of '{name}', so the grid without the transform was "
            "used; the result lies under the same transform."
        ).format(transform=node.GetParentTransformNode().GetName(), name=node.GetName())
    )


def _isRectangular(matrix: np.ndarray) -> bool:
    columns = matrix[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(matrix).all() or lengths.min() <= 0:
        return False
    cosines = (columns / lengths).T @ (columns / lengths)
    return bool(np.abs(cosines - np.eye(3)).max() <= LARGEST_COSINE)


def _captureVolume(node, kind: str) -> InputSnapshot:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("'{name}' holds no image data; load its file first.").format(name=node.GetName()))
    array = _held(_arrayOf(image)).transpose(2, 1, 0)
    snapshot = InputSnapshot(
        kind, node.GetID(), node.GetName(), GridPlace.ofVolume(node), array.shape, np.eye(4), node.GetTransformNodeID()
    )
    if kind == "labels":
        snapshot.segments = segmentNames(node)
        snapshot.build = lambda snapshot: _labelMap(snapshot, array)
    else:
        snapshot.modality = _statedModality(node)
        snapshot.build = lambda snapshot: _volume(snapshot, array)
    return snapshot


def _volume(snapshot: InputSnapshot, array: np.ndarray) -> Volume:
    unit = "HU" if snapshot.modality == "CT" else "a.u."
    volume = Volume(array, snapshot.affine, snapshot.modality, unit, tuple(snapshot.notes))
    check_finite(volume, f"'{snapshot.name}'")
    return volume


def _labelMap(snapshot: InputSnapshot, array: np.ndarray) -> LabelMap:
    names = {segment.value: segment.name for segment in snapshot.segments}
    labels = LabelMap(array, snapshot.affine, names, tuple(snapshot.notes))
    if not labels.array.any():
        raise InputError(
            _("'{name}' is empty: all voxels are background; draw or load labels.").format(name=snapshot.name)
        )
    return labels


@dataclass(frozen=True)
class Layer:
    """Consecutive segments that share one array: voxels (k, j, i), the place of its first voxel in the grid
    (i, j, k), and what each of its values becomes."""

    array: np.ndarray
    start: tuple[int, int, int]
    values: dict[int, int]


def _captureSegmentation(node, volume=None) -> InputSnapshot:
    """volume: whose grid counts; None takes the segmentation's own."""
    segments = _segmentsOf(node)
    if not segments:
        raise InputError(_("'{name}' has no segments; draw or load some first.").format(name=node.GetName()))
    segmentation = _withBinaryLabelmaps(node)
    notes: list[str] = []
    if volume is None:
        reference, place = _referenceGrid(node, segmentation, notes)
    else:
        reference, place = gridIn(node, volume), GridPlace.ofVolume(volume)
    extent = reference.GetExtent()
    shape = tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in range(3))
    layers = _layers(segmentation, segments, reference)
    snapshot = InputSnapshot(
        "labels",
        node.GetID(),
        node.GetName(),
        place,
        shape,
        np.eye(4),
        node.GetTransformNodeID(),
        segments,
        notes=notes,
    )
    snapshot.build = lambda snapshot: _merged(snapshot, layers)
    return snapshot


def _merged(snapshot: InputSnapshot, layers: list[Layer]) -> LabelMap:
    """All layers in one array; where segments overlap the later one counts."""
    largest = max(max(layer.values.values()) for layer in layers)
    merged = np.zeros(snapshot.shape[::-1], np.min_scalar_type(largest))
    outside = overlapping = 0
    for layer in layers:
        table = np.zeros(max(int(layer.array.max()), 1) + 1, merged.dtype)
        for value, target in layer.values.items():
            if value < len(table):
                table[value] = target
        labelled = np.take(table, layer.array)
        inside, target = overlap(labelled.shape, layer.start[::-1], merged.shape)
        outside += int(np.count_nonzero(labelled)) - int(np.count_nonzero(labelled[inside]))
        drawn = labelled[inside] > 0
        overlapping += int(np.count_nonzero(drawn & (merged[target] > 0)))
        np.copyto(merged[target], labelled[inside], where=drawn)
    if outside:
        snapshot.notes.append(
            _("{count} voxels of '{name}' lie outside of its reference geometry and were left out.").format(
                count=outside, name=snapshot.name
            )
        )
    if overlapping:
        snapshot.notes.append(
            _("Segments of '{name}' overlap in {count} voxels; the later one in the list was taken.").format(
                count=overlapping, name=snapshot.name
            )
        )
    return _labelMap(snapshot, merged.transpose(2, 1, 0))


def overlap(shape, start, size) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the part of a block at `start` that lies in a grid of `size`: in the block, and in the grid."""
    low = [min(max(0, begin), full) for begin, full in zip(start, size, strict=True)]
    high = [
        max(first, min(begin + count, full)) for first, begin, count, full in zip(low, start, shape, size, strict=True)
    ]
    inside = tuple(slice(first - begin, last - begin) for first, last, begin in zip(low, high, start, strict=True))
    return inside, tuple(slice(first, last) for first, last in zip(low, high, strict=True))


def _withBinaryLabelmaps(node):
    """The segmentation with binary label maps: the node's own, or a converted copy where it has none."""
    segmentation = node.GetSegmentation()
    if segmentation.ContainsRepresentation(BINARY_LABELMAP):
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    if not copy.CreateRepresentation(BINARY_LABELMAP):
        raise InputError(
            _(
                "The segments of '{name}' cannot be turned into voxels; create their binary labelmap in the module "
                "Segmentations."
            ).format(name=node.GetName())
        )
    return copy


def _referenceGrid(node, segmentation, notes: list[str]):
    """The grid of a segmentation, as an image without voxels and as a `GridPlace`.

    It is the reference geometry that the segmentation stores; without one, that of its reference volume; without
    either, the box around its segments.
    """
    image = slicer.vtkOrientedImageData()
    stored = node.GetSegmentation().GetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    )
    volume = referenceVolume(node)
    if not stored and volume is not None:
        stored = slicer.vtkSegmentationConverter.SerializeImageGeometry(matrixIn(node, volume), volume.GetImageData())
    if not stored:
        notes.append(
            _(
                "'{name}' has no source geometry, so the box around its segments was used; choose one in the Segment "
                "Editor to get more of the surroundings."
            ).format(name=node.GetName())
        )
        stored = segmentation.DetermineCommonLabelmapGeometry(
            slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS, vtk.vtkStringArray()
        )
    if not stored:
        raise InputError(_("'{name}' is empty: no segment has a voxel; draw some first.").format(name=node.GetName()))
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(stored, image, False)
    place = GridPlace.ofOrientedImage(image)
    if volume is not None and volume.GetParentTransformNode() is node.GetParentTransformNode():
        exact = GridPlace.ofVolume(volume)
        # The geometry is stored as text; the volume itself has all its digits.
        if image.GetDimensions() == volume.GetImageData().GetDimensions() and _sameGrid(
            place.matrix, exact.matrix, image.GetDimensions()
        ):
            place = exact
    return image, place


def referenceVolume(node):
    """The volume that a segmentation was drawn on, None where it does not say."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    # Asking for a reference of a role that a node does not have adds the role to the node.
    if role not in [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]:
        return None
    volume = node.GetNodeReference(role)
    return volume if volume is not None and volume.GetImageData() is not None else None


def matrixIn(node, volume):
    """vtkMatrix4x4 from the voxels of a volume to the frame in which another node keeps its data, mm; the transforms
    of both have to be linear."""
    matrix, between = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        volume.GetParentTransformNode(), node.GetParentTransformNode(), between
    )
    vtk.vtkMatrix4x4.Multiply4x4(between, matrix, matrix)
    return matrix


def gridIn(node, volume):
    """The grid of a volume as a vtkOrientedImageData without voxels, in the frame of a segmentation."""
    worldTransform(node), worldTransform(volume)  # raise where a transform is not linear
    grid = slicer.vtkOrientedImageData()
    grid.SetExtent(volume.GetImageData().GetExtent())
    grid.SetGeometryFromImageToWorldMatrix(matrixIn(node, volume))
    return grid


def _sameGrid(first: np.ndarray, second: np.ndarray, dimensions) -> bool:
    """Whether no corner of two grids is further apart than a thousandth of a millimeter."""
    corners = np.array(np.meshgrid(*[(0, count - 1) for count in dimensions])).reshape(3, -1)
    shift = (first - second)[:3]
    return bool(np.abs(shift[:, :3] @ corners + shift[:, 3:]).max() < 1e-3)


def _layers(segmentation, segments: list[SegmentInfo], reference) -> list[Layer]:
    layers: list[Layer] = []
    arrays: dict[str, tuple[np.ndarray, tuple[int, int, int]]] = {}
    previous = None
    for info in segments:
        segment = segmentation.GetSegment(info.segmentID)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is None or image.IsEmpty():
            continue
        key = image.GetAddressAsString("")
        if key not in arrays:
            arrays[key] = onGrid(image, reference)
        array, start = arrays[key]
        if key == previous:
            layers[-1].values[segment.GetLabelValue()] = info.value
        else:
            layers.append(Layer(array, start, {segment.GetLabelValue(): info.value}))
        previous = key
    if not layers:
        raise InputError(_("The segmentation is empty: no segment has a voxel; draw some first."))
    return layers


def onGrid(image, reference) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Voxels (k, j, i) of a label map on the reference's lattice, and the index (i, j, k) of the first one."""
    extent, wanted = image.GetExtent(), reference.GetExtent()
    matrix, referenceMatrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    reference.GetImageToWorldMatrix(referenceMatrix)
    toReference = np.linalg.solve(
        slicer.util.arrayFromVTKMatrix(referenceMatrix), slicer.util.arrayFromVTKMatrix(matrix)
    )
    shift = toReference[:3, 3]
    size = max(abs(number) for number in extent) + 1
    aligned = np.abs(toReference[:3, :3] - np.eye(3)).max() * size < 1e-2 and np.abs(shift - shift.round()).max() < 1e-2
    if not aligned:
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            image, reference, resampled, False
        )
        image, extent, shift = resampled, resampled.GetExtent(), np.zeros(3)
    start = tuple(int(round(shift[axis])) + extent[2 * axis] - wanted[2 * axis] for axis in range(3))
    return _held(_arrayOf(image)), start


def _segmentsOf(node) -> list[SegmentInfo]:
    segmentation = node.GetSegmentation()
    if segmentation is None:
        return []
    count = segmentation.GetNumberOfSegments()
    segments = [segmentation.GetNthSegment(index) for index in range(count)]
    own = [segment.GetLabelValue() for segment in segments]
    # A segment's own label value is what the user knows it by; several layers may use the same one.
    if len(set(own)) < count or min(own, default=1) < 1 or max(own, default=1) > 65534:
        own = list(range(1, count + 1))
    return [
        SegmentInfo(
            value,
            segment.GetName() or "",
            tuple(segment.GetColor()),
            terminologyOf(segment),
            segmentation.GetNthSegmentID(index),
        )
        for index, (value, segment) in enumerate(zip(own, segments, strict=True))
    ]


def terminologyOf(segment) -> str:
    """The type in a segment's terminology entry ("Liver"), empty where there is none or it says only "Tissue"."""
    text = vtk.mutable("")
    if not segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text):
        return ""
    # Context~category^..~type code^scheme^meaning~modifier^^~anatomic context~region~modifier
    parts = str(text).split("~")
    meaning = parts[2].split("^")[-1] if len(parts) > 2 else ""
    return "" if meaning == "Tissue" else meaning


def _ownColors(node) -> dict[int, tuple[str, tuple[float, float, float]]]:
    """Names in a label map's color table, if it is the user's own: Slicer's built-in tables name every number
    something ("bone", "jake"), which says nothing about this mask."""
    display = node.GetDisplayNode()
    table = display.GetColorNode() if display is not None else None
    if table is None or not table.GetSaveWithScene() or not table.IsA("vtkMRMLColorTableNode"):
        return {}
    result = {}
    for value in range(1, min(table.GetNumberOfColors(), 65535)):
        name = table.GetColorName(value)
        if name and name != "(none)":
            color = [0.0] * 4
            table.GetColor(value, color)
            result[value] = (name, tuple(color[:3]))
    return result


def _statedModality(node) -> str | None:
    from MedGenSlicer.nodes import provenance

    stated = node.GetAttribute(provenance.MODALITY) or node.GetAttribute("DICOM.Modality")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if not stated and item:
        stated = hierarchy.GetItemAttribute(item, "DICOM.Modality")
    if not stated:
        return None
    stated = {"MRI": "MR"}.get(stated, stated)
    return stated if stated in ("CT", "MR", "T1w", "T2w", "PDw", "FLAIR") else None


def _copyOfSegmentation(node, name: str):
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    copy.CreateDefaultDisplayNodes()
    volume = referenceVolume(node)
    if volume is not None:
        copy.SetNodeReferenceID(copy.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    if item and hierarchy.GetItemByDataNode(copy):
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(copy), hierarchy.GetItemParent(item))
    return copy


def _arrayOf(image) -> np.ndarray:
    """(k, j, i) view of a vtkImageData's voxels."""
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _held(array: np.ndarray) -> np.ndarray:
    return array.copy() if array.nbytes <= COPY_BYTES else array


def _rotation(matrix) -> tuple[float, ...]:
    return tuple(matrix.GetElement(row, column) for row in range(3) for column in range(3))
