"""The fusion of planes: jumps between slices vanish, anatomy stays."""

import numpy as np
import pytest

from MedGenLib.pipelines.plane_fusion import fill_gaps, fused

SHAPE = (40, 44, 36)
WEIGHTS = {axis: np.ones(n) for axis, n in enumerate(SHAPE)}


@pytest.fixture
def anatomy():
    """Smooth background, and detail of one voxel along every axis."""
    i, j, k = np.indices(SHAPE)
    return (np.sin(i / 7) + np.cos(j / 5) * np.sin(k / 6) + 0.3 * (-1.0) ** (i + j + k)).astype(np.float32)


def with_jumps(anatomy: np.ndarray, axis: int, size: float = 0.5) -> np.ndarray:
    """A translation of the slices across an axis: every slice has a level of its own."""
    level = np.random.default_rng(axis).normal(0, size, SHAPE[axis])
    return anatomy + level.reshape([-1 if a == axis else 1 for a in range(3)]).astype(np.float32)


def test_equal_planes_are_unchanged(anatomy):
    assert np.allclose(fused(dict.fromkeys(range(3), anatomy), WEIGHTS), anatomy, atol=1e-5)


def test_jumps_between_slices_vanish(anatomy):
    planes = {axis: with_jumps(anatomy, axis) for axis in range(3)}
    found, mean = fused(planes, WEIGHTS) - anatomy, np.mean([*planes.values()], axis=0) - anatomy
    for axis in range(3):
        jumps, before = (np.abs(np.diff(error, axis=axis)).mean() for error in (found, mean))
        assert jumps < 0.2 * before
    assert found.std() < 0.5 * mean.std()


def test_slices_that_were_not_translated_have_no_effect(anatomy):
    weights = {axis: values.copy() for axis, values in WEIGHTS.items()}
    planes = {axis: anatomy.copy() for axis in range(3)}
    for axis in range(3):
        weights[axis][:6] = 0
        planes[axis][tuple(slice(0, 6) if a == axis else slice(None) for a in range(3))] = 99.0
    assert np.allclose(fused(planes, weights)[6:, 6:, 6:], anatomy[6:, 6:, 6:], atol=1e-4)


def test_one_plane_is_kept(anatomy):
    plane = with_jumps(anatomy, 2)
    assert np.allclose(fused({2: plane}, {2: np.linspace(0.1, 1, SHAPE[2])}), plane, atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_gaps_are_interpolated_and_nothing_else_changes(axis):
    ramp = np.indices(SHAPE, dtype=np.float32)[axis]
    translated = [3, 5, 8, 9, 20]
    values = np.full(SHAPE, -7, np.float32)
    along, expected = np.moveaxis(values, axis, 0), np.moveaxis(ramp, axis, 0)
    along[translated] = expected[translated]
    fill_gaps(values, axis, translated)
    assert np.allclose(along[3:21], expected[3:21], atol=1e-5)
    assert (along[:3] == -7).all() and (along[21:] == -7).all()
