"""Bias fields: strength, smoothness and seed."""

from __future__ import annotations

import numpy as np
import pytest

from MedGenLib.degradation.bias import bias_field


def field(seed: int = 0, shape: tuple[int, ...] = (40, 30, 24), **options: float) -> np.ndarray:
    return bias_field(shape, np.random.default_rng(seed), **options)


def test_the_strength_is_the_deviation_of_the_logarithm():
    for strength in (0.05, 0.4):
        factor = field(strength=strength)
        assert factor.dtype == np.float32 and factor.shape == (40, 30, 24)
        assert np.log(factor).std() == pytest.approx(strength, rel=1e-4)
        assert np.log(factor).mean() == pytest.approx(0, abs=1e-5)
    weak = field(strength=0.05)
    assert weak.std() / weak.mean() == pytest.approx(0.05, rel=0.02)
    assert (field(strength=0) == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_four_knots_make_a_polynomial_of_degree_3(axis):
    lines = np.moveaxis(np.log(field().astype(float)), axis, 0)
    lines = lines.reshape(len(lines), -1)
    place = np.linspace(-1, 1, len(lines))

    def rest(degree: int, lines: np.ndarray = lines) -> float:
        fitted = np.polynomial.polynomial.polyfit(place, lines, degree)
        return np.abs(np.polynomial.polynomial.polyval(place, fitted).T - lines).max()

    assert rest(3) < 1e-5 < 1e-2 < rest(2)


def test_the_seed_decides_and_one_slice_is_enough():
    assert np.array_equal(field(3), field(3)) and not np.array_equal(field(3), field(4))
    flat = field(shape=(20, 20, 1))
    assert np.log(flat).std() == pytest.approx(0.2, rel=1e-4)
