"""Label vocabularies, mapping one segmentation's labels to a model's, and the body's envelope."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume

TABLES = ("freesurfer", "maisi", "vista3d", "totalsegmentator")
_TABLE_FOLDER = Path(__file__).parent / "tables"
_BACKGROUND = {"background", "outside", "none", "0"}
_LONG = 12
"""More labels than that are not all named in a sentence."""
_NO_NAME = re.compile(r"(segment|label|class|region)?\s*\d*")
"""Names that say nothing, as drawing tools give them."""
_BODY_ABOVE_HU = -300.0
_NOTCH_MM = 8.0
_BODY_GRID_MM = 3.0
"""Voxels of the envelope's coarse computations."""


@dataclass(frozen=True)
class Label:
    """One structure: its number, its name, other names, and the coarser structure it is part of."""

    value: int
    name: str
    aliases: tuple[str, ...] = ()
    part_of: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The labels that a model or a segmentation tool knows; 0 is always the background.

    `left_out` names structures that a model of a part of the body knows to lie outside of it:
    they become background without a question.

    >>> tissue = Vocabulary.from_dict({"1": {"name": "fat", "aliases": ["adipose"]}})
    >>> tissue.value_of("Adipose"), tissue.value_of(1), tissue.value_of("liver")
    (1, 1, None)
    """

    labels: tuple[Label, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, labels: Mapping[str, Mapping], left_out: Iterable[str] = ()) -> Vocabulary:
        """From {"1": {"name": "fat", "aliases": ["adipose"]}, ...}, as model packages write it."""
        return cls(
            tuple(Label(int(value), entry["name"], tuple(entry.get("aliases", ()))) for value, entry in labels.items()),
            tuple(left_out),
        )

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """Label value -> name."""
        return {label.value: label.name for label in self.labels}

    def label_of(self, key: int | str) -> Label | None:
        """The label of a number, name or alias; case, "_" and "-" make no difference.

        Nor does the order of the words, as long as no other label has the same ones:
        "kidney_left" and "left kidney" are one.
        """
        if isinstance(key, int):
            return self._index.get(key)
        return self._index.get(_plain(key)) or self._by_words.get(_words(key))

    def value_of(self, key: int | str) -> int | None:
        """The number of a number, name or alias; 0 for "background" or 0, None if unknown."""
        if _plain(str(key)) in _BACKGROUND:
            return 0
        label = self.label_of(int(key) if str(key).strip().isdigit() else key)
        return label.value if label else None

    def __str__(self) -> str:
        return ", ".join(f"{label.value} {label.name}" for label in self.labels)

    @functools.cached_property
    def _index(self) -> dict[int | str, Label]:
        index: dict[int | str, Label] = {}
        for label in self.labels:
            for key in (label.value, _plain(label.name), *map(_plain, label.aliases)):
                index.setdefault(key, label)
        return index

    @functools.cached_property
    def _by_words(self) -> dict[tuple[str, ...], Label]:
        """Sorted words of a name -> label, without those that several labels have."""
        index: dict[tuple[str, ...], Label | None] = {}
        for label in self.labels:
            for words in {_words(name) for name in (label.name, *label.aliases)}:
                index[words] = label if index.get(words, label) is label else None
        return {words: label for words, label in index.items() if label}


@functools.cache
def table(name: str) -> Vocabulary:
    """The numbers and names of a common tool: "freesurfer", "totalsegmentator", ...

    FreeSurfer: aseg, the Desikan-Killiany parcels (aparc) with the structure they are part of, and
    the head tissues 501 to 530 of SimNIBS charm that SynthSeg's label maps use. TotalSegmentator:
    the 117 classes of its task "total" (version 2), each part of a tissue of the model ct-tissue.
    MAISI: the classes of NV-Generate-CT. VISTA3D: those of NV-Segment-CT, with the further ones of
    NV-Segment-CTMR.

    Raises
    ------
    InputError: there is no table of that name.
    """
    if _plain(name) not in TABLES:
        known = f"{', '.join(TABLES[:-1])} or {TABLES[-1]}"
        raise InputError(f'There is no label table "{name}"; choose {known}.')
    rows = json.loads((_TABLE_FOLDER / f"{_plain(name)}.json").read_text("utf-8"))["labels"]
    return Vocabulary(
        tuple(
            Label(row["value"], row["name"], tuple(row.get("aliases", ())), row.get("tissue", row.get("part_of")))
            for row in rows
        )
    )


@dataclass(frozen=True)
class MappingReport:
    """What became of each label present.

    Attributes
    ----------
    mapped: label in the mask -> label of the model (0: dropped as the user wished).
    unmapped: labels that the model does not know; they became background.
    left_out: labels in `mapped` that became background because the model leaves them out.
    names: label in the mask -> name, as far as it is known.
    """

    mapped: dict[int, int]
    unmapped: list[int]
    names: dict[int, str] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether any label got another number."""
        return any(source != target for source, target in self.mapped.items())


