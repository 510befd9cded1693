"""Resampling: positions are kept, and the way back ends on the input's grid."""

import numpy as np
import pytest
from grids import oblique

from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume


def ramp(geometry):
    """The position along a slanted line, in mm: linear interpolation must keep it exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    points = index @ geometry.affine[:3, :3].T + geometry.origin
    return points @ (0.3, -0.5, 0.8)


@pytest.mark.parametrize("left_handed", [False, True])
def test_positions_are_kept_to_1e_4_mm(left_handed):
    start = Geometry((20, 16, 12), oblique(left_handed=left_handed))
    target = Geometry((5, 4, 3), start.moved((6.3, 5.2, 4.1), (5, 4, 3)).affine)
    result = resample_to(Volume(ramp(start), start.affine), target)
    np.testing.assert_allclose(result.array, ramp(target), atol=1e-4)


def test_there_and_back_ends_on_the_same_grid():
    start = Geometry((24, 20, 10), oblique(left_handed=True))
    volume = Volume(ramp(start).astype(np.float32), start.affine)
    coarse = resample(volume, (1.5, 1.5, 1.5))
    np.testing.assert_allclose(coarse.spacing, 1.5)
    back = resample_to(coarse, volume)
    assert back.geometry.is_close(volume.geometry, tolerance=1e-9)
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(back.array[inner], volume.array[inner], atol=1e-2)
    assert np.abs(back.array - volume.array).max() < 2.0  # no fill value anywhere: all covered


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_single_slice_stays_one(axis, order):
    shape = [16, 12, 14]
    shape[axis] = 1
    volume = Volume(np.random.default_rng(1).random(shape), oblique())
    coarse = resample(volume, (2, 2, 2), order)
    assert coarse.shape[axis] == 1
    assert coarse.spacing[axis] == pytest.approx(volume.spacing[axis])
    back = resample_to(coarse, volume, order)
    assert back.shape == volume.shape
    assert 0.3 < back.array.mean() < 0.7


def test_labels_stay_labels():
    array = np.zeros((12, 12, 12), np.uint16)
    array[:6], array[6:] = 3, 515
    labels = LabelMap(array, oblique(), {3: "cortex", 515: "bone"})
    coarse = resample(labels, (2, 2, 2))
    assert coarse.array.dtype == np.uint16 and coarse.values() == [3, 515]
    assert coarse.names == labels.names


def test_the_same_grid_returns_the_same_voxels():
    volume = Volume(np.random.default_rng(2).random((5, 6, 7)), oblique())
    np.testing.assert_array_equal(resample(volume, volume.spacing).array, volume.array)


def test_outside_is_filled():
    volume = Volume(np.full((4, 4, 4), 5.0), np.eye(4))
    far = Geometry((2, 2, 2), volume.geometry.moved((50, 0, 0), (2, 2, 2)).affine)
    assert (resample_to(volume, far, fill=-1000).array == -1000).all()
    assert (resample_to(volume, far).array == 5).all()


def test_coarser_voxels_average_instead_of_aliasing():
    stripes = np.zeros((32, 8, 8))
    stripes[::2] = 1.0
    coarse = resample(Volume(stripes, np.eye(4)), (4, 1, 1))
    assert np.abs(coarse.array[2:-2] - 0.5).max() < 0.1


def test_a_spacing_of_zero_is_refused():
    with pytest.raises(InputError, match="above 0"):
        resample(Volume(np.zeros((4, 4, 4)), np.eye(4)), (0, 1, 1))
