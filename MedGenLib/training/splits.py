"""Deterministic splits by subject."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable


def hold_out(subjects: Iterable[str], count: int, seed: int = 0, stratum: int = 0) -> list[str]:
    """Choose ``count`` subjects to hold out of training, deterministic on every machine.

    ``stratum`` is the number of leading characters of a subject's name that identify its stratum (such as a hospital);
    the held-out subjects are distributed evenly over the strata.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for subject in sorted(set(subjects)):
        groups[subject[:stratum]].append(subject)
    generator = random.Random(seed)
    for members in groups.values():
        generator.shuffle(members)
    chosen: list[str] = []
    while len(chosen) < count and any(groups.values()):
        for key in sorted(groups):
            if groups[key] and len(chosen) < count:
                chosen.append(groups[key].pop())
    return sorted(chosen)
