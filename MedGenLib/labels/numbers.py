"""Labels without names, which are read by number: what they are taken for, and whether they look like it."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedGenLib.errors import listed
from MedGenLib.findings import Finding
from MedGenLib.imaging.volume import LabelMap, occupied
from MedGenLib.labels.mapping import OWN_NUMBERS, MappingReport
from MedGenLib.labels.vocabulary import TABLES, Vocabulary, table

_TABLE_FOLDER = Path(__file__).parent / "tables"
_VOLUME_MARGIN = (4.0, 3.0)
"""Factors below and above the volumes of real masks; one side of a paired structure may be missing."""
_THICKNESS_MARGIN = 1.6
_FRAGMENT_ML = 5.0
"""What the border leaves of a structure may be thinner than the structure up to this volume."""
_LEAST_CUT = 0.05
"""Share of the outer surface on the border of the mask from which the border cuts a body: cut ones have at least 0.17,
masks that are cropped to structures of the brain at most 0.03."""
_SHOWN, _HINTS, _DOUBTS = 8, 6, 2
"""Labels, tables and doubts that a sentence lists."""


@dataclass(frozen=True)
class _Whole:
    """What the labels of a model fill together, for models that have the label `main`.

    Attributes
    ----------
    smallest_ml: less is a part of it, unless the border of the mask cuts it.
    alone: the label that may be the only one.
    """

    name: str
    main: str
    smallest_ml: float
    alone: str


_WHOLES = (_Whole("body", "soft tissue", 2000, "soft tissue"), _Whole("brain", "white matter", 600, "brain"))


@dataclass(frozen=True)
class LabelShape:
    """Measures of one label.

    Attributes
    ----------
    volume_ml: its volume.
    thickness_mm: twice the volume over the surface.
    border_mm2: area on the border of the mask, which is no surface.
    beside: label -> share of the surface that faces it; 0 is no label.
    """

    volume_ml: float
    thickness_mm: float
    border_mm2: float
    beside: Mapping[int, float]

    @property
    def bare_mm2(self) -> float:
        """The surface that faces no label."""
        return 2000 * self.volume_ml / self.thickness_mm * self.beside.get(0, 0.0)


def check_numbers(
    labels: LabelMap, report: MappingReport, vocabulary: Vocabulary, is_filled: bool = False
) -> list[Finding]:
    """Findings on labels that were read by number.

    A warning says what they were read as; an error that they do not look like it.

    Parameters
    ----------
    labels: in the labels of the model.
    is_filled: whether the rest of the body gets a label afterwards, so that one label may be all there is.
    """
    if not report.by_number:
        return []
    names = vocabulary.names
    whole = next((whole for whole in _WHOLES if vocabulary.label_of(whole.main)), None)
    shapes = shapes_of(labels)
    read_as = listed((f"{value} = {names[value]}" for value in report.by_number), _SHOWN)
    doubts = [*_doubts(shapes, {value: names[value] for value in report.by_number})]
    if whole is not None:
        doubts += _doubts_of_whole(shapes, names, whole, is_filled)
    if not doubts:
        return [
            Finding(
                "warning",
                "read-by-number",
                f"The labels of the mask have no names and were read by number: {read_as}; if they mean something "
                "else, state it with --map (Python: mapping=).",
            )
        ]
    hints = [f"{name} ({meaning})" for name, meaning in _tables_of(report.by_number)][:_HINTS]
    known = f"; these numbers also occur in {', '.join(hints)}" if hints else ""
    return [
        Finding(
            "error",
            "doubtful-labels",
            f"The labels of the mask have no names, and read by number ({read_as}) they do not look like that: "
            f"{'; '.join(doubts[:_DOUBTS])}{known}; state what they mean with --map, or --map {OWN_NUMBERS} if these "
            "are the numbers of the model (Python: mapping=).",
        )
    ]


def shapes_of(labels: LabelMap) -> dict[int, LabelShape]:
    """The measures of each label; faces on the border of the mask are no surface."""
    box = occupied(labels.array)
    if box is None:
        return {}
    around = tuple(slice(max(0, low - 1), high + 1) for low, high in box)
    values, numbers = np.unique(labels.array[around], return_inverse=True)
    numbers = numbers.reshape(labels.array[around].shape).astype(np.intp)
    count, spacing = len(values), labels.spacing
    voxel = float(np.prod(spacing))
    faces = np.zeros((count, count))
    for axis in range(3):
        along = np.moveaxis(numbers, axis, 0)
        for near, far in zip(along[:-1], along[1:], strict=True):
            pairs = np.bincount((near * count + far).ravel(), minlength=count * count)
            faces += pairs.reshape(count, count) * (voxel / spacing[axis])
    faces += faces.T
    np.fill_diagonal(faces, 0)
    sizes = np.bincount(numbers.ravel(), minlength=count) * voxel
    border = _on_border(labels)
    return {
        int(value): LabelShape(
            sizes[n] / 1000,
            2 * sizes[n] / max(faces[n].sum(), 1e-9),
            border.get(int(value), 0.0),
            {int(other): faces[n, m] / max(faces[n].sum(), 1e-9) for m, other in enumerate(values) if m != n},
        )
        for n, value in enumerate(values)
        if value
    }


def _on_border(labels: LabelMap) -> dict[int, float]:
    """Area of each label on the border of the mask in mm2."""
    areas: dict[int, float] = {}
    for axis, spacing in enumerate(labels.spacing):
        for end in (0, -1):
            values, counts = np.unique(np.take(labels.array, end, axis), return_counts=True)
            for value, count in zip(values, counts, strict=True):
                areas[int(value)] = areas.get(int(value), 0.0) + count * float(np.prod(labels.spacing)) / spacing
    return areas


def _doubts(shapes: Mapping[int, LabelShape], names: Mapping[int, str]) -> Iterator[str]:
    """What speaks against the names, in words."""
    known = _known_shapes()
    for value, name in names.items():
        if value in shapes and name in known:
            doubts = _doubts_of(f"{name} ({value})", shapes[value], known[name], names, len(shapes) > 1)
            yield from itertools.islice(doubts, 1)


def _doubts_of_whole(
    shapes: Mapping[int, LabelShape], names: Mapping[int, str], whole: _Whole, is_filled: bool
) -> Iterator[str]:
    touching = any(share for shape in shapes.values() for other, share in shape.beside.items() if other)
    if len(shapes) > 1 and not touching:
        yield f"no two labels touch each other, as those of a {whole.name} do"
    ml = sum(shape.volume_ml for shape in shapes.values())
    border, bare = (sum(getattr(s, area) for s in shapes.values()) for area in ("border_mm2", "bare_mm2"))
    if ml < whole.smallest_ml and border < _LEAST_CUT * (border + bare):
        yield f"they are {ml:.3g} ml in all, which is a part or a lesion and no {whole.name}"
    elif len(shapes) == 1 and bare and not is_filled and (ml < whole.smallest_ml or names[min(shapes)] != whole.alone):
        yield f"a {whole.name} has more labels than one"


def _doubts_of(
    label: str, shape: LabelShape, known: Mapping, names: Mapping[int, str], has_others: bool
) -> Iterator[str]:
    if limits := known.get("volume_ml"):
        low, high = limits[0] / _VOLUME_MARGIN[0], limits[1] * _VOLUME_MARGIN[1]
        if shape.volume_ml > high or not shape.border_mm2 and shape.volume_ml < low:
            yield f"{label} has {shape.volume_ml:.3g} ml, where {limits[0]:g} to {limits[1]:g} ml are usual"
    if shape.beside and (limits := known.get("thickness_mm")):  # one that fills the grid has no surface
        is_fragment = shape.border_mm2 and shape.volume_ml < _FRAGMENT_ML
        low, high = limits[0] / _THICKNESS_MARGIN * (not is_fragment), limits[1] * _THICKNESS_MARGIN
        if not low <= shape.thickness_mm <= high:
            yield f"{label} is {shape.thickness_mm:.2g} mm thick, where {limits[0]:g} to {limits[1]:g} mm are usual"
    bare = shape.beside.get(0, 0.0)
    if has_others and bare > known.get("bare", 1.0):
        yield f"{bare:.0%} of the surface of {label} lie bare, without a label beside them"
    for other, most in known.get("beside", {}).items():
        share = sum(part for value, part in shape.beside.items() if names.get(value) == other)
        if share > most:
            yield f"{share:.0%} of the surface of {label} lie beside {other}"


@functools.cache
def _known_shapes() -> dict[str, Mapping]:
    return json.loads((_TABLE_FOLDER / "shapes.json").read_text("utf-8"))["labels"]


def _tables_of(values: list[int]) -> Iterator[tuple[str, str]]:
    """Tools and data sets whose numbers include these: name, and what the first number means."""
    sets = json.loads((_TABLE_FOLDER / "datasets.json").read_text("utf-8"))["tables"]
    tables = {name: table(name).names for name in reversed(TABLES)}
    # The fewer labels a data set has, the better it fits.
    for entry in sorted(sets, key=lambda entry: len(entry["labels"])):
        tables[entry["name"]] = {int(value): name for value, name in entry["labels"].items()}
    for name, names in tables.items():
        if all(value in names for value in values):
            yield name, f"{values[0]} = {names[values[0]]}"
