"""Encoding of voxels as 16-bit integers for DICOM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedGenLib.errors import InputError

_INT16, _UINT16 = np.iinfo(np.int16), np.iinfo(np.uint16)
_FINE_ENOUGH = 1000.0
"""Smallest range of arbitrary units that is rounded to integers; a smaller range is scaled up."""


@dataclass(frozen=True)
class Encoding:
    """Linear encoding of voxels: value = stored x slope + intercept.

    Attributes
    ----------
    dtype: numpy's int16 or uint16.
    slope, intercept: rescale slope and intercept, in the volume's unit; with 1 and 0 the stored
        integers are the values.
    """

    dtype: type
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def of(cls, array: np.ndarray, modality: str) -> Encoding:
        """Encoding with the least loss for an array of the modality "CT" or "MR".

        HU, integers and values with a large range are rounded to integers if 16 bits hold them.
        All others are scaled to 16 bits with slope and intercept; readers apply these to MR as
        well, although only the CT Image module defines them.

        Raises
        ------
        InputError: the range of values is not finite, or too large for 64-bit numbers.
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
        """Whether the stored integers are the values."""
        return self.slope == 1 and self.intercept == 0

    def store(self, array: np.ndarray) -> np.ndarray:
        """Stored integers of an array, each the nearest to its value."""
        if self.is_plain:
            return np.round(array).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        stored = np.round((array.astype(np.float64) - self.intercept) / self.slope)
        return stored.clip(limits.min, limits.max).astype(self.dtype)

    def restore(self, stored: np.ndarray) -> np.ndarray:
        """Values that readers compute from stored integers, float32."""
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
