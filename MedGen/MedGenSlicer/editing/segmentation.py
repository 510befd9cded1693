"""What a segmentation says on the grid of a volume, in a model's labels, and where that has changed.

`PaintedMask` is asked after every brush stroke, so that it looks only at what was drawn since: a layer whose time of
modification is the same is not touched, of the others the box that differs is found, and only that box is merged.
Arrays and boxes are in the order of Slicer's arrays, (k, j, i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.labels.mapping import map_labels
from MedGenSlicer.nodes import reading as nodes
from MedGenSlicer.nodes.reading import BINARY_LABELMAP, InputSnapshot, Layer

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class MaskBlock:
    """A box of a mask. labels: of the model, (k, j, i); start: the index (k, j, i) of its first voxel."""

    labels: np.ndarray
    start: tuple[int, int, int]

    @property
    def box(self) -> Box:
        return boxAt(self.start, self.labels.shape)


def boxAt(start: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """The slices of a block of that shape that begins at `start`."""
    return tuple(slice(first, first + count) for first, count in zip(start, shape, strict=True))


class PaintedMask:
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
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            raise InputError(_("Live editing follows a segmentation; choose one, or import the label map into one."))
        self._node, self._manifest, self._mapping = node, manifest, mapping
        self._grid = nodes.gridIn(node, volume)
        self._names = {value: label.name for value, label in manifest.input.labels.items()}
        self._unknown = max(self._names) + 1
        self._unknownNames: list[str] = []
        self._targetsOf: dict[int, str] = {}
        self._labelOf: dict[int, int] = {}
        extent = self._grid.GetExtent()
        shape = tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in (2, 1, 0))
        self.known = np.zeros(shape, np.min_scalar_type(self._unknown))
        self._layers: dict[tuple, Layer] = {}
        self._box: Box | None = None
        if not nodes.segmentNames(node):
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
        InputError: it has no binary labelmap any more.
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
        InputError: in that box lies a segment that the model does not know.
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

    def accept(self, block: MaskBlock) -> MaskBlock:
        """The block is drawn; returns what was known there before."""
        before = MaskBlock(self.known[block.box].copy(), block.start)
        self.known[block.box] = block.labels
        return before

    def restore(self, block: MaskBlock) -> None:
        """Go back to what was known before; the segmentation itself may say something else there."""
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
        segments = nodes.segmentNames(self._node)
        if segments and not segmentation.ContainsRepresentation(BINARY_LABELMAP):
            raise InputError(
                _("The segments of '{name}' are no voxels; open them in the Segment Editor first.").format(
                    name=self._node.GetName()
                )
            )
        targets = self._targets(segments)
        found: list[tuple[tuple, object, dict[int, int]]] = []
        for info in segments:
            segment = segmentation.GetSegment(info.segmentID)
            image = segment.GetRepresentation(BINARY_LABELMAP)
            if image is None or image.IsEmpty():
                continue
            address = image.GetAddressAsString("")
            if not found or found[-1][0][1] != address:
                found.append(((len(found), address, image.GetMTime()), image, {}))
            found[-1][2][segment.GetLabelValue()] = targets[info.value]
        return {key: self._layer(before.get(key), image, values) for key, image, values in found}

    def _layer(self, known: Layer | None, image, values: dict[int, int]) -> Layer:
        if known is not None:
            return known if known.values == values else Layer(known.array, known.start, values)
        array, start = nodes.onGrid(image, self._grid)
        # Larger arrays are the segmentation's own memory, in which the next stroke is drawn.
        return Layer(array.copy() if array.nbytes > nodes.COPY_BYTES else array, start, values)

    def _targets(self, segments: list) -> dict[int, int]:
        """Value of each segment -> label of the model, `_unknown` where it has none."""
        names = {segment.value: segment.name for segment in segments}
        if names and names != self._targetsOf:
            found, unknown = _labelsOf(segments, self._manifest, self._mapping)
            self._labelOf = {**found, **{value: self._unknown for value in unknown}}
            self._unknownNames = [names[value] or str(value) for value in unknown]
            self._targetsOf = names
        return self._labelOf

    def _labelsIn(self, box: Box) -> np.ndarray:
        labels = self._merged(box)
        if self._unknownNames and (labels == self._unknown).any():
            raise InputError(nodes.unmappedSentence(self._unknownNames, self._manifest))
        return labels

    def _merged(self, box: Box) -> np.ndarray:
        """All layers in a box; where segments overlap the later one counts."""
        isFirst = True
        merged = np.zeros([part.stop - part.start for part in box], self.known.dtype)
        for layer in self._layers.values():
            start = [begin - part.start for begin, part in zip(layer.start[::-1], box, strict=True)]
            inside, target = nodes.overlap(layer.array.shape, start, merged.shape)
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
        if box is None or self._box is None:
            self._box = box or self._box
        else:
            self._box = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(self._box, box, strict=True)
            )
        if self._box is not None:
            self._box = tuple(
                slice(min(max(part.start, 0), count), min(max(part.stop, 0), count))
                for part, count in zip(self._box, self.known.shape, strict=True)
            )


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
    starts = [layer.start[::-1] for layer in (before, after)]
    ends = [np.add(start, layer.array.shape) for start, layer in zip(starts, (before, after), strict=True)]
    low, high = np.minimum(*starts), np.maximum(*ends)
    arrays = [
        layer.array if layer.array.shape == tuple(high - low) else _embedded(layer, low, high)
        for layer in (before, after)
    ]
    found = boxOf(*arrays)
    if found is None:
        return None
    return tuple(slice(int(part.start + first), int(part.stop + first)) for part, first in zip(found, low, strict=True))


def _embedded(layer: Layer, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The layer in the box from `low` to `high`, which it may not fill."""
    result = np.zeros(high - low, layer.array.dtype)
    result[boxAt(tuple(np.subtract(layer.start[::-1], low)), layer.array.shape)] = layer.array
    return result


