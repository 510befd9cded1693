"""Texture of an image: noise and smoothness, independent of its unit."""

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.imaging.texture import texture

SHAPE = (35, 50, 36)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, SHAPE)


def anatomy() -> np.ndarray:
    return 4 * ndimage.gaussian_filter(noise(5), 5) / 0.02


def test_offset_changes_the_contrast_only():
    image = 300 + 40 * noise()
    first, second = texture(image), texture(2 * image + 100)
    np.testing.assert_allclose(first[:5], second[:5], atol=1e-6)
    assert first[5] == pytest.approx(40 / 300, rel=0.02)
    assert second[5] == pytest.approx(80 / 700, rel=0.02)


def test_white_noise_has_the_correlation_of_its_high_pass():
    """(delta - g) * (delta - g), with the discrete Gaussian g of sigma 1."""
    kernel = np.zeros((15, 15, 15))
    kernel[7, 7, 7] = 1
    kernel -= ndimage.gaussian_filter(kernel, 1.0)
    wanted = (kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum()
    np.testing.assert_allclose(texture(noise())[1:4], wanted, atol=0.015)


@pytest.mark.parametrize("axis", range(3))
def test_smoothing_along_an_axis_is_seen_along_it(axis):
    plain, smooth = texture(noise()), texture(ndimage.gaussian_filter1d(noise(), 0.7, axis))
    change = (smooth - plain)[1:4]
    assert change.argmax() == axis
    assert change[axis] > 0.2


def test_more_noise_is_more_fine_detail():
    structure = anatomy()
    detail = [texture(structure + level * noise())[0] for level in (0.1, 1, 4)]
    assert detail == sorted(detail) and detail[2] - detail[0] > 1


def test_bright_spots_are_skewed():
    assert texture(np.exp(noise()))[4] > 0.8
    assert texture(-np.exp(noise()))[4] < -0.8


def test_an_axis_of_one_voxel_has_no_smoothness():
    found = texture(noise()[:, :, :1])
    assert np.isnan(found).tolist() == [False, False, False, True, False, False]