def parse_mapping(words: Iterable[str]) -> dict[str, str]:
    """The mapping of a command line: "5=2", "liver=soft tissue", or a table's name alone.

    >>> parse_mapping(["liver=soft tissue", "totalsegmentator"])
    {'liver': 'soft tissue', 'table': 'totalsegmentator'}
    """
    mapping = {}
    for word in words:
        key, equals, target = (part.strip() for part in word.partition("="))
        if not key or (equals and not target):
            raise InputError(
                f'The mapping "{word}" is not understood; write for instance 5=2, "liver=soft tissue" or {TABLES[-1]}.'
            )
        mapping[key if equals else "table"] = target if equals else key
    return mapping


def map_labels(
    label_map: LabelMap,
    vocabulary: Vocabulary,
    mapping: Mapping[int | str, int | str] | str | None = None,
    strict: bool = True,
) -> tuple[LabelMap, MappingReport]:
    """Translate a segmentation into a model's labels.

    The first of these that applies decides on each label of the mask: the user's mapping by
    number; by name; the label's own name in the vocabulary; the nearest structure that the tables
    say it is part of (spleen -> soft tissue, a cortical parcel -> cortex or else brain); its
    number, if it has no name.

    Parameters
    ----------
    mapping: label or name in the mask -> label or name of the model, such as {"liver": "soft
        tissue", 5: 2, 7: "background"}. The entry "table", or a string instead of all, names the
        table ("freesurfer", "totalsegmentator", ...) that the mask's numbers come from.
    strict: refuse labels that cannot be mapped; otherwise they become background.

    Raises
    ------
    InputError: labels that the model does not know (named, with the way out), or a mapping to a
        label that the model does not have.
    """
    rules = {"table": mapping} if isinstance(mapping, str) else dict(mapping or {})
    source = table(str(rules.pop("table"))) if "table" in rules else None
    rules = {_key(key): _target(key, wanted, vocabulary) for key, wanted in rules.items()}
    names = {} if source is None else dict(source.names)
    names.update({v: n for v, n in label_map.names.items() if not _NO_NAME.fullmatch(_plain(n))})
    values = label_map.values()
    found = {value: _find(value, names.get(value), rules, vocabulary) for value in values}
    report = MappingReport(
        {v: to for v, to in found.items() if to is not None},
        [v for v, to in found.items() if to is None],
        {v: names[v] for v in values if v in names},
        [v for v, to in found.items() if to == 0 and v not in rules and _plain(names.get(v, "")) not in rules],
    )
    if strict and report.unmapped:
        raise InputError(_unknown_labels(report, vocabulary))
    return _relabel(label_map, report.mapped, vocabulary), report


def _find(value: int, name: str | None, rules: dict[int | str, int], vocabulary: Vocabulary) -> int | None:
    if value in rules:
        return rules[value]
    if name is None:
        return value if vocabulary.label_of(value) else None
    if _plain(name) in rules:
        return rules[_plain(name)]
    outside = {_plain(left) for left in vocabulary.left_out}
    return next(
        (
            vocabulary.value_of(other) if vocabulary.label_of(other) else 0
            for other in _wider(name)
            if vocabulary.label_of(other) or _plain(other) in outside
        ),
        None,
    )


def _wider(name: str) -> Iterator[str]:
    """The name, other names of the same structure, then what it is part of, by all tables."""
    level = [name]
    seen: set[str] = set()
    while level:
        parents: list[str] = []
        for name in level:
            for known in map(table, TABLES):
                if label := known.label_of(name):
                    level.extend(n for n in (label.name, *label.aliases) if n not in level)
                    parents.extend([label.part_of] if label.part_of else [])
        yield from level
        seen.update(map(_plain, level))
        level = [name for name in dict.fromkeys(parents) if _plain(name) not in seen]