def _translate(table: np.ndarray, values: np.ndarray, result: np.ndarray) -> None:
    """result = table[values], plane by plane: half the time, because no index of the whole array is made."""
    for plane, target in zip(values, result, strict=True):
        np.take(table, plane, out=target, mode="clip")


def _labelsOf(segments: list, manifest, mapping) -> tuple[dict[int, int], list[int]]:
    """Value of each segment -> label of the model, 0 where it has none; and the values that it does not know."""
    names = {segment.value: segment.name for segment in segments}
    probe = LabelMap(np.array(list(names)).reshape(-1, 1, 1), np.eye(4), names)
    mapped, report = map_labels(
        probe, nodes.vocabularyOf(manifest), nodes.mappingByValue(segments, mapping), strict=False
    )
    return dict(zip(names, map(int, mapped.array[:, 0, 0]), strict=True)), list(report.unmapped)


def knownInModelLabels(snapshot: InputSnapshot, manifest, mapping) -> np.ndarray:
    """(k, j, i) A captured segmentation whose segments the model is known to know, in its labels. Quick enough for
    the GUI thread: the segments are asked about, not the voxels."""
    found = _labelsOf(snapshot.segments, manifest, mapping)[0]
    table = np.zeros(max(found) + 1, np.min_scalar_type(max(found.values())))
    table[list(found)] = list(found.values())
    values = snapshot.image.array.transpose(2, 1, 0)
    result = np.empty(values.shape, table.dtype)
    _translate(table, values, result)
    return result


def inModelLabels(snapshot: InputSnapshot, manifest, mapping) -> LabelMap:
    """A captured mask in the labels of a model; raises InputError for labels that it does not know."""
    labels, unknown = nodes.mapLabels(snapshot.image, manifest, snapshot.mappingByValue(mapping))
    if unknown:
        raise InputError(nodes.unmappedSentence(unknown, manifest))
    return labels
