"""Voxels as the 16-bit numbers that DICOM stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedGenLib.errors import InputError

_INT16, _UINT16 = np.iinfo(np.int16), np.iinfo(np.uint16)
_FINE_ENOUGH = 1000.0
"""Numbers in arbitrary units that span as much are rounded to whole ones; less is scaled up."""


@dataclass(frozen=True)
class Encoding:
    """How voxels are stored: value = stored x slope + intercept.

    Attributes
    ----------
    dtype: numpy's int16 or uint16.
    slope, intercept: as the header says them, in the volume's unit; 1 and 0 mean that the stored
        numbers are the values.
    """

    dtype: type
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def of(cls, array: np.ndarray, modality: str) -> Encoding:
        """The encoding of a volume's numbers that loses least.

        HU, whole numbers and numbers of a large span are stored as they are, rounded to whole
        ones, if 16 bits hold them. Everything else is stretched over the 16 bits by slope and
        intercept, which every reader applies to CT and, though only CT's definition has them,
        to MR.

        Raises
        ------
        InputError: no value is finite, or a span that 64-bit numbers cannot hold.
        """
        low, high = float(array.min()), float(array.max())
        whole = np.issubdtype(array.dtype, np.integer) or bool((array == np.round(array)).all())
        if modality == "CT" or whole or high - low >= _FINE_ENOUGH:
            for dtype, limits in ((np.int16, _INT16), (np.uint16, _UINT16)):
                if limits.min <= round(low) and round(high) <= limits.max and (modality != "CT" or dtype is np.int16):
                    return cls(dtype)
        return cls._stretched(low, high)

    @classmethod
    def _stretched(cls, low: float, high: float) -> Encoding:
        from MedGenLib.io.dicom.elements import decimal

        slope = float(decimal((high - low) / (_INT16.max - _INT16.min - 1) or 1.0))
        if not np.isfinite(slope) or slope == 0:
            raise InputError(f"The values from {low:g} to {high:g} cannot be stored in 16 bits; scale the image first.")
        return cls(np.int16, slope, float(decimal(low - slope * _INT16.min)))

    @property
    def is_plain(self) -> bool:
        """Whether the stored numbers are the values."""
        return self.slope == 1 and self.intercept == 0

    def store(self, array: np.ndarray) -> np.ndarray:
        """The numbers to write, each the nearest to its value."""
        if self.is_plain:
            return np.round(array).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        stored = np.round((array.astype(np.float64) - self.intercept) / self.slope)
        return stored.clip(limits.min, limits.max).astype(self.dtype)

    def restore(self, stored: np.ndarray) -> np.ndarray:
        """The values that readers make of stored numbers, float32."""
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
