"""Stacks on one grid: what they show is kept, in its place, and several stacks show more than one."""

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.degradation.slices import Acquisition, grid_of_thick
from MedGenLib.enhancement.fusion import AxisFit, consistent, fuse
from MedGenLib.enhancement.measures import consistency, noise_of
from MedGenLib.enhancement.stacks import fine_grid, fitted, matched, registered, thick_axes
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Geometry, Volume

OBLIQUE = np.array([[0.96, -0.28, 0.0, 12.0], [0.28, 0.96, 0.0, -30.0], [0.0, 0.0, -1.0, 7.0], [0, 0, 0, 1]])


def structure(shape=(40, 36, 32), seed=0, sigma=1.2) -> np.ndarray:
    """Positive, smooth, of about 100."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return (100 + 30 * values / values.std()).clip(0).astype(np.float32)


def acquired(values, affine, axis, factor=4.0) -> Volume:
    fine = Geometry(values.shape, affine)
    grid = grid_of_thick(fine, axis, factor=factor)
    return Volume(Acquisition(fine, grid).degrade(values), grid.affine, "T1w")


def shift(mm: float) -> np.ndarray:
    """Added to an affine, moves an image along its second axis."""
    return mm * np.outer([0, 1, 0, 0], [0, 0, 0, 1])


def fused(volumes, grid):
    pairs = [fitted(volume, grid, None) for volume in volumes]
    stacks, fits = zip(*pairs, strict=True)
    return fuse(stacks, fits), stacks, fits


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 1.0, 1.0]), OBLIQUE])
def test_a_stack_is_kept_and_further_stacks_show_more(affine):
    truth = structure()
    grid = Geometry(truth.shape, affine)
    volumes = [acquired(truth, affine, axis) for axis in (2, 0, 1)]
    errors = []
    for count in (1, 2, 3):
        fine, stacks, fits = fused(volumes[:count], grid)
        assert max(consistency(fine, stacks, fits)) < 0.004
        errors.append(float(np.abs(fine - truth).mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_flipped_and_exchanged_axes_lie_in_the_same_place():
    truth = structure()
    plain = acquired(truth, np.eye(4), 2)
    turned = Volume(
        plain.array[::-1].transpose(2, 0, 1),
        plain.affine @ np.array([[0, -1, 0, plain.shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
        "T1w",
    )
    grid = Geometry(truth.shape, np.eye(4))
    assert np.abs(fused([plain], grid)[0] - fused([turned], grid)[0]).max() < 1e-3


def test_a_point_stays_where_it_is():
    """No half voxel: the center of mass of a ball, from thick slices of a factor that is not whole."""
    i, j, k = np.indices((40, 40, 40))
    ball = (1000.0 * ((i - 18) ** 2 + (j - 21) ** 2 + (k - 19.5) ** 2 < 40)).astype(np.float32)
    volume = acquired(ball, np.eye(4), 2, factor=3.7)
    grid = fine_grid([volume], 1.0)
    fine = fused([volume], grid)[0]
    place = grid.affine[:3, :3] @ ndimage.center_of_mass(fine) + grid.origin
    assert np.allclose(place, ndimage.center_of_mass(ball), atol=0.1)


def test_voxels_of_the_same_size_stay_where_they_are():
    volume = Volume(structure((20, 22, 8)), np.diag([1.2499999, 1.2500001, 5.0, 1.0]), "T1w")
    grid = fine_grid([volume], 1.25)
    assert grid.shape == (20, 22, 32)
    assert np.allclose(grid.origin[:2], volume.origin[:2], atol=1e-4)
    assert np.allclose(grid.origin[2], volume.origin[2] - 1.875, atol=1e-4)


def test_an_axis_that_is_not_thick_is_the_identity():
    fit = AxisFit.of(np.eye(7))
    assert np.array_equal(fit.inverse, np.eye(7)) and fit.covered.all()


def test_limits_hold_and_the_slices_still_agree():
    truth = structure(sigma=1) * (structure(seed=3) > 100)
    volume = acquired(truth, np.eye(4), 2)
    _, stacks, fits = fused([volume], Geometry(truth.shape, np.eye(4)))
    free = consistent(fits[0].smoothest(stacks[0]), stacks, fits)
    held = consistent(fits[0].smoothest(stacks[0]), stacks, fits, (0.0, float(truth.max())))
    assert free.min() < -1 and held.min() >= 0
    assert consistency(held, stacks, fits)[0] < 0.02


def test_brightness_is_matched_and_other_patients_are_refused():
    truth = structure()
    volumes = [acquired(truth, np.eye(4), 2), acquired(2.5 * truth, np.eye(4), 0)]
    grid = Geometry(truth.shape, np.eye(4))
    _, stacks, fits = fused(volumes, grid)
    assert np.allclose(matched(stacks, fits, False)[1].mean(), volumes[0].array.mean(), rtol=0.02)
    assert np.array_equal(matched(stacks, fits, True)[1], stacks[1])
    assert thick_axes(fits, stacks, grid) == (4.0, 1.0, 4.0)
    other = acquired(structure(seed=9), np.eye(4), 0)
    _, stacks, fits = fused([volumes[0], other], grid)
    with pytest.raises(InputError, match="Stack 2 does not look like the first one"):
        matched(stacks, fits, False)
    away = Volume(other.array, other.affine + shift(33), "T1w")
    _, stacks, fits = fused([volumes[0], away], grid)
    with pytest.raises(InputError, match=r"Stack 2 shows \d+% of the first one"):
        matched(stacks, fits, False)
    with pytest.raises(InputError, match="lies beside the first one"):
        fitted(Volume(other.array, other.affine + shift(500), "T1w"), grid, None)


def test_an_oblique_stack_is_interpolated_and_registration_finds_a_turn():
    truth = structure((48, 48, 48), sigma=3)
    first = acquired(truth, np.eye(4), 2, factor=2.0)
    angle = np.radians(6)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (3.0, -2.0, 1.0)
    second = acquired(truth, np.eye(4), 0, factor=2.0)
    moved = Volume(second.array, turn @ second.affine, "T1w")
    grid = Geometry(truth.shape, np.eye(4))
    stack, fit = fitted(moved, grid, None)  # oblique: no error
    assert stack.ndim == 3 and fit.coverage.any()
    found = registered(moved, first)
    corners = np.array([[0, 0, 0, 1], [20, 40, 40, 1], [0, 40, 0, 1]]).T
    assert np.abs((found.affine - second.affine) @ corners).max() < 1.0
    assert np.abs((moved.affine - second.affine) @ corners).max() > 2.5


@pytest.mark.parametrize("sd", [2.0, 8.0])
def test_the_noise_of_an_image_is_found(sd):
    rng = np.random.default_rng(0)
    i, j, k = np.indices((64, 64, 64)) - 32
    ball = 100.0 * (i**2 + j**2 + k**2 < 900) + 50.0 * (i**2 + j**2 + k**2 < 100)
    assert noise_of(ball + sd * rng.standard_normal(ball.shape)) == pytest.approx(sd, rel=0.12)
