"""How well probabilities of classes agree with the truth: ranks, calibration, and intervals over people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
BINS = 10


def auc(shares: NDArray, truth: NDArray) -> float | None:
    """Area under the ROC: probability that a case of the class has a higher share than another; None without both."""
    from scipy.stats import rankdata

    truth = truth.astype(bool)
    ones, zeros = int(truth.sum()), int((~truth).sum())
    if not ones or not zeros:
        return None
    return float((rankdata(shares)[truth].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def interval(measure: Callable[[NDArray], float | None], people: NDArray, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of a measure of cases (their numbers), by bootstrap over people; None if it is seldom defined."""
    rng = np.random.default_rng(seed)
    cases = [np.flatnonzero(people == person) for person in np.unique(people)]
    draws = (np.concatenate([cases[n] for n in rng.integers(len(cases), size=len(cases))]) for _ in range(RESAMPLES))
    values = [value for chosen in draws if (value := measure(chosen)) is not None]
    if len(values) < RESAMPLES / 2:
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """Exact 95 % interval of a proportion (Clopper and Pearson, Biometrika 1934), which covers at least as often.

    >>> [round(bound, 4) for bound in exact_interval(8, 10)]
    [0.4439, 0.9748]
    """
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


def reliability(shares: NDArray, right: NDArray) -> list[tuple[float, float, int]]:
    """For each bin of probabilities that has cases: mean probability, share of cases that are right, and cases."""
    which = np.minimum((shares * BINS).astype(int), BINS - 1)
    return [
        (float(shares[which == n].mean()), float(right[which == n].mean()), int((which == n).sum()))
        for n in np.unique(which)
    ]


def calibration_error(shares: NDArray, right: NDArray) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599): mean gap of `reliability` over the cases."""
    return sum(abs(said - seen) * count for said, seen, count in reliability(shares, right)) / len(shares)


def fitted_temperature(losses: Callable[[float], NDArray]) -> float:
    """The temperature between 0.05 and 20 of the lowest mean loss, or one nearer to 1 that may be as good.

    `losses` are those of the cases at a temperature. A few cases do not show that scores have to change: of all
    temperatures whose loss is within a standard error of the lowest one, the one nearest to 1 is taken.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda power: losses(np.exp(power)).mean(), bounds=np.log((0.05, 20)), method="bounded")
    least = losses(np.exp(found.x))
    for power in np.linspace(0, found.x, 50):
        more = losses(np.exp(power)) - least
        if more.mean() <= more.std() / np.sqrt(len(more)):
            return float(np.exp(power))
    return float(np.exp(found.x))
