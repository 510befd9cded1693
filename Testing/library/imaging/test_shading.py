"""Shading of MR images: measured in images of several tissues, the same at the same place on every grid."""

import numpy as np
import pytest

from MedGenLib.imaging import shading
from MedGenLib.imaging.volume import LabelMap, crop

COEFFICIENTS = (0.2, 0.1, -0.15, -0.3, -0.8, 0.1, -0.1, -0.7, 0.05, -0.9)
LEVELS = (0.0, 110.0, 70.0, 30.0)
OBLIQUE = np.array([[0.8, -0.6, 0, -60], [0.6, 0.8, 0, -80], [0, 0, 1, -70], [0, 0, 0, 1]]) @ np.diag(
    [1.2, 1.6, 2.4, 1]
)


def tissues(shape=(60, 70, 40), affine=OBLIQUE):
    """Ellipsoids of tissue 1 in tissue 2 in tissue 3, on the right larger than on the left."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2) + 0.1 * x
    layers = np.digitize(-radius, (-0.95, -0.8, -0.6))
    return LabelMap(np.where(layers > 0, 4 - layers, 0).astype(np.uint8), affine)


def image(labels, coefficients=COEFFICIENTS, noise=0.02):
    shade = shading.Shading.about(labels, coefficients, 1)
    random = np.random.default_rng(0).normal(1, noise, labels.shape)
    return np.array(LEVELS)[labels.array] * shade.over(labels) * random


@pytest.mark.parametrize("affine", [np.diag([1.2, 1.2, 1.2, 1.0]), OBLIQUE])
def test_the_shading_of_an_image_is_measured(affine):
    labels = tissues(affine=affine)
    found = shading.measured(image(labels), labels, 1, (2, 3))
    given = shading.Shading.about(labels, COEFFICIENTS, 1).over(labels)
    inside = labels.array > 0
    assert np.median(found.over(labels)[labels.array == 1]) == pytest.approx(1, abs=0.002)
    given = given / np.median(given[labels.array == 1])
    assert np.abs(found.over(labels) / given - 1)[inside].max() < 0.02


def test_lesions_hardly_change_the_measured_shading():
    labels = tissues()
    plain = image(labels)
    bright = plain.copy()
    bright[26:34, 26:40, 18:24] *= 2
    one, other = (shading.measured(values, labels, 1, (2, 3)).over(labels) for values in (plain, bright))
    assert np.abs(one / other - 1)[labels.array > 0].max() < 0.01


def test_an_even_image_has_the_factor_one():
    labels = tissues()
    found = shading.measured(image(labels, [0] * 10), labels, 1, (2, 3))
    assert np.abs(found.over(labels) - 1)[labels.array > 0].max() < 0.01


def test_too_little_tissue_has_no_shading():
    labels = tissues((14, 14, 8))
    assert shading.measured(image(labels), labels, 1, (2, 3)) is None
    assert shading.measured(image(tissues()), tissues(), 9, (2, 3)) is None


def test_the_factor_is_that_of_the_place_on_every_grid_and_in_every_box():
    labels = tissues()
    shade = shading.Shading.about(labels, COEFFICIENTS, 1)
    whole = shade.over(labels)
    assert shade.ratio(labels) == pytest.approx(whole[labels.array > 0].max() / whole[labels.array > 0].min(), rel=0.01)
    box = (slice(7, 21), slice(30, 31), slice(2, 40))
    assert np.array_equal(shade.factor(labels.geometry, box), whole[box])
    # The same space with reversed and exchanged axes.
    turned = np.flip(labels.array, 0).transpose(2, 0, 1)
    affine = OBLIQUE @ np.array([[0, -1, 0, 59], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    assert np.allclose(shade.over(LabelMap(turned, affine)), np.flip(whole, 0).transpose(2, 0, 1), rtol=1e-5)


def test_a_part_of_a_head_keeps_the_level_of_its_tissues():
    labels = tissues()
    part = crop(labels, (20, 20, 10), (50, 40, 30))
    for mask in (labels, part):
        shade = shading.Shading.about(mask, COEFFICIENTS, 1).over(mask)
        assert np.median(shade[mask.array == 1]) == pytest.approx(1, abs=0.005)
        assert shade.max() > 1.05
    without = part.with_array(np.where(part.array > 0, 2, 0).astype(np.uint8))
    assert np.median(shading.Shading.about(without, COEFFICIENTS, 1).over(without)[without.array > 0]) == pytest.approx(
        1, abs=0.005
    )
