"""The breathing cycle: cos^2n, or the mean cycle of a measured trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError

_SAMPLES = 200
"""Samples of a cycle."""
_PROMINENCE = 0.3
"""Height of a breath in a trace, relative to the range of the trace."""


@dataclass(frozen=True)
class Cycle:
    """One breath from the state of the input on.

    Attributes
    ----------
    level: 0 is the deepest expiration of the cycle, 1 the deepest inspiration.
    """

    level: NDArray[np.float64]

    @classmethod
    def cosine(cls, start: str, dwell: int) -> Cycle:
        """cos^2n, n being ``dwell``: the higher, the longer the lungs stay at expiration."""
        time = np.arange(_SAMPLES) / _SAMPLES + (start == "exhale") / 2
        return cls(np.cos(np.pi * time) ** (2 * dwell))

    @classmethod
    def measured(cls, path: str | Path, start: str) -> Cycle:
        """The mean of the breaths of a CSV file with two columns: time, and position that rises on inspiration.

        Raises
        ------
        InputError: the file cannot be read, or shows no whole breath.
        """
        from scipy.signal import find_peaks

        time, position = _columns(Path(path))
        peaks, _ = find_peaks(position, prominence=max(_PROMINENCE * np.ptp(position), 1e-12))
        if len(peaks) < 2:
            raise InputError(
                f"The trace {path} shows no whole cycle from one deepest inspiration to the next; give a longer one."
            )
        steps = np.arange(_SAMPLES) / _SAMPLES
        cycles = [
            np.interp(time[a] + steps * (time[b] - time[a]), time, position)
            for a, b in zip(peaks[:-1], peaks[1:], strict=True)
        ]
        mean = np.mean(cycles, axis=0)
        level = (mean - mean.min()) / np.ptp(mean)
        return cls(np.roll(level, -int(level.argmin() if start == "exhale" else level.argmax())))

    def steps(self, phases: int, lag: float) -> list[tuple[float, float]]:
        """Rise of the diaphragm and of the chest since the first phase, for each phase.

        Parameters
        ----------
        lag: share of the cycle by which the chest follows the diaphragm, so that points move along loops.
        """
        time = np.arange(phases) / phases
        diaphragm, chest = self._at(time), self._at(time - lag)
        return [(float(diaphragm[0] - d), float(c - chest[0])) for d, c in zip(diaphragm, chest, strict=True)]

    def _at(self, time: NDArray) -> NDArray[np.float64]:
        return np.interp(time, np.arange(_SAMPLES) / _SAMPLES, self.level, period=1.0)


def _columns(path: Path) -> tuple[NDArray, NDArray]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The trace {path} cannot be read; give a CSV file with the columns time, position.") from None
    rows = []
    for number, line in enumerate(lines):
        cells = line.replace(";", ",").replace("\t", ",").split(",")
        try:
            rows.append([float(cell) for cell in cells[:2]])
        except ValueError:
            if number and line.strip():
                raise InputError(
                    f"Line {number + 1} of the trace {path} is no time and position; write two numbers a line."
                ) from None
    table = np.array([row for row in rows if len(row) == 2]).reshape(-1, 2)
    if not (len(table) and np.isfinite(table).all() and (np.diff(table[:, 0]) > 0).all()):
        raise InputError(f"The trace {path} needs times that rise and finite positions; correct it.")
    return table[:, 0], table[:, 1]
