"""Uncertainty of results as standard deviation of samples, and its calibration against the error.

result = translate("t1.nii.gz", to="CT", uncertainty=True)
calibration = error_correlation(result.uncertainty, compare(result.volume, real_ct))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume, check_finite
from MedGenLib.metrics.compare import Comparison, ImageMeasure, require_same_grid

_MOST_VOXELS = 1_000_000
"""Voxels drawn from a larger region: ranks of more take seconds without a visible effect."""
_PARTS = 10


def spread(volumes: Sequence[Volume]) -> Volume:
    """Voxel-wise standard deviation (n - 1) of samples on one grid, float32 in their unit.

    It is large where the input does not determine the result. Raises InputError for fewer than two samples, or grids
    that differ.
    """
    if len(volumes) < 2:
        raise InputError("The standard deviation needs at least two samples; request more.")
    first = volumes[0]
    if not all(first.geometry.is_close(volume.geometry) for volume in volumes):
        raise InputError("The samples lie on different grids; compare samples of one input.")
    # Welford's algorithm: the samples are never all in memory as floating point.
    mean, squares = np.zeros(first.shape), np.zeros(first.shape)
    for count, volume in enumerate(volumes, start=1):
        step = volume.array - mean
        mean += step / count
        squares += step * (volume.array - mean)
    deviation = np.sqrt(squares / (len(volumes) - 1)).astype(np.float32)
    return Volume(deviation, first.affine, None, first.unit)


@dataclass(frozen=True)
class Bin:
    """A tenth of the region, voxels of similar uncertainty; means in the images' unit."""

    spread: float
    error: float
    voxels: int


@dataclass(frozen=True)
class Calibration:
    """Agreement of an uncertainty with the error.

    Attributes
    ----------
    rows: Spearman, Pearson, AUSE, Ratio, Coverage (see `error_correlation`).
    bins: tenths of the voxels from the lowest to the highest uncertainty, with mean standard deviation and mean
        absolute error.
    note: what was measured.
    """

    rows: tuple[ImageMeasure, ...]
    bins: tuple[Bin, ...]
    note: str

    def value(self, name: str) -> float | None:
        """The value of the row of that name."""
        return next(row.value for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def error_correlation(uncertainty: Volume, comparison: Comparison) -> Calibration:
    """Compare an uncertainty with the error, voxel by voxel in the compared region.

    - Spearman, Pearson: correlation of the uncertainty with the absolute error, by rank and value.
    - AUSE, area under the sparsification error: voxels are removed by decreasing uncertainty, and the
      MAE of the rest is compared with that after removing those of the largest error. The mean
      difference over 0, 10, ... 90 % removed, divided by the whole MAE: 0 is best, and an uninformative
      uncertainty gives that of a random order. Source: Ilg et al., Uncertainty estimates and
      multi-hypotheses networks for optical flow, ECCV 2018, section 4.
    - Ratio: RMS of the error divided by RMS of the uncertainty; a standard deviation is too low where it is above 1.
    - Coverage: share of the voxels whose error is at most the uncertainty; 0.9 for half-widths of such intervals.

    Parameters
    ----------
    uncertainty: standard deviation or half-width in the unit of the images, on the image's grid.

    Raises
    ------
    InputError: another grid, a voxel that is not finite or is negative.
    """
    from scipy import stats

    check_finite(uncertainty, "The uncertainty")
    require_same_grid(("image", comparison.difference), ("uncertainty", uncertainty))
    if uncertainty.array.min() < 0:
        raise InputError(
            "The uncertainty has negative values, so it is neither a deviation nor a half-width; choose the file "
            "that --uncertainty wrote."
        )
    deviation, error, note = _drawn(uncertainty, comparison)
    by_rank = by_value = area = ratio = held = None
    if deviation.min() < deviation.max() and error.min() < error.max():
        by_rank = float(stats.spearmanr(deviation, error).statistic)
        by_value = float(np.corrcoef(deviation, error)[0, 1])
        area = _sparsification(deviation, error)
    if deviation.max() > 0:
        ratio = float(np.sqrt(np.mean(error**2) / np.mean(deviation**2)))
        held = float(np.mean(error <= deviation))
    rows = (
        _row("Spearman", by_rank, "rank correlation of spread and absolute error (1 is best)"),
        _row("Pearson", by_value, "correlation of spread and absolute error (1 is best)"),
        _row("AUSE", area, "area under the sparsification error (0 is best)"),
        _row("Ratio", ratio, "RMS of the error divided by RMS of the uncertainty (1 for a calibrated deviation)"),
        _row("Coverage", held, "share of voxels with an error of at most the uncertainty"),
    )
    return Calibration(rows, _bins(deviation, error), note)


def _drawn(uncertainty: Volume, comparison: Comparison) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Standard deviation and absolute error in the region, of at most `_MOST_VOXELS` voxels."""
    index = comparison.sample(_MOST_VOXELS)
    note = "Measured in the compared region."
    if len(index) < np.count_nonzero(comparison.region):
        note += f" {_MOST_VOXELS} voxels were drawn from it."
    deviation = uncertainty.array.ravel()[index].astype(np.float64)
    error = np.abs(comparison.difference.array.ravel()[index].astype(np.float64))
    return deviation, error, note


def _sparsification(deviation: NDArray, error: NDArray) -> float:
    """Mean difference of both curves over the MAE, independent of the order among equal uncertainties."""
    shuffled = np.random.default_rng(0).permutation(len(error))
    deviation, error = deviation[shuffled], error[shuffled]
    by_uncertainty = error[np.argsort(deviation, kind="stable")]
    kept = [max(1, round(len(error) * (1 - n / _PARTS))) for n in range(_PARTS)]
    gaps = [by_uncertainty[:n].mean() - best[:n].mean() for best in [np.sort(error)] for n in kept]
    return float(np.mean(gaps) / error.mean())


def _bins(deviation: NDArray, error: NDArray) -> tuple[Bin, ...]:
    parts = np.array_split(np.argsort(deviation, kind="stable"), _PARTS)
    return tuple(
        Bin(float(deviation[part].mean()), float(error[part].mean()), len(part)) for part in parts if len(part)
    )


def _row(name: str, value: float | None, description: str) -> ImageMeasure:
    if value is None:
        sentence = f"The {description} is not defined: the spread or the error is the same everywhere."
    else:
        sentence = f"The {description} is {value:.3g}."
    return ImageMeasure(name, value, "", sentence)