def _target(key: int | str, wanted: int | str, vocabulary: Vocabulary) -> int:
    value = vocabulary.value_of(wanted)
    if value is None:
        raise InputError(
            f"The mapping {key}={wanted} names a label that the model does not have; "
            f"it knows {vocabulary} and 0 background."
        )
    return value


def _key(key: int | str) -> int | str:
    return int(key) if str(key).strip().isdigit() else _plain(key)


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", str(name)).strip().lower()


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in one order, whatever order they were written in."""
    return tuple(sorted(re.sub(r"[,.()]", " ", _plain(name)).split()))


def _relabel(label_map: LabelMap, mapped: dict[int, int], vocabulary: Vocabulary) -> LabelMap:
    sources = np.array([0, *sorted(mapped)], dtype=np.int64)
    targets = np.array([0, *(mapped[v] for v in sorted(mapped))])
    targets = targets.astype(np.min_scalar_type(int(targets.max())))
    result = np.zeros(label_map.shape, targets.dtype)
    # Plane by plane: the places of a whole volume would take many times its memory.
    for plane, new in zip(label_map.array, result, strict=True):
        place = np.searchsorted(sources, plane).clip(max=len(sources) - 1)
        known = sources[place] == plane
        new[known] = targets[place][known]
    return label_map.with_array(result, names=dict(vocabulary.names))


def _unknown_labels(report: MappingReport, vocabulary: Vocabulary) -> str:
    shown = [f"{v} ({report.names[v]})" if v in report.names else str(v) for v in report.unmapped]
    more = f" and {len(shown) - _LONG} more" if len(shown) > _LONG else ""
    first = report.unmapped[0]
    known, example = str(vocabulary), vocabulary.labels[-1].value
    if len(vocabulary.labels) > _LONG:
        near = _similar(report.names.get(first, ""), vocabulary)
        known = f"{len(vocabulary.labels)} structures, such as {Vocabulary(near)}"
        example = near[0].value
    return (
        f"The mask has labels that the model does not know: {', '.join(shown[:_LONG])}{more}; "
        f"the model knows {known}, so map them with --map {first}={example} (0 drops one), or "
        f"name the table they come from, as --map {TABLES[-1]} (or {', '.join(TABLES[:-1])})."
    )


def _similar(name: str, vocabulary: Vocabulary) -> tuple[Label, ...]:
    """Up to five labels whose names are like this one, else the first ones there are."""
    names = {_plain(label.name): label for label in vocabulary.labels}
    shared = {key: len(set(_words(name)) & set(_words(key))) for key in names}
    near = sorted((key for key in names if shared[key]), key=lambda key: -shared[key])
    near = near or difflib.get_close_matches(_plain(name), names, 5)
    return tuple(names[key] for key in (near or list(names))[:5])


def body_envelope_from_image(volume: Volume) -> LabelMap:
    """The patient without the air around, air inside included: 1 is body, 0 outside.

    CT is cut at -300 HU, anything else between the noise of the air and the tissue (Otsu of the
    logarithm, or a quarter of the way up). Thin things (a table, wires) are opened away on a grid
    of 3 mm, the largest piece is kept, and air that it encloses is filled.

    Raises
    ------
    InputError: there is nothing but air.
    """
    coarse = _coarse(replace(volume, array=volume.array.astype(np.float32)))
    threshold = _BODY_ABOVE_HU if volume.modality == "CT" else _air_threshold(coarse.array)
    inside = _largest_piece(_open(coarse.array > threshold))
    if not inside.any():
        raise InputError("The image shows no body to make an envelope of; check its values.")
    # Sinuses and cortical bone are as dark as air in MR: bridge the notches they make in the skin.
    filled = _fill(_close(inside, _NOTCH_MM, coarse.spacing), _axial(volume))
    share = _share_on(volume, filled, coarse)
    # The skin is where the image says; what lies deeper was decided on the coarse grid.
    body = (share > 0.9) | ((share > 0.1) & (volume.array > threshold))
    return LabelMap(body, volume.affine, {1: "body"})


def close_body(label_map: LabelMap, radius: float = 15.0) -> LabelMap:
    """The body around a segmentation that leaves gaps: 1 is body, 0 outside.

    Gaps narrower than 2 x `radius` (mm) are bridged (closing by distance), and what is then
    enclosed is filled. Every labelled voxel is inside.

    Raises
    ------
    InputError: the mask is empty.
    """
    labelled = label_map.array > 0
    if not labelled.any():
        raise InputError("The mask is empty, so there is no body to close; label some voxels.")
    mask = Volume(labelled.astype(np.float32), label_map.affine)
    coarse = _coarse(mask)
    closed = _fill(_close(coarse.array >= 0.5, radius, coarse.spacing), _axial(mask))
    body = labelled | (_share_on(mask, closed, coarse) >= 0.5)
    return LabelMap(body, label_map.affine, {1: "body"})


def fill_body(label_map: LabelMap, body: LabelMap, value: int) -> LabelMap:
    """Give unlabelled voxels inside the body the label `value`, and clear those outside of it."""
    filled = np.where(label_map.array == 0, np.min_scalar_type(value).type(value), label_map.array)
    return label_map.with_array(np.where(body.array > 0, filled, filled.dtype.type(0)))


def _coarse(volume: Volume) -> Volume:
    """On voxels of at least 3 mm: large radii stay cheap, and noise is averaged away."""
    return resample(volume, [max(s, _BODY_GRID_MM) for s in volume.spacing])


def _share_on(reference: Volume, inside: np.ndarray, coarse: Volume) -> np.ndarray:
    """On the reference's grid, how much (0 to 1) of the surroundings is inside."""
    return resample_to(coarse.with_array(inside.astype(np.float32)), reference, fill=0.0).array


