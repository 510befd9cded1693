"""Label vocabularies of models and segmentation tools, and the tables of common tools."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from MedGenLib.errors import InputError

TABLES = ("freesurfer", "maisi", "vista3d", "totalsegmentator")
_TABLE_FOLDER = Path(__file__).parent / "tables"
_BACKGROUND = {"background", "outside", "none", "0"}


@dataclass(frozen=True)
class Label:
    """One structure: number, name, other names, and the coarser structure that it is part of."""

    value: int
    name: str
    aliases: tuple[str, ...] = ()
    part_of: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a model or a segmentation tool; 0 is always the background.

    `left_out` names structures outside of the part of the body that a model makes; they become background.

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
        """The label of a number, name or alias; case, "_" and "-" are ignored.

        The order of the words is ignored, too, unless several labels have the same words:
        "kidney_left" and "left kidney" are the same.
        """
        if isinstance(key, int):
            return self._index.get(key)
        return self._index.get(plain_name(key)) or self._by_words.get(words_of(key))

    def value_of(self, key: int | str) -> int | None:
        """The number of a number, name or alias; 0 for "background" or 0, None if unknown."""
        if plain_name(str(key)) in _BACKGROUND:
            return 0
        label = self.label_of(int(key) if str(key).strip().isdigit() else key)
        return label.value if label else None

    def __str__(self) -> str:
        return ", ".join(f"{label.value} {label.name}" for label in self.labels)

    @functools.cached_property
    def _index(self) -> dict[int | str, Label]:
        index: dict[int | str, Label] = {}
        for label in self.labels:
            for key in (label.value, plain_name(label.name), *map(plain_name, label.aliases)):
                index.setdefault(key, label)
        return index

    @functools.cached_property
    def _by_words(self) -> dict[tuple[str, ...], Label]:
        """Sorted words of a name -> label, without words that several labels share."""
        index: dict[tuple[str, ...], Label | None] = {}
        for label in self.labels:
            for words in {words_of(name) for name in (label.name, *label.aliases)}:
                index[words] = label if index.get(words, label) is label else None
        return {words: label for words, label in index.items() if label}


@functools.cache
def table(name: str) -> Vocabulary:
    """The numbers and names of a common tool: "freesurfer", "totalsegmentator", ...

    FreeSurfer: aseg, the parcels of Desikan-Killiany (aparc) and Destrieux (aparc.a2009s) with the structure they are
    part of, and the head tissues 501 to 530 of SimNIBS charm that SynthSeg's label maps use. TotalSegmentator:
    the 117 classes of its task "total" (version 2), each part of a tissue of the model ct-tissue.
    MAISI: the classes of NV-Generate-CT. VISTA3D: those of NV-Segment-CT, with the further ones of
    NV-Segment-CTMR.

    Raises
    ------
    InputError: there is no table of that name.
    """
    if plain_name(name) not in TABLES:
        known = f"{', '.join(TABLES[:-1])} or {TABLES[-1]}"
        raise InputError(f'There is no label table "{name}"; choose {known}.')
    data = json.loads((_TABLE_FOLDER / f"{plain_name(name)}.json").read_text("utf-8"))
    labels = {
        row["value"]: Label(
            row["value"], row["name"], tuple(row.get("aliases", ())), row.get("tissue", row.get("part_of"))
        )
        for row in data["labels"]
    }
    for parcels in data.get("parcels", ()):
        for first, start, whole in parcels["sides"]:
            for value, end in enumerate(parcels["names"], first):
                labels.setdefault(value, Label(value, start + end, (), whole))
    return Vocabulary(tuple(labels.values()))


def plain_name(name: str) -> str:
    """A name without differences of case, "_", "-" and white space."""
    return re.sub(r"[\s_\-]+", " ", str(name)).strip().lower()


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, sorted."""
    return tuple(sorted(re.sub(r"[,.()]", " ", plain_name(name)).split()))
