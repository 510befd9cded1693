"""Coded terms (SNOMED CT) for label names, used in DICOM Segmentation objects.

The table `dicom_terms.json` lists label names of common tools and of MedGen's models. The words
left, right, anterior and posterior in a name become modifiers of its code.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.errors import listed
from MedGenLib.labels.vocabulary import TABLES, table

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap

_TABLE = Path(__file__).parents[2] / "labels" / "tables" / "dicom_terms.json"


@dataclass(frozen=True)
class Code:
    """Code value and meaning in a coding scheme ("SCT" is SNOMED CT)."""

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Term:
    """Property of a segment (PS3.3 C.8.20.4): category, type and modifiers.

    Attributes
    ----------
    is_own: False if the type is that of a coarser structure, or "Tissue" for an unknown name.
    """

    category: Code
    type: Code
    modifiers: tuple[Code, ...] = ()
    is_own: bool = True


_TISSUE = Code("85756007", "Tissue")
_CATEGORIES = {
    "anatomy": Code("91723000", "Anatomical Structure"),
    "tissue": _TISSUE,
    "substance": Code("91720002", "Body Substance"),
    "abnormality": Code("49755003", "Morphologically Abnormal Structure"),
}
_LEFT, _RIGHT = Code("7771000", "Left"), Code("24028007", "Right")
_ANTERIOR, _POSTERIOR = Code("255549009", "Anterior"), Code("255551008", "Posterior")
_MODIFIERS = {"left": _LEFT, "lh": _LEFT, "right": _RIGHT, "rh": _RIGHT, "anterior": _ANTERIOR, "posterior": _POSTERIOR}


def term_of(name: str) -> Term:
    """Term of a label name.

    A name that is not in the table gets the term of the structure that contains it
    (ctx-lh-precentral: left cerebral cortex). An unknown name gets the term "Tissue".

    >>> term = term_of("kidney_left")
    >>> term.type.meaning, term.modifiers[0].meaning, term.is_own
    ('Kidney', 'Left', True)
    """
    found = _own_term(name)
    if found is not None:
        return found
    for known in map(table, TABLES):
        label = known.label_of(name)
        coarser = _own_term(label.part_of) if label and label.part_of else None
        if coarser is not None:
            return Term(coarser.category, coarser.type, coarser.modifiers, is_own=False)
    return Term(_TISSUE, _TISSUE, is_own=False)


def name_of(value: int, name: str | None) -> str:
    """Name of a label, or "label <value>" if it has none."""
    return name or f"label {value}"


def sentence_on(labels: LabelMap) -> list[str]:
    """Sentence that lists the labels present without a code of their own; empty if there are none."""
    names = [name_of(value, labels.names.get(value)) for value in labels.values()]
    coarse = [f"{name} ({term.type.meaning})" for name in names if not (term := term_of(name)).is_own]
    if not coarse:
        return []
    return [f"These labels have no code of their own and are coded as a coarser structure: {listed(coarse)}."]


def _own_term(name: str) -> Term | None:
    words = re.sub(r"[\s_\-]+", " ", name).strip().lower().split()
    for kept, modifiers in (
        (words, ()),
        (
            [word for word in words if word not in _MODIFIERS],
            tuple(_MODIFIERS[word] for word in words if word in _MODIFIERS),
        ),
    ):
        entry = _table().get(" ".join(kept))
        if entry is not None:
            return Term(*entry, modifiers)
    return None


@functools.cache
def _table() -> dict[str, tuple[Code, Code]]:
    """Name -> category and type, from the table."""
    rows = json.loads(_TABLE.read_text("utf-8"))["terms"]
    return {
        name: (_CATEGORIES[row.get("category", "anatomy")], Code(row["code"], row["meaning"], row.get("scheme", "SCT")))
        for row in rows
        for name in row["names"]
    }
