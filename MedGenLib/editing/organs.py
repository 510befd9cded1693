"""Organs of a canvas: their HU are frozen when it is opened, and their parts follow the mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box
from MedGenLib.labels.body import Tissues
from MedGenLib.labels.organs import organ_of
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.pipelines.organ_levels import REST, Part, PersonLevels


class OrganEdits:
    """The parts of a mask under edits, with the shift of each part.

    A voxel whose label stays keeps its part. One with another label gets the interior of that organ; new bone has no
    marrow. Organs that the mask did not have get their HU of the table.

    Parameters
    ----------
    person: shifts of the organs; its parts and their numbers are copied.
    own: the model's labels, which have no HU of their own.
    names: names of numbers of the mask, besides those that come with it.
    seed: of the person, for organs that the mask did not have.
    """

    def __init__(
        self, person: PersonLevels, own: Vocabulary, tissues: Tissues, names: Mapping[int, str], seed: int
    ) -> None:
        levels = replace(person.levels, parts=list(person.levels.parts), numbers=person.levels.numbers.copy())
        self._person = replace(person, levels=levels)
        self._own, self._tissues, self._names, self._seed = own, tissues, names, seed
        self._known: dict[tuple[int, int], int] = {}
        for number, part in enumerate(levels.parts, 1):
            if not part.shell or part.cortex:
                self._known[part.label, part.tissue] = number

    @property
    def numbers(self) -> NDArray[np.unsignedinteger]:
        """Number of the part of each voxel; edits change it in place."""
        return self._person.levels.numbers

    def added(self, values: NDArray, box: Box) -> NDArray[np.float32]:
        """Values of the model -> values with the HU of the organs."""
        return self._person.added(values, box)

    def removed(self, values: NDArray, box: Box) -> NDArray[np.float32]:
        """The inverse of `added`."""
        return self._person.removed(values, box)

    def plain(self, values: NDArray, numbers: NDArray) -> NDArray[np.float32]:
        """Values without the HU of organs, by the numbers of the parts alone."""
        return self._person.plain(values, numbers)

    def following(
        self, box: Box, before: NDArray, after: NDArray, labels: NDArray, names: Mapping[int, str]
    ) -> NDArray[np.unsignedinteger]:
        """Numbers of a box after an edit.

        Parameters
        ----------
        before, after: the mask; labels: the new labels of the model.
        names: names of the numbers of the mask.
        """
        numbers = self.numbers[box].copy()
        changed = before != after
        for value, label in {*zip(after[changed].tolist(), labels[changed].tolist(), strict=True)}:
            numbers[changed & (after == value) & (labels == label)] = self._number(value, label, names)
        return numbers

    def _number(self, value: int, label: int, names: Mapping[int, str]) -> int:
        keys = [(value, label)] if value else [(rest, label) for rest in REST]
        known = next((self._known[key] for key in keys if key in self._known), None)
        if known is not None or not value:
            return known or 0
        name = names.get(value) or self._names.get(value, "")
        organ = organ_of(name) if name and self._own.label_of(name) is None else None
        if organ is None or label != self._tissues.of(organ.tissue) or label == self._tissues.bone:
            return 0
        return self._learn(Part(value, name, organ, label))

    def _learn(self, part: Part) -> int:
        person, levels = self._person, self._person.levels
        levels.parts.append(part)
        hu, _ = part.organ.drawn(levels.phase, self._seed)
        person.wanted = np.append(person.wanted, np.float32(hu))
        person.shifts = np.append(person.shifts, np.float32(hu - levels.centers[part.tissue]))
        self._known[part.label, part.tissue] = len(levels.parts)
        return len(levels.parts)
