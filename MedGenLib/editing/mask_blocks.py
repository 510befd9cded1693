"""Masks of a client in the model's labels, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.labels.mapping import map_labels

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


class MaskReader:
    """Translates the numbers of the mask that a canvas was made with.

    Parameters
    ----------
    mapping: as `MedGenLib.generate` takes it.
    names: of the mask's numbers.
    fill: the model's label for voxels without one inside of ``body``, a bool array; None and None
        leave them without.

    Raises
    ------
    InputError: the model has no label of that name.
    """

    def __init__(
        self,
        manifest: Manifest,
        mapping: Any,
        names: dict[int, str],
        fill: int | str | None = None,
        body: NDArray[np.bool_] | None = None,
    ) -> None:
        self._vocabulary = manifest.input.vocabulary
        self._mapping, self._names, self._body = mapping, dict(names), body
        self._fill = 0 if fill is None else self.value_of(fill)
        self._known = {0: 0}

    def value_of(self, label: int | str) -> int:
        """The model's label of a number or name."""
        value = self._vocabulary.value_of(label)
        if value is None:
            raise InputError(f"The model has no label '{label}'; it knows {self._vocabulary} and 0 background.")
        return value

    def number_of(self, label: int | str) -> int:
        """A number of the client's for a label of the model: its own where that is not taken."""
        value = self.value_of(label)
        numbers = [number for number, target in self._known.items() if target == value]
        if not numbers:
            taken = value in self._known or value in self._names
            number = max(*self._known, *self._names, 0) + 1 if taken else value
            self._known[number] = value
            return number
        return value if value in numbers else numbers[0]

    def read(self, block: NDArray, box: Box, names: dict[int, str] | None = None) -> NDArray:
        """A block of the client's mask in the model's labels, uint8.

        Raises
        ------
        InputError: numbers that the model does not know, named, with the way out; names that give
            a number another meaning than before.
        """
        values, numbers = np.unique(block, return_inverse=True)
        self.learn(values, names)
        targets = np.array([self._known[int(value)] for value in values], np.uint8)
        labels = targets[numbers].reshape(block.shape)
        if self._body is not None:
            labels[(labels == 0) & self._body[box]] = self._fill
        return labels

    def learn(self, values: Iterable[int], names: dict[int, str] | None = None) -> None:
        """Find out what numbers mean; raises as `read` does."""
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
        """Another program may have numbered its segments anew; names that tell nothing are no
        contradiction."""
        told = {v: names[v] for v in values if v and names.get(v, "") != self._names.get(v, "")}
        if not told:
            return
        line = LabelMap(np.array(list(told)).reshape(-1, 1, 1), np.eye(4), told)
        found = map_labels(line, self._vocabulary, self._mapping, strict=False)[1].mapped
        for value, target in found.items():
            if value in told and target != self._known[value]:
                labels = {0: "background", **self._vocabulary.names}
                raise InputError(
                    f"The number {value} is '{told[value]}' in the new mask, but the first mask "
                    f"uses it for {labels[self._known[value]]}; give both the same numbers."
                )
