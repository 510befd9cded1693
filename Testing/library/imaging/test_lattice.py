"""A mask on the lattice of an image is extended voxel by voxel, in any order of its axes."""

from itertools import product

import numpy as np
import pytest
from grids import oblique

from MedGenLib.imaging.lattice import extended, placed
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Geometry, LabelMap, crop, pad

SHAPE = (14, 12, 10)


@pytest.fixture
def whole():
    array = np.random.default_rng(0).integers(1, 5, SHAPE).astype(np.uint8)
    return LabelMap(array, oblique(), {1: "fat"})


def turned(mask, orientation):
    """The same voxels stored in another order."""
    reorientation = Reorientation.to(mask.geometry, orientation)
    stored = np.eye(4)[:, [*reorientation.order, 3]]
    for axis in reorientation.flips:
        stored[reorientation.order[axis], 3] = mask.shape[reorientation.order[axis]] - 1
        stored[reorientation.order[axis], axis] = -1
    return LabelMap(reorientation.apply(mask.array), mask.affine @ stored, mask.names)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIR"])
@pytest.mark.parametrize("low, high", [((2, 3, 1), (9, 10, 8)), ((0, 0, 0), SHAPE), ((5, 5, 5), (6, 6, 6))])
def test_a_crop_in_any_order_comes_back(whole, orientation, low, high):
    part = turned(crop(whole, low, high), orientation)
    found, box = placed(part, whole.geometry)
    assert box == tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    expected = np.zeros(SHAPE, np.uint8)
    expected[box] = whole.array[box]
    assert np.array_equal(found.array, expected) and np.array_equal(found.affine, whole.affine)
    assert found.names == whole.names
    assert any("taken as unlabeled" in note for note in found.notes) == (high != SHAPE)


def test_a_larger_mask_is_cut(whole):
    found, box = placed(pad(whole, (1, 2, 3), (3, 2, 1), 4), whole.geometry)
    assert np.array_equal(found.array, whole.array) and found.notes == ()
    assert box == tuple(slice(0, n) for n in SHAPE)


@pytest.mark.parametrize("shift", [(0.5, 0, 0), (0, 0.2, 0), (20, 0, 0)])
def test_another_lattice_or_place_is_not_touched(whole, shift):
    part = crop(whole, (2, 2, 2), (9, 9, 9))
    affine = part.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ shift
    moved = LabelMap(part.array, affine)
    assert placed(moved, whole.geometry) is None and extended(moved, whole.geometry) is moved


def test_other_voxel_sizes_and_turns_are_not_touched(whole):
    for scale, angle in product((1.0, 1.02), (0.0, 0.02)):
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ whole.affine @ np.diag([scale, scale, scale, 1.0])
        found = placed(LabelMap(whole.array, affine), whole.geometry)
        assert (found is not None) == (scale == 1 and angle == 0)


def test_rounded_cosines_are_the_same_lattice(whole):
    affine = whole.affine.copy()
    affine[:3, :3] = affine[:3, :3].round(4)
    part = crop(LabelMap(whole.array, affine), (1, 1, 1), (8, 8, 8))
    assert placed(part, Geometry(SHAPE, whole.affine)) is not None
