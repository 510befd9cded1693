"""The labels of NV-Generate-CT: 124 of MAISI's 132 classes, and 200 for the rest of the body.

The other eight numbers are placeholders without training data and unknown labels here. `table("maisi")` of
MedGenLib.labels.mapping has the same labels with their tissues.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from MedGenLib.labels.vocabulary import table
from MedGenLib.packages.hub.nv_generate_limits import BODY

REGIONS = (
    ("head and neck", frozenset({22, 120})),
    ("thorax", frozenset({28, 29, 30, 31, 32})),
    ("abdomen", frozenset({1, 3, 4, 5, 14})),
    ("pelvis and legs", frozenset({93, 94})),
)
"""Region -> labels within it (`get_body_region_index_from_mask` of NV-Generate-CTMR)."""
UNCLAIMED = ("soft tissue", "fat", "subcutaneous fat", "muscle", "gas")
"""Tissues with the label of the rest of the body in training."""


def package_labels() -> dict[str, dict[str, Any]]:
    """The vocabulary in the form of configs/metadata.json.

    >>> package_labels()["5"]
    {'name': 'right kidney', 'aliases': ['kidney_right']}
    """
    labels = {}
    for label in table("maisi").labels:
        aliases = [*label.aliases, *(UNCLAIMED if label.value == BODY else ())]
        labels[str(label.value)] = {"name": label.name} | ({"aliases": aliases} if aliases else {})
    return labels


def regions(values: Iterable[int]) -> tuple[int, int] | None:
    """Topmost and lowest body region of these labels, as indices into `REGIONS`.

    None if no label determines it: only ribs, or the body without structures.
    """
    present = set(values)
    shown = [number for number, (_, labels) in enumerate(REGIONS) if labels & present]
    return (shown[0], shown[-1]) if shown else None
