"""Measures of probabilities of classes, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from MedGenLib.metrics.classification import auc, calibration_error, fitted_temperature, interval, reliability


def test_auc_is_the_share_of_ordered_pairs():
    shares, truth = np.array([0.1, 0.4, 0.35, 0.8, 0.4]), np.array([0, 0, 1, 1, 1])
    pairs = [(a > b) + (a == b) / 2 for a in shares[truth == 1] for b in shares[truth == 0]]
    assert auc(shares, truth) == pytest.approx(np.mean(pairs))
    assert auc(shares, np.ones(5)) is None


def test_intervals_resample_people_not_images():
    """Copies of the images of a person add nothing to what is known."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    once = interval(lambda n: float(values[n].mean()), np.arange(40))
    copied, people = np.repeat(values, 5), np.repeat(np.arange(40), 5)
    again = interval(lambda n: float(copied[n].mean()), people)
    assert again == pytest.approx(once)
    assert once[1] - once[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.1)


def test_calibration():
    shares = np.array([0.95, 0.95, 0.95, 0.95, 0.65, 0.65])
    right = np.array([True, True, True, False, True, False])
    assert reliability(shares, right) == [(0.65, 0.5, 2), (pytest.approx(0.95), 0.75, 4)]
    assert calibration_error(shares, right) == pytest.approx((0.15 * 2 + 0.2 * 4) / 6)


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, 40_000)
    truth = rng.random(40_000) < 1 / (1 + np.exp(-scores))

    def losses(temperature: float, cases: int = 40_000, factor: float = 3) -> np.ndarray:
        return np.logaddexp(0, np.where(truth, -1, 1) * factor * scores / temperature)[:cases]

    assert fitted_temperature(losses) == pytest.approx(3, rel=0.1)
    few = fitted_temperature(lambda t: losses(t, 12))
    assert 1 <= few < 3  # less is changed where less is known
    assert fitted_temperature(lambda t: losses(t, 12, 1.1)) == 1
