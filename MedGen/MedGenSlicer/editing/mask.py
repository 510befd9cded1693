"""A segmentation on the grid of a volume, in a model's labels, and where it has changed.

`TrackedMask` is asked after every brush stroke, so it looks only at what was painted since: a layer with the same
modification time is not touched, of the others the box that differs is found, and only that box is merged. Arrays and
boxes are in the order of Slicer's arrays, (k, j, i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging import boxes
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import LabelMap
from MedGenSlicer.nodes.geometry import gridIn, shapeOf
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.kinds import isSegmentation
from MedGenSlicer.nodes.labels import labelsOf, mapLabels, unmappedSentence
from MedGenSlicer.nodes.segmentations import BINARY_LABELMAP, Layer, drawnSegments, onGrid
from MedGenSlicer.nodes.segments import SegmentInfo, segmentsOf
from MedGenSlicer.nodes.voxels import COPY_BYTES, boxAt, overlap


class UnknownSegments(InputError):
    """Segments with voxels that the model has no label for. names: of the segments."""

    def __init__(self, names: list[str], manifest) -> None:
        super().__init__(unmappedSentence(names, manifest))
        self.names = names


@dataclass(frozen=True)
class MaskBlock:
    """A box of a mask. labels: of the model, (k, j, i); start: the index (k, j, i) of its first voxel."""

    labels: np.ndarray
    start: tuple[int, int, int]

    @property
    def box(self) -> Box:
        return boxAt(self.start, self.labels.shape)


class TrackedMask:
    """A segmentation on the grid of a volume, in the labels of a model.

    Parameters
    ----------
    node: vtkMRMLSegmentationNode; it is only read.
    volume: vtkMRMLScalarVolumeNode whose grid counts, whatever grid the segments are drawn on.
    manifest: the model.
    mapping: as in `MedGenLogic.generate`.
    known: (k, j, i) what is drawn already, in the model's labels; None: all that there is now.

    Attributes
    ----------
    known: (k, j, i) the mask as far as it was accepted.

    Raises
    ------
    InputError: the segmentation has no segments, no voxels, or segments that the model does not know.
    """

    def __init__(self, node, volume, manifest, mapping=None, known: np.ndarray | None = None) -> None:
        if not isSegmentation(node):
            raise InputError(_("Live editing follows a segmentation; choose one, or import the label map into one."))
        self._node, self._manifest, self._mapping = node, manifest, mapping
        self._grid = gridIn(node, volume)
        self._names = {value: label.name for value, label in manifest.input.labels.items()}
        self._unknown = max(self._names) + 1
        self._drawn: list[tuple[int, int, SegmentInfo]] = []
        self._targetsOf: dict[int, str] = {}
        self._labelOf: dict[int, int] = {}
        self.known = np.zeros(shapeOf(self._grid)[::-1], np.min_scalar_type(self._unknown))
        self._layers: dict[tuple, Layer] = {}
        self._box: Box | None = None
        if not segmentsOf(node):
            raise InputError(_("'{name}' has no segments; draw or load some first.").format(name=node.GetName()))
        self.look()
        labels = self._labelsIn(self._box)
        if not labels.any():
            raise InputError(
                _("No segment of '{name}' has a voxel inside of '{volume}'; draw some first.").format(
                    name=node.GetName(), volume=volume.GetName()
                )
            )
        self.known, self._box = labels, None
        if known is not None:
            self.known = known.astype(labels.dtype)
            self._widen(boxOf(labels, self.known))

    def setMapping(self, mapping) -> None:
        """What the segments mean from the next look on."""
        self._mapping, self._targetsOf = mapping, {}

    def look(self) -> None:
        """Find out where the segmentation differs from what it was at the last look.

        Raises
        ------
        InputError: it no longer has a binary labelmap.
        """
        before, self._layers = self._layers, self._read(self._layers)
        if [(layer.values, key[0]) for key, layer in before.items()] != [
            (layer.values, key[0]) for key, layer in self._layers.items()
        ]:
            self._box = boxAt((0, 0, 0), self.known.shape)
            return
        for old, new in zip(before.values(), self._layers.values(), strict=True):
            if old is not new:
                self._widen(_differing(old, new))

    def changed(self) -> MaskBlock | None:
        """The smallest box with all voxels that differ from `known`; None where none does. It is the caller's until
        it is accepted or rejected.

        Raises
        ------
        UnknownSegments: in that box lies a segment that the model does not know.
        """
        if self._box is None:
            return None
        labels = self._labelsIn(self._box)
        different = boxOf(labels, self.known[self._box])
        start = [part.start for part in self._box]
        self._box = None
        if different is None:
            return None
        first = tuple(begin + part.start for begin, part in zip(start, different, strict=True))
        return MaskBlock(np.ascontiguousarray(labels[different]), first)

    def accept(self, block: MaskBlock) -> None:
        """The block is drawn."""
        self.known[block.box] = block.labels

    def restore(self, block: MaskBlock) -> None:
        """Go back to what was known before; the segmentation itself may differ there."""
        self.accept(block)
        self.reject(block)

    def reject(self, block: MaskBlock) -> None:
        """The block was not drawn; it is part of the next change."""
        self._widen(block.box)

    def labelMap(self, affine: np.ndarray, block: MaskBlock | None = None) -> LabelMap:
        """A block, or all that is known, as (i, j, k) with the names of the model's labels.

        affine: (4, 4) voxel index of the volume -> world RAS mm.
        """
        if block is None:
            return LabelMap(self.known.transpose(2, 1, 0), affine, self._names)
        shift = np.eye(4)
        shift[:3, 3] = block.start[::-1]
        return LabelMap(block.labels.transpose(2, 1, 0), affine @ shift, self._names)

    def _read(self, before: dict[tuple, Layer]) -> dict[tuple, Layer]:
        """The layers that hold voxels: (number, address, modification time) -> layer."""
        segmentation = self._node.GetSegmentation()
        segments = segmentsOf(self._node)
        if segments and not segmentation.ContainsRepresentation(BINARY_LABELMAP):
            raise InputError(
                _("The segments of '{name}' are no voxels; open them in the Segment Editor first.").format(
                    name=self._node.GetName()
                )
            )
        targets = self._targets(segments)
        found: list[tuple[tuple, object, dict[int, int]]] = []
        self._drawn = []
        for info, segment, image in drawnSegments(segmentation, segments):
            address = image.GetAddressAsString("")
            if not found or found[-1][0][1] != address:
                found.append(((len(found), address, image.GetMTime()), image, {}))
            found[-1][2][segment.GetLabelValue()] = targets[info.value]
            self._drawn.append((len(found) - 1, segment.GetLabelValue(), info))
        return {key: self._layer(before.get(key), image, values) for key, image, values in found}

    def _layer(self, known: Layer | None, image, values: dict[int, int]) -> Layer:
        if known is not None:
            return known if known.values == values else Layer(known.array, known.start, values)
        array, start = onGrid(image, self._grid)
        # Larger arrays are the segmentation's own memory, in which the next stroke is drawn.
        return Layer(array.copy() if array.nbytes > COPY_BYTES else array, start, values)

    def _targets(self, segments: list) -> dict[int, int]:
        """Value of each segment -> label of the model, `_unknown` where it has none."""
        names = {segment.value: segment.name for segment in segments}
        if names and names != self._targetsOf:
            found, unknown = labelsOf(segments, self._manifest, self._mapping)
            self._labelOf = {**found, **{value: self._unknown for value in unknown}}
            self._targetsOf = names
        return self._labelOf

    def _labelsIn(self, box: Box) -> np.ndarray:
        labels = self._merged(box)
        if self._unknown in self._labelOf.values() and (labels == self._unknown).any():
            raise UnknownSegments(self._unknownNames(), self._manifest)
        return labels

    def _unknownNames(self) -> list[str]:
        """Of the segments that have voxels but no label."""
        layers = list(self._layers.values())
        return [
            info.name or str(info.value)
            for number, value, info in self._drawn
            if self._labelOf[info.value] == self._unknown and (layers[number].array == value).any()
        ]

    def _merged(self, box: Box) -> np.ndarray:
        """All layers in a box; where segments overlap the later one counts."""
        isFirst = True
        merged = np.zeros([part.stop - part.start for part in box], self.known.dtype)
        for layer in self._layers.values():
            start = [begin - part.start for begin, part in zip(layer.start[::-1], box, strict=True)]
            inside, target = overlap(layer.array.shape, start, merged.shape)
            values = layer.array[inside]
            if not values.size:
                continue
            size = max(int(values.max()), *layer.values) + 1
            table, isDrawn = np.zeros(size, merged.dtype), np.zeros(size, bool)
            for value, label in layer.values.items():
                table[value], isDrawn[value] = label, True
            if isFirst:
                _translate(table, values, merged[target])
            else:
                np.copyto(merged[target], table[values], where=isDrawn[values])
            isFirst = False
        return merged

    def _widen(self, box: Box | None) -> None:
        found = [part for part in (self._box, box) if part is not None]
        if found:
            self._box = boxes.common(boxes.union(found), boxAt((0, 0, 0), self.known.shape))


def boxOf(first: np.ndarray, second: np.ndarray) -> Box | None:
    """The smallest box with all differences of two arrays (k, j, i) of the same shape."""
    # Slice by slice, because a stroke is in a few of them, and equal ones are compared at the speed of the memory.
    planes = [k for k in range(len(first)) if not np.array_equal(first[k], second[k])]
    if not planes:
        return None
    part = slice(planes[0], planes[-1] + 1)
    different = first[part] != second[part]
    rows, columns = np.flatnonzero(different.any((0, 2))), np.flatnonzero(different.any((0, 1)))
    return part, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _differing(before: Layer, after: Layer) -> Box | None:
    """The box of the grid in which two states of a layer differ; what a layer does not reach is background."""
    both = boxes.union(_boxOfLayer(layer) for layer in (before, after))
    found = boxOf(_embedded(before, both), _embedded(after, both))
    return None if found is None else boxes.moved(found, [part.start for part in both])


def _boxOfLayer(layer: Layer) -> Box:
    return boxAt(layer.start[::-1], layer.array.shape)


def _embedded(layer: Layer, box: Box) -> np.ndarray:
    """The layer in a box that it may not fill."""
    own = _boxOfLayer(layer)
    if own == box:
        return layer.array
    result = np.zeros([part.stop - part.start for part in box], layer.array.dtype)
    result[boxes.inside(own, box)] = layer.array
    return result


def _translate(table: np.ndarray, values: np.ndarray, result: np.ndarray) -> None:
    """result = table[values], plane by plane: half the time, because no index of the whole array is made."""
    for plane, target in zip(values, result, strict=True):
        np.take(table, plane, out=target, mode="clip")


def knownInModelLabels(snapshot: InputSnapshot, manifest, mapping) -> np.ndarray:
    """(k, j, i) A captured segmentation in the labels of the model, which knows all its segments. Quick enough for
    the GUI thread: the segments are asked about, not the voxels."""
    found = labelsOf(snapshot.segments, manifest, mapping)[0]
    table = np.zeros(max(found) + 1, np.min_scalar_type(max(found.values())))
    table[list(found)] = list(found.values())
    values = snapshot.image.array.transpose(2, 1, 0)
    result = np.empty(values.shape, table.dtype)
    _translate(table, values, result)
    return result


def inModelLabels(snapshot: InputSnapshot, manifest, mapping) -> LabelMap:
    """A captured mask in the labels of a model; raises InputError for labels that it does not know."""
    labels, unknown = mapLabels(snapshot.image, manifest, snapshot.mappingByValue(mapping))
    if unknown:
        raise InputError(unmappedSentence(unknown, manifest))
    return labels
