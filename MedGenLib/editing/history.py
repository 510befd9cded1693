"""The history of a canvas: steps that can be undone, and states that are found again by their mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import NOWHERE, Box

MOST_BYTES = 512 * 2**20
"""Memory of a history; the oldest steps beyond it are dropped."""


@dataclass(frozen=True)
class Change:
    """What an edit changed.

    Attributes
    ----------
    box: the part of the image that was written.
    changed: voxels of the mask that changed.
    beyond: voxels of the image with another value although their label is the same.
    farthest: largest difference among these, in the unit of the image.
    findings: what the user should know.
    """

    box: Box = NOWHERE
    changed: int = 0
    beyond: int = 0
    farthest: float = 0.0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class HistoryStep:
    """One change: which array was written where, with the values before and after it.

    Attributes
    ----------
    parts: (name of the array, index, before, after) in the order of writing.
    box: the part of the image that changed.
    changed: voxels of the mask that changed.
    """

    parts: list[tuple[str, Any, NDArray, NDArray]]
    box: Box
    changed: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(before.nbytes + after.nbytes for *_, before, after in self.parts)


class History:
    """Steps in their order, the current place among them, and a key of the mask at every state.

    The key is a Zobrist hash, updated with each voxel that changes: state n has key n, and step n
    leads from state n to n + 1.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.steps: list[HistoryStep] = []
        self.keys: list[int] = [0]
        self.place = 0
        self._most_bytes = most_bytes

    @property
    def key(self) -> int:
        """Key of the current mask."""
        return self.keys[self.place]

    def key_after(self, index: NDArray, before: NDArray, after: NDArray) -> int:
        """Key of the mask after the labels of voxels (flat indices in any order) have changed."""
        mixed = _mixed(index, before) ^ _mixed(index, after)
        return self.key ^ int(np.bitwise_xor.reduce(mixed, initial=0))

    def find(self, key: int) -> int | None:
        """The state with a key, the latest one before the current state if there are several; None without any."""
        for state in (*range(self.place - 1, -1, -1), *range(self.place + 1, len(self.keys))):
            if self.keys[state] == key:
                return state
        return None

    def add(self, step: HistoryStep, key: int) -> None:
        """Add a step made from the current state; undone steps are dropped."""
        del self.steps[self.place :], self.keys[self.place + 1 :]
        self.steps.append(step)
        self.keys.append(key)
        self.place += 1
        size = sum(step.size for step in self.steps)
        while size > self._most_bytes and len(self.steps) > 1:
            size -= self.steps.pop(0).size
            self.keys.pop(0)
            self.place -= 1


def _mixed(index: NDArray, label: NDArray) -> NDArray[np.uint64]:
    """A 64-bit hash of index and label (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = x + (label.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))
