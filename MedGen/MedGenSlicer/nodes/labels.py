"""From the segments of a mask to the labels of a model."""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenSlicer.nodes.segments import SegmentInfo, segmentsOf

LEFT_OUT = "0"
"""Background in a mapping: a segment that the model does not use."""
COUNT_BLOCK = 2**20
GENERIC_WORDS = ("segment", "label", "class", "region")
PROBE = 65535
"""A label that no model has, so that only its name decides."""


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


def mappingOfFiles(node, mapping: dict[str, str]) -> dict[str, str]:
    """A label mapping for files like a node: their segments by name, and by value where a name says nothing."""
    segments = [] if node is None else segmentsOf(node)
    generic = [segment for segment in segments if not any(map(str.isalpha, _withoutGenericWord(segment.name)))]
    return {**mapping, **mappingByValue(generic, {s.name: mapping[s.name] for s in generic if s.name in mapping})}


def mapLabels(labels: LabelMap, manifest, mapping=None) -> tuple[LabelMap, list[str]]:
    """A mask in a model's labels, and the names (or numbers) of the labels that the model does not know."""
    mapped, report = map_labels(labels, manifest.input.vocabulary, mapping, strict=False)
    return mapped, [report.names.get(value) or labels.names.get(value) or str(value) for value in report.unmapped]


def requireMapped(labels: LabelMap, manifest, mapping=None) -> None:
    """Raise InputError that names the labels which the model does not know, as the panel shows them."""
    # One voxel of each label is enough, and much quicker than all of them.
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


def labelsOf(segments: list[SegmentInfo], manifest, mapping) -> tuple[dict[int, int], list[int]]:
    """Value of each segment -> label of the model, 0 where it has none; and the values that the model does not know."""
    names = {segment.value: segment.name for segment in segments}
    probe = LabelMap(np.array(list(names)).reshape(-1, 1, 1), np.eye(4), names)
    mapped, report = map_labels(probe, manifest.input.vocabulary, mappingByValue(segments, mapping), strict=False)
    return dict(zip(names, map(int, mapped.array[:, 0, 0]), strict=True)), list(report.unmapped)


def unmappedSentence(names: list[str], manifest) -> str:
    """What to do about labels that a model does not know."""
    known = [label.name for label in manifest.input.labels.values()]
    shown = ", ".join(f"'{name}'" for name in names[:6]) + (_(" and more") if len(names) > 6 else "")
    return _(
        "The model '{model}' does not know {names}: choose one of its labels ({known}) for each in the label "
        'table, or drop it (in Python: mapping={{{example}: "{label}"}}).'
    ).format(model=manifest.name, names=shown, known=", ".join(known), example=f'"{names[0]}"', label=known[0])


def suggestMapping(node, manifest) -> dict[str, str | None]:
    """Which of a model's labels each segment means: segment name -> label name, `LEFT_OUT` for what the model leaves
    out, None where nothing fits.

    The segment's name counts first, then its terminology, then what common tools' label tables say it is part of.
    """
    vocabulary = manifest.input.vocabulary
    result: dict[str, str | None] = {}
    for segment in segmentsOf(node):
        if result.get(segment.name) is None:
            result[segment.name] = _suggestion(segment, vocabulary)
    return result


def _suggestion(segment: SegmentInfo, vocabulary: Vocabulary) -> str | None:
    for word in filter(None, dict.fromkeys((segment.name, segment.terminology))):
        # A mask of one voxel, so that the suggestion is what the library would do.
        probe = LabelMap(np.full((1, 1, 1), PROBE, np.uint16), np.eye(4), {PROBE: word})
        report = map_labels(probe, vocabulary, strict=False)[1]
        if PROBE in report.mapped:
            return vocabulary.names.get(report.mapped[PROBE], LEFT_OUT)
    if segment.name.strip() and not any(letter.isalpha() for letter in _withoutGenericWord(segment.name)):
        return vocabulary.names.get(segment.value)  # "Segment_2" says no more than its number
    return None


def _withoutGenericWord(name: str) -> str:
    plain = name.lower().replace("_", " ").strip()
    word = next(filter(plain.startswith, GENERIC_WORDS), "")
    return plain.removeprefix(word)