def _air_threshold(array: np.ndarray) -> float:
    """A value between air and tissue of an MR image, near the half height of the skin."""
    from skimage.filters import threshold_otsu

    shifted = array - array.min()
    top = float(np.percentile(shifted, 99))
    if top <= 0:
        return float(array.max())
    floor = 0.005 * top  # keeps the spread of an air that is nearly 0 from ruling the histogram
    split = np.exp(threshold_otsu(np.log(shifted.clip(floor, top))))
    air, tissue = (float(np.median(part)) for part in (shifted[shifted <= split], shifted[shifted > split]))
    return max(float(split), air + (tissue - air) / 4) + float(array.min())


def _axial(volume: Volume) -> int:
    """The array axis that runs nearest to the patient's length."""
    return next(axis for axis, letter in enumerate(volume.orientation) if letter in "SI")


def _structure(shape: tuple[int, ...]) -> np.ndarray:
    """Face neighbours along the axes that have more than one voxel."""
    from scipy.ndimage import generate_binary_structure

    element = generate_binary_structure(3, 1)
    for axis, size in enumerate(shape):
        if size == 1:
            element = element & (np.indices((3, 3, 3))[axis] == 1)
    return element


def _open(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation, binary_erosion

    element = _structure(mask.shape)
    # Beyond the border the body goes on: it must not be eroded from there.
    eroded = binary_erosion(mask, element, border_value=1)
    return binary_dilation(eroded, element) & mask


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (pieces == sizes.argmax()) & mask


def _fill(mask: np.ndarray, axial: int) -> np.ndarray:
    """Fill what is enclosed in an axial slice, in two of the three slices, or in 3-D.

    The lungs and the bowel run through the border of many volumes, so that only the axial slices
    enclose them; the mouth and the ear canals are enclosed by the other two.
    """
    from scipy.ndimage import binary_fill_holes

    votes = np.zeros(mask.shape, dtype=np.uint8)
    for axis in range(3):
        weight = 2 if axis == axial or mask.shape[axis] == 1 else 1
        for index in range(mask.shape[axis]):
            plane = [slice(None)] * 3
            plane[axis] = index
            votes[tuple(plane)] += np.uint8(weight) * binary_fill_holes(mask[tuple(plane)])
    return (votes >= 2) | binary_fill_holes(mask)


def _close(mask: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Closing by a ball of `radius` mm, as if the border went on, so that nothing sticks to it."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    margin = [(0, 0) if n == 1 else (int(radius / s) + 2,) * 2 for n, s in zip(mask.shape, spacing, strict=True)]
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margin, mask.shape, strict=True))
    grown = distance_transform_edt(~np.pad(mask, margin, "edge"), spacing) <= radius
    return mask | (distance_transform_edt(grown, spacing) > radius)[inner]
