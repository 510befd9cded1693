"""Reorientation of an array so that its axes point along given anatomical directions, and back. Exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedGenLib.imaging.volume import Geometry

_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


@dataclass(frozen=True)
class Reorientation:
    """Axis permutation and flips between a stored array and a wanted orientation."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]

    @classmethod
    def to(cls, geometry: Geometry, orientation: str) -> Reorientation:
        """The reorientation that brings an array of this geometry nearest to ``orientation`` ("RAS" ...).

        No voxel is interpolated: an oblique volume keeps its own, rotated axes.
        """
        order, flips = [], []
        for axis, wanted in enumerate(orientation):
            for stored, letter in enumerate(geometry.orientation):
                if letter in (wanted, _OPPOSITE[wanted]):
                    order.append(stored)
                    if letter != wanted:
                        flips.append(axis)
        return cls(tuple(order), tuple(flips))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Stored (i, j, k) -> reoriented, a contiguous copy."""
        return np.ascontiguousarray(np.flip(array.transpose(self.order), self.flips))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Reoriented -> stored (i, j, k)."""
        back = np.argsort(self.order)
        return np.ascontiguousarray(np.flip(array, self.flips).transpose(back))

    def axes(self, values: tuple) -> tuple:
        """Values per stored axis (spacing ...) -> per reoriented axis."""
        return tuple(values[axis] for axis in self.order)
