"""Measures as CSV and JSON text, and summary statistics."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_CONFIDENCE = 0.95


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with the keys of all rows as columns, in order of first use; None is empty.

    >>> print(csv_text([{"case": "a", "mae": 1.5}, {"case": "b", "error": "no reference"}]))
    case,mae,error
    a,1.5,
    b,,no reference
    <BLANKLINE>
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def json_text(data: Any) -> str:
    """Indented JSON; numbers that are not finite become null."""
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Summary:
    """Summary statistics, in the unit of the values.

    Attributes
    ----------
    count: cases with a value.
    sd: standard deviation (n - 1); None for one case, as are `low` and `high`.
    low, high: 95 % confidence interval of the mean by Student's t, assuming independent cases and a normally
        distributed mean.
    """

    count: int
    mean: float
    sd: float | None
    median: float
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Summary of one or more values."""
    array = np.asarray(values, np.float64)
    count, mean, median = len(array), float(array.mean()), float(np.median(array))
    if count < 2:
        return Summary(count, mean, None, median, None, None)
    from scipy.stats import t

    sd = float(array.std(ddof=1))
    reach = float(t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * sd / math.sqrt(count)
    return Summary(count, mean, sd, median, mean - reach, mean + reach)


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
