"""Mapping the labels of a segmentation to those of a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from MedGenLib.errors import InputError, listed
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.labels.vocabulary import TABLES, Label, Vocabulary, plain_name, table, words_of

OWN_NUMBERS = "model"
"""In place of the name of a table: the numbers of the mask are those of the model."""
_LONG = 12
"""Labels that a sentence names at most."""
_NO_NAME = re.compile(r"(segment|label|class|region)?\s*\d*")
"""Default names of drawing tools."""


@dataclass(frozen=True)
class MappingReport:
    """The mapping of each label of a mask.

    Attributes
    ----------
    mapped: label of the mask -> label of the model, 0 for labels that were dropped.
    unmapped: labels that the model does not know, which became background.
    names: label of the mask -> name, where it has one.
    left_out: labels in `mapped` that became background because the model leaves them out.
    by_number: labels without a name and without a rule, of which only the number decided.
    """

    mapped: dict[int, int]
    unmapped: list[int]
    names: dict[int, str] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)
    by_number: list[int] = field(default_factory=list)

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

    Each label of the mask is mapped by the first of these that applies: ``mapping`` by number; ``mapping``
    by name; its name in the vocabulary; the nearest structure that contains it according to the tables
    (spleen -> soft tissue, a cortical parcel -> cortex or brain); its number, if it has no name.

    Parameters
    ----------
    mapping: label or name in the mask -> label or name of the model, such as {"liver": "soft
        tissue", 5: 2, 7: "background"}, or name of a structure of the tables, such as {5: "liver"}.
        The entry "table", or a string instead of all, names the table ("freesurfer", "totalsegmentator",
        ...) that the mask's numbers come from, "model" for the model's own.
    strict: refuse labels that cannot be mapped; otherwise they become background.

    Raises
    ------
    InputError: labels that the model does not know, or a mapping to a label that it does not have.
    """
    rules = {"table": mapping} if isinstance(mapping, str) else dict(mapping or {})
    source = _source(str(rules.pop("table")), vocabulary) if "table" in rules else None
    organs = {_key(key): str(wanted) for key, wanted in rules.items() if vocabulary.value_of(wanted) is None}
    rules = {_key(key): _target(key, wanted, vocabulary) for key, wanted in rules.items()}
    names = {} if source is None else dict(source.names)
    names.update({v: n for v, n in label_map.names.items() if not _NO_NAME.fullmatch(plain_name(n))})
    values = label_map.values()
    found = {value: _find(value, names.get(value), rules, vocabulary) for value in values}
    known = {v: organs.get(v, organs.get(plain_name(names.get(v, "")))) for v in values}
    names.update({v: name for v, name in known.items() if name})
    report = MappingReport(
        {v: to for v, to in found.items() if to is not None},
        [v for v, to in found.items() if to is None],
        {v: names[v] for v in values if v in names},
        [v for v, to in found.items() if to == 0 and v not in rules and plain_name(names.get(v, "")) not in rules],
        [v for v, to in found.items() if to and v not in rules and v not in names],
    )
    if strict and report.unmapped:
        raise InputError(_unknown_labels(report, vocabulary))
    return _relabel(label_map, report.mapped, vocabulary), report


def mapped_colors(colors: Mapping[int, str], mapped: Mapping[int, int]) -> dict[int, str]:
    """Colors of labels of the model: those of the labels mapped to them, where these agree."""
    found: dict[int, set[str | None]] = {}
    for value, target in mapped.items():
        found.setdefault(target, set()).add(colors.get(value))
    return {
        target: color for target, several in found.items() if target and len(several) == 1 and (color := min(several))
    }


def _source(name: str, vocabulary: Vocabulary) -> Vocabulary:
    return vocabulary if plain_name(name) == OWN_NUMBERS else table(name)


def _find(value: int, name: str | None, rules: dict[int | str, int], vocabulary: Vocabulary) -> int | None:
    if value in rules:
        return rules[value]
    if name is None:
        return value if vocabulary.label_of(value) else None
    if plain_name(name) in rules:
        return rules[plain_name(name)]
    outside = {plain_name(left) for left in vocabulary.left_out}
    return next(
        (
            vocabulary.value_of(other) if vocabulary.label_of(other) else 0
            for other in wider_names(name)
            if vocabulary.label_of(other) or plain_name(other) in outside
        ),
        None,
    )


def wider_names(name: str) -> Iterator[str]:
    """The name, other names of the same structure, then the structures that contain it, by all tables."""
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
        seen.update(map(plain_name, level))
        level = [name for name in dict.fromkeys(parents) if plain_name(name) not in seen]


def _target(key: int | str, wanted: int | str, vocabulary: Vocabulary) -> int:
    names = wider_names(wanted) if isinstance(wanted, str) else [wanted]
    value = next((v for name in names if (v := vocabulary.value_of(name)) is not None), None)
    if value is None:
        raise InputError(
            f"The mapping {key}={wanted} names a label that the model does not have; "
            f"it knows {vocabulary} and 0 background."
        )
    return value


def _key(key: int | str) -> int | str:
    return int(key) if str(key).strip().isdigit() else plain_name(key)


def _relabel(label_map: LabelMap, mapped: dict[int, int], vocabulary: Vocabulary) -> LabelMap:
    sources = np.array([0, *sorted(mapped)], dtype=np.int64)
    targets = np.array([0, *(mapped[v] for v in sorted(mapped))])
    targets = targets.astype(np.min_scalar_type(int(targets.max())))
    result = np.zeros(label_map.shape, targets.dtype)
    # Plane by plane: the indices of a whole volume take several times its memory.
    for plane, new in zip(label_map.array, result, strict=True):
        place = np.searchsorted(sources, plane).clip(max=len(sources) - 1)
        known = sources[place] == plane
        new[known] = targets[place][known]
    return label_map.with_array(result, dict(vocabulary.names), mapped_colors(label_map.colors, mapped))


def _unknown_labels(report: MappingReport, vocabulary: Vocabulary) -> str:
    shown = [f"{v} ({report.names[v]})" if v in report.names else str(v) for v in report.unmapped]
    first = report.unmapped[0]
    known, example = str(vocabulary), vocabulary.labels[-1].value
    if len(vocabulary.labels) > _LONG:
        near = _similar(report.names.get(first, ""), vocabulary)
        known = f"{len(vocabulary.labels)} structures, such as {Vocabulary(near)}"
        example = near[0].value
    return (
        f"The mask has labels that the model does not know: {listed(shown, _LONG)}; "
        f"the model knows {known}, so map them with --map {first}={example} (0 drops one), or "
        f"name the table they come from, as --map {TABLES[-1]} (or {', '.join(TABLES[:-1])})."
    )


def _similar(name: str, vocabulary: Vocabulary) -> tuple[Label, ...]:
    """Up to five labels with similar names, else the first five."""
    names = {plain_name(label.name): label for label in vocabulary.labels}
    shared = {key: len(set(words_of(name)) & set(words_of(key))) for key in names}
    near = sorted((key for key in names if shared[key]), key=lambda key: -shared[key])
    near = near or difflib.get_close_matches(plain_name(name), names, 5)
    return tuple(names[key] for key in (near or list(names))[:5])
