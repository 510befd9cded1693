"""Deterministic splits by subject."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from MedGenLib.errors import InputError

FEWEST = 20
"""People of the training from which some are taken to choose the weights."""


def hold_out_both(subjects: Iterable[str], images: str) -> tuple[list[str], list[str] | None]:
    """A fifth of the people, who measure a model, and a tenth of 20 others or more (4 to 16), who choose its weights.

    Raises InputError for one person only; ``images`` are what they are of, such as "cases of DATASET".
    """
    people = sorted(set(subjects))
    if len(people) < 2:
        raise InputError(
            f"The {images} are of one person ({people[0]}); give those of two or more, because one is kept out of the "
            "training to measure the model."
        )
    measure = hold_out(people, max(1, min(40, round(len(people) / 5))))
    others = [person for person in people if person not in measure]
    return measure, hold_out(others, min(16, max(4, len(others) // 10)), 1) if len(others) >= FEWEST else None


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
