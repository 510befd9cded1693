"""Blocks of the mask of a canvas in the labels of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.labels.mapping import map_labels, mapped_colors

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


class MaskReader:
    """Maps the numbers of the mask that a canvas was made with to the labels of the model.

    Parameters
    ----------
    mapping: as of `MedGenLib.generate`.
    names: of the mask's numbers.
    rest: labels of the model for voxels without a label, on the grid; None leaves them without.
    """

    def __init__(
        self, manifest: Manifest, mapping: Any, names: dict[int, str], rest: NDArray[np.uint8] | None = None
    ) -> None:
        self._vocabulary = manifest.input.vocabulary
        self._mapping, self._names, self._rest = mapping, dict(names), rest
        self._known = {0: 0}

    @property
    def names(self) -> Mapping[int, str]:
        """Names of the numbers of the mask, with those that edits brought."""
        return self._names

    def value_of(self, label: int | str) -> int:
        """The label of the model with a number or name."""
        value = self._vocabulary.value_of(label)
        if value is None:
            raise InputError(f"The model has no label '{label}'; it knows {self._vocabulary} and 0 background.")
        return value

    def number_of(self, label: int | str) -> int:
        """A number of the mask for a label of the model: that of the label where the mask does not use it otherwise."""
        value = self.value_of(label)
        numbers = [number for number, target in self._known.items() if target == value]
        if not numbers:
            taken = value in self._known or value in self._names
            number = max(*self._known, *self._names, 0) + 1 if taken else value
            self._known[number] = value
            return number
        return value if value in numbers else numbers[0]

    def read(self, block: NDArray, box: Box, names: dict[int, str] | None = None) -> NDArray:
        """A block of the mask in the labels of the model, uint8.

        Raises
        ------
        InputError: numbers without a label of the model, or names that give a number another meaning than before.
        """
        values, numbers = np.unique(block, return_inverse=True)
        self.learn(values, names)
        targets = np.array([self._known[int(value)] for value in values], np.uint8)
        labels = targets[numbers].reshape(block.shape)
        return labels if self._rest is None else np.where(labels == 0, self._rest[box], labels)

    def colors_of(self, colors: Mapping[int, str]) -> dict[int, str]:
        """Colors of the mask's numbers as those of the model's labels."""
        return mapped_colors(colors, self._known)

    def learn(self, values: Iterable[int], names: dict[int, str] | None = None) -> None:
        """Map numbers that are new; raises as `read` does."""
        if names:
            self._require_same_meaning({int(v) for v in values} & self._known.keys(), names)
        new = [int(value) for value in values if int(value) not in self._known]
        if not new:
            return
        line = LabelMap(np.array(new).reshape(-1, 1, 1), np.eye(4), names or self._names)
        found = map_labels(line, self._vocabulary, self._mapping)[1].mapped
        self._known |= {value: found.get(value, 0) for value in new}
        self._names |= {value: name for value, name in line.names.items() if value in new}

    def _require_same_meaning(self, values: set[int], names: dict[int, str]) -> None:
        """Another program may have renumbered its segments; meaningless names are no contradiction."""
        stated = {v: names[v] for v in values if v and names.get(v, "") != self._names.get(v, "")}
        if not stated:
            return
        line = LabelMap(np.array(list(stated)).reshape(-1, 1, 1), np.eye(4), stated)
        found = map_labels(line, self._vocabulary, self._mapping, strict=False)[1].mapped
        for value, target in found.items():
            if value in stated and target != self._known[value]:
                labels = {0: "background", **self._vocabulary.names}
                raise InputError(
                    f"The number {value} is '{stated[value]}' in the new mask, but the first mask "
                    f"uses it for {labels[self._known[value]]}; give both the same numbers."
                )
