"""Free-response ROC: lesions found against false positives a volume, over all thresholds of the score.

Matching, for masks, as in LUNA16 (Setio et al. 2017, Medical Image Analysis 42), which takes a sphere for the lesion: a
candidate whose position lies inside a lesion hits it, any other one is a false positive; further hits of a lesion count
as neither. The intervals resample cases (Efron and Tibshirani 1993), since candidates of one case depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.metrics.classification import exact_interval, interval

RATE = 1.0
"""False positives a volume at which a single figure is stated."""


@dataclass(frozen=True)
class Hits:
    """Candidates of one case.

    Attributes
    ----------
    scores: of the candidates; hit: number of the lesion that each hits, 0 for none.
    lesions: how many lesions the case has.
    """

    scores: tuple[float, ...]
    hit: tuple[int, ...]
    lesions: int


def curve(cases: Sequence[Hits]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Threshold, false positives a volume and sensitivity, from the highest threshold on; NaN without a lesion."""
    best: dict[tuple[int, int], float] = {}
    false: list[float] = []
    for number, case in enumerate(cases):
        for score, hit in zip(case.scores, case.hit, strict=True):
            if hit:
                best[number, hit] = max(score, best.get((number, hit), -np.inf))
            else:
                false.append(score)
    thresholds = np.array([np.inf, *sorted({*best.values(), *false}, reverse=True)])
    found = [len(ones) - np.searchsorted(np.sort(ones), thresholds) for ones in (false, list(best.values()))]
    lesions = sum(case.lesions for case in cases)
    return thresholds, found[0] / len(cases), found[1] / lesions if lesions else np.full(len(thresholds), np.nan)


def sensitivity_at(cases: Sequence[Hits], rate: float = RATE) -> float | None:
    """The highest sensitivity at no more than `rate` false positives a volume; None without a lesion."""
    _, false, sensitivity = curve(cases)
    value = float(sensitivity[false <= rate].max())
    return None if np.isnan(value) else value


def with_interval(cases: Sequence[Hits], rate: float = RATE) -> tuple[float | None, tuple[float, float] | None]:
    """The same with its 95 % interval over the cases, see `_widened`."""
    value = sensitivity_at(cases, rate)
    limits = interval(lambda chosen: sensitivity_at([cases[n] for n in chosen], rate), np.arange(len(cases)))
    return value, _widened(value, limits, cases, least=0)


def difference(one: Sequence[Hits], two: Sequence[Hits], rate: float = RATE) -> tuple[float, tuple[float, float]]:
    """How much more sensitive the second detector is on the same cases, with the 95 % interval of pairs of cases."""

    def gain(chosen: NDArray) -> float | None:
        values = [sensitivity_at([cases[n] for n in chosen], rate) for cases in (one, two)]
        return None if None in values else values[1] - values[0]

    value, limits = gain(np.arange(len(one))), interval(gain, np.arange(len(one)))
    return value, _widened(value, limits, one, least=-1)


def _widened(
    value: float | None, limits: tuple[float, float] | None, cases: Sequence[Hits], least: float
) -> tuple[float, float] | None:
    """The interval of a value from ``least`` to 1.

    If all resamples agree, a share of the cases with lesions could have any other value: the largest share of which as
    many cases may show none, by the exact interval. Where all lesions are found, that is the exact interval of 1.
    """
    settled = value in (least, 1) or (limits is not None and limits[0] == limits[1])
    if value is None or not settled:
        return limits
    other = exact_interval(0, sum(case.lesions > 0 for case in cases))[1]
    return (1 - other) * value + other * least, (1 - other) * value + other


def summary(cases: Sequence[Hits]) -> dict[str, float]:
    """Sensitivity at `RATE` with its interval, for a table of figures; NaN where there is none."""
    value, limits = with_interval(cases)
    names = ("sensitivity", "sensitivity_low", "sensitivity_high")
    return {name: np.nan if x is None else x for name, x in zip(names, (value, *(limits or (None,) * 2)), strict=True)}
