"""Organs: their HU by contrast phase, with the differences between people, and HU that the user gives.

The values are in `tables/organs.json`, each with its sources.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError, listed
from MedGenLib.labels.mapping import wider_names
from MedGenLib.labels.vocabulary import Label, Vocabulary, plain_name, words_of

PHASES = ("none", "arterial", "portal", "delayed")
MOST = 1.5
"""Largest difference of a person from the mean, in standard deviations."""
COMPACT_HU, MUSCLE_HU = 1100.0, 50.0
_STREAM = 1601
"""Separates the numbers drawn here from those of the noise."""


@dataclass(frozen=True)
class Organ:
    """A row of the table.

    Attributes
    ----------
    tissue: class of the models, "fat", "soft tissue" or "bone".
    hu: of the interior, by phase: parenchyma, contents of a hollow organ, marrow of a bone.
    sd: standard deviation between people, by phase.
    blood: correlation of that with the blood pool, which all organs of a person share.
    shell_mm: thickness of the wall, the cortex or the compact bone; 0 for organs without.
    shell: HU of the shell by phase; None for bones.
    cortex_mm: thickness of the compact bone of a bone with a thin cortex; 0 where compact bone keeps the intensities
        of the model.
    gas: share of a hollow organ that is filled with gas, in front as in a patient on the back.
    sources: keys of `sources` in the table.
    names: names of the structures with these values.
    limits: HU that the class can have.
    """

    name: str
    tissue: str
    hu: tuple[float, ...]
    sd: tuple[float, ...]
    blood: float
    shell_mm: float
    shell: tuple[float, ...] | None
    cortex_mm: float
    gas: float
    sources: tuple[str, ...]
    names: tuple[str, ...]
    limits: tuple[float, float]

    def drawn(self, phase: str, seed: int) -> tuple[float, float | None]:
        """HU of the interior and of the shell in the person of a seed."""
        number = PHASES.index(phase)
        pool, own = (np.random.default_rng([seed, _STREAM, *key]).standard_normal() for key in ((), self._key))
        z = float(np.clip(self.blood * pool + np.sqrt(1 - self.blood**2) * own, -MOST, MOST))
        hu = round(self.hu[number] + z * self.sd[number], 1)
        return hu, None if self.shell is None else round(self.shell[number] + z * self.sd[number], 1)

    def compact(self, marrow: float, voxel_mm: float) -> float:
        """HU of voxels with a thin cortex: its share of a voxel is compact bone, the rest marrow and muscle."""
        share = min(1.0, self.cortex_mm / voxel_mm)
        return share * COMPACT_HU + (1 - share) * (marrow + MUSCLE_HU) / 2

    @property
    def _key(self) -> tuple[int, ...]:
        return tuple(self.name.encode())


@functools.cache
def organs() -> tuple[Organ, ...]:
    """The rows of the table."""
    content, found = _content(), []
    for row in content["organs"]:
        sd = row["sd"] if isinstance(row["sd"], list) else [row["sd"]] * len(PHASES)
        found.append(
            Organ(
                row["name"],
                row["tissue"],
                tuple(row["hu"]),
                tuple(sd),
                row["blood"],
                row.get("shell_mm", 0),
                tuple(row["shell"]) if "shell" in row else None,
                row.get("cortex_mm", 0),
                row.get("gas", 0),
                tuple(row["sources"]),
                tuple(name for short in row.get("names", (row["name"],)) for name in _names(short)),
                tuple(content["ranges"][row["tissue"]]),
            )
        )
    return tuple(found)


def _names(short: str) -> list[str]:
    """The names that a short form stands for: * for both sides, 1-3 for numbers."""
    names = [short.replace("*", side) for side in ("left", "right")] if "*" in short else [short]
    found = re.fullmatch(r".*?(\d+)-(\d+)", short)
    if found is None:
        return names
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [re.sub(r"\d+-\d+$", str(number), name) for name in names for number in numbers]


def sources() -> dict[str, str]:
    """Key -> source of values."""
    return _content()["sources"]


@functools.cache
def _content() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "tables" / "organs.json").read_text("utf-8"))


def organ_of(name: str) -> Organ | None:
    """The row of a structure by its name in any table of labels, or of the nearest structure that contains it."""
    return next((organs()[label.value] for other in wider_names(name) if (label := _index().label_of(other))), None)


def parse_hu(text: str) -> dict[str, float]:
    """HU of organs, as on the command line.

    >>> parse_hu("liver=105,spleen=120")
    {'liver': 105.0, 'spleen': 120.0}
    """
    found: dict[str, float] = {}
    for word in text.split(","):
        name, _, number = (part.strip() for part in word.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if not name or not np.isfinite(value):
            raise InputError(f'The HU "{word.strip()}" are not understood; write for instance "liver=105,spleen=120".')
        if found.setdefault(name, value) != value:
            raise InputError(f"The {name} has two different HU, {found[name]:g} and {value:g}; give one of them.")
    return found


def given_hu(hu: Mapping[str, float], names: Mapping[int, str]) -> dict[int, float]:
    """HU that the user gives organs, by label of the mask.

    Parameters
    ----------
    hu: by the name of a label, or a wider name for several, such as kidney for both.
    names: label -> name, of the labels that have a row.

    Raises
    ------
    InputError: an organ that is not in the table or not in the mask, two values for one label, or a value that its
        tissue cannot have.
    """
    found: dict[int, float] = {}
    for key, value in hu.items():
        organ = _known(key)
        low, high = organ.limits
        if not isinstance(value, Real) or isinstance(value, bool):
            raise InputError(f"The HU of the {key} are {value!r}; give a number.")
        if not low <= value <= high:
            tissue = "marrow" if organ.tissue == "bone" else organ.tissue
            raise InputError(
                f"The {key} cannot have {value:g} HU, as {tissue} has {low:g} to {high:g} HU; give a value "
                "in that range."
            )
        labels = [label for label, name in names.items() if _means(key, name)]
        if not labels:
            raise InputError(
                f"The mask has no {key} to give {value:g} HU; it has {listed(dict.fromkeys(names.values()))}."
            )
        for label in labels:
            if found.setdefault(label, value) != value:
                raise InputError(
                    f"The {names[label]} has two different HU, {found[label]:g} and {value:g}; give one of them."
                )
    return found


def _known(key: str) -> Organ:
    organ = organ_of(key)
    if organ is None:
        names = list(dict.fromkeys(plain_name(name) for organ in organs() for name in (organ.name, *organ.names)))
        shared = [name for name in names if set(words_of(name)) & set(words_of(key))]
        near = difflib.get_close_matches(plain_name(key), names, 3, 0.5) or shared[:3] or names[:3]
        raise InputError(f"There are no HU for '{key}' in the table of organs; near are {listed(near)}.")
    return organ


def _means(key: str, name: str) -> bool:
    """Whether a name that the user gives stands for a label: its name, a wider one, or its row."""
    return any(words_of(other) == words_of(key) for other in (*wider_names(name), organ_of(name).name))


@functools.cache
def _index() -> Vocabulary:
    """Vocabulary of the rows, by their position."""
    return Vocabulary(tuple(Label(n, organ.name, organ.names) for n, organ in enumerate(organs())))
