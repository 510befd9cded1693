"""Statistics of a reader study. "Signal" is a synthetic image, "noise" a real one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
Interval = tuple[float, float]


def mid_p_interval(successes: int, trials: int) -> Interval:
    """The exact interval with half the probability of the result itself (Lancaster, JASA 1961).

    It is shorter than the exact one; its coverage is 95 % on average, not at least (see Agresti and Gottard,
    Computational Statistics & Data Analysis 2007).
    """
    from scipy.optimize import brentq
    from scipy.stats import binom

    tail = (1 - CONFIDENCE) / 2

    def below(p: float) -> float:
        """Probability of fewer successes plus half of that of as many, minus the tail."""
        return binom.cdf(successes, trials, p) - binom.pmf(successes, trials, p) / 2 - tail

    def above(p: float) -> float:
        return 1 - binom.cdf(successes, trials, p) + binom.pmf(successes, trials, p) / 2 - tail

    low = brentq(above, 0, 1) if successes else 0.0
    high = brentq(below, 0, 1) if successes < trials else 1.0
    return float(low), float(high)


def chance_probability(successes: int, trials: int) -> float:
    """Two-sided exact probability of a result as far from one half by guessing alone."""
    from scipy.stats import binomtest

    return float(binomtest(successes, trials, 0.5).pvalue)


def d_prime(hits: int, signals: int, false_alarms: int, noises: int) -> float:
    """z(hit rate) - z(false alarm rate), with the log-linear correction.

    0.5 is added to the hits and the false alarms and 1 to the numbers of images, so that
    rates of 0 and 1 stay finite (Hautus, Behavior Research Methods 1995).
    """
    from scipy.stats import norm

    rates = (hits + 0.5) / (signals + 1), (false_alarms + 0.5) / (noises + 1)
    return float(norm.ppf(rates[0]) - norm.ppf(rates[1]))


def auc(signal: ArrayLike, noise: ArrayLike) -> float:
    """Probability that a signal is rated above a noise; ties count half."""
    signal, noise = np.asarray(signal)[:, None], np.asarray(noise)[None]
    return float(np.mean((signal > noise) + (signal == noise) / 2))


def auc_interval(value: float, signals: int, noises: int) -> Interval:
    """Interval of an AUC by method 5 of Newcombe (Statistics in Medicine 2006, part 2).

    The variance is that of Hanley and McNeil at the bound instead of the estimate, with the mean of both numbers of
    images in place of each; the interval stays within 0..1 and has a width even for an AUC of 1.
    """
    low = _auc_bound(value, signals, noises)
    return low, 1 - _auc_bound(1 - value, signals, noises)


def _auc_bound(value: float, signals: int, noises: int) -> float:
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf((1 + CONFIDENCE) / 2)
    more = (signals + noises) / 2 - 1

    def gap(bound: float) -> float:
        pairs = 1 + more * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        return value - bound - z * math.sqrt(bound * (1 - bound) * pairs / (signals * noises))

    top = min(value, 1 - 1e-9)
    return float(brentq(gap, 0, top)) if value > 0 else 0.0


def roc(signal: ArrayLike, noise: ArrayLike) -> tuple[NDArray, NDArray]:
    """The empirical ROC: false- and true-positive rates from (0, 0) to (1, 1), one point per rating."""
    signal, noise = np.asarray(signal), np.asarray(noise)
    limits = np.unique(np.concatenate([signal, noise]))[::-1]
    rates = [[np.mean(part >= limit) for limit in limits] for part in (noise, signal)]
    return np.array([0.0, *rates[0]]), np.array([0.0, *rates[1]])


def fleiss_kappa(counts: ArrayLike) -> float | None:
    """Agreement of readers beyond chance (Fleiss, Psychological Bulletin 1971).

    Parameters
    ----------
    counts: (items, categories), number of readers per category; all rows have the same sum, at least 2.

    Returns
    -------
    1 for full agreement, 0 for chance; None if all answers are the same.
    """
    counts = np.asarray(counts, float)
    readers = counts[0].sum()
    agreement = ((counts**2).sum(1) - readers) / (readers * (readers - 1))
    chance = float((counts.sum(0) / counts.sum()) @ (counts.sum(0) / counts.sum()))
    if chance == 1:
        return None
    return float((agreement.mean() - chance) / (1 - chance))


def over_images(values: NDArray, groups: Sequence[bool], draws: int = 2000, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of a mean over images, resampled within each group.

    Whole images are resampled, as the answers of several readers to one image are not independent.

    Parameters
    ----------
    values: (images, 2): sum of the averaged quantity, and number of answers.
    groups: whether each image is synthetic.
    """
    dice = np.random.default_rng(seed)
    totals = np.zeros((draws, 2))
    for group in (False, True):
        part = values[np.asarray(groups) == group]
        if len(part):
            totals += dice.multinomial(len(part), np.full(len(part), 1 / len(part)), draws) @ part
    means = totals[:, 0] / np.maximum(totals[:, 1], 1)
    low, high = np.percentile(means, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
