"""Thick slices against closed forms: profiles, positions and the transposed operator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from MedGenLib.degradation.slices import Acquisition, grid_of_thick, is_aligned, slice_weights
from MedGenLib.imaging.volume import Geometry

FINE = Geometry((24, 20, 28), np.diag([1.0, 1.2, 0.9, 1.0]))


def turned(grid: Geometry, degrees: float) -> Geometry:
    """Turned about an axis that is none of the grid's, and shifted."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(degrees * np.array([2.0, -2.0, 1.0]) / 3, degrees=True).as_matrix()
    affine[:3, 3] = 7.0, -30.0, 2.5
    return Geometry(grid.shape, affine @ grid.affine)


def reordered(grid: Geometry, order: tuple[int, ...], flips: tuple[int, ...]) -> Geometry:
    affine = grid.affine.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (grid.shape[axis] - 1)
        affine[:3, axis] *= -1
    affine[:, :3] = affine[:, list(order)]
    return Geometry(tuple(grid.shape[axis] for axis in order), affine)


def centers(grid: Geometry) -> np.ndarray:
    """(3, i, j, k) in RAS mm."""
    index = np.indices(grid.shape).reshape(3, -1)
    return (grid.affine[:3, :3] @ index + grid.origin[:, None]).reshape(3, *grid.shape)


def test_a_box_counts_voxels_in_part():
    weights = slice_weights(6, 2, 1.0, 3.1, 2.5, 1.0, "box").toarray()
    assert weights[0] == pytest.approx([0.3, 0.4, 0.3, 0, 0, 0])
    assert weights[1] == pytest.approx([0, 0, 0, 0.26, 0.4, 0.34])


def test_a_gaussian_has_its_full_width_at_half_maximum():
    row = slice_weights(401, 1, 0.1, 4.0, 4.0, 20.0, "gaussian").toarray()[0]
    distance = np.arange(401) * 0.1 - 20
    assert row / row.max() == pytest.approx(0.5 ** ((distance / 2) ** 2), abs=1e-3)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_sums_are_1_also_over_the_border_and_a_slice_outside_is_empty(profile):
    weights = slice_weights(10, 6, 1.0, 3.7, 3.0, -1.2, profile)
    sums = weights.sum(axis=1)
    assert sums[:4] == pytest.approx(1) and sums[5] == 0


@pytest.mark.parametrize("profile", ["box", "gaussian"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_voxel_shows_its_own_place(profile, order):
    """A ramp in the patient keeps its values: no shift, in any order, direction and obliquity."""
    fine, slopes = turned(FINE, 23.0), np.array([0.7, -1.1, 0.4])
    thick = grid_of_thick(fine, 1, factor=3.3)
    for flips in ((), (1,), (0, 2)):
        stack = reordered(thick, order, flips)
        acquisition = Acquisition(fine, stack, thickness_mm=3.6, profile=profile)
        seen = acquisition.degrade(np.tensordot(slopes, centers(fine), 1))
        error = np.abs(seen - np.tensordot(slopes, centers(stack), 1))
        inner = [slice(None)] * 3
        inner[acquisition.slice_axis] = slice(1, -1)
        assert error[tuple(inner)].max() < 2e-4


def test_a_point_lies_in_the_slice_around_it():
    fine = Geometry((5, 5, 24), np.eye(4))
    point = np.zeros(fine.shape)
    point[2, 3, 9] = 1.0
    stack = grid_of_thick(fine, 2, factor=4)
    seen = Acquisition(fine, stack, profile="box").degrade(point)
    wanted = np.zeros((5, 5, 6))
    wanted[2, 3, 2] = 0.25
    assert seen == pytest.approx(wanted)
    # With gaps: around 9.5, slices of 2.4 mm reach 0.2 mm into voxel 8, those of 2 mm do not.
    seen = [Acquisition(fine, stack, mm, "box").degrade(np.roll(point, -1, 2)) for mm in (2.4, 2.0)]
    assert seen[0][2, 3, 2] == pytest.approx(0.2 / 2.4) and not seen[1].any()


def test_a_constant_stays_and_the_same_grid_changes_nothing():
    stack = grid_of_thick(FINE, 0, coarse_spacing_mm=3.5).with_spacing([3.5, 2.0, 0.5])
    assert Acquisition(FINE, stack).degrade(np.full(FINE.shape, 7)) == pytest.approx(7)
    image = np.random.default_rng(0).normal(size=FINE.shape).astype(np.float32)
    turned_grid = turned(FINE, 40.0)
    nearly = Geometry(FINE.shape, turned_grid.affine.astype(np.float32))
    same = Acquisition(turned_grid, nearly, profile="box").degrade(image)
    assert np.array_equal(same, image) and same is not image


def test_the_adjoint_is_the_transposed_operator():
    rng = np.random.default_rng(1)
    fine = turned(FINE, -12.0)
    stack = reordered(grid_of_thick(fine, 2, factor=3.6).with_spacing([1.3, 1.2, 3.24]), (2, 0, 1), (2,))
    acquisition = Acquisition(fine, stack, thickness_mm=2.4)
    x, y = (rng.normal(size=grid.shape).astype(np.float32) for grid in (fine, stack))
    before = x.copy(), y.copy()
    there, back = acquisition.degrade(x), acquisition.adjoint(y)
    assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])
    assert there.dtype == back.dtype == np.float32
    assert np.vdot(there, y) == pytest.approx(np.vdot(x, back), rel=1e-4)


def test_thick_slices_begin_at_the_same_face_and_stay_inside():
    fine = turned(FINE, 15.0)
    thick = grid_of_thick(fine, 2, coarse_spacing_mm=4.0)
    assert thick.shape == (24, 20, 6) and thick.spacing == pytest.approx((1.0, 1.2, 4.0))
    assert thick.affine @ [0, 0, -0.5, 1] == pytest.approx(fine.affine @ [0, 0, -0.5, 1])
    with pytest.raises(ValueError, match="either a factor or a spacing"):
        grid_of_thick(fine, 2)


def test_pixels_smaller_than_the_fine_voxels_are_interpolated():
    stack = FINE.with_spacing([0.4, 1.2, 3.6])
    seen = Acquisition(FINE, stack, profile="box").degrade(centers(FINE)[0])
    assert seen[2:-2] == pytest.approx(centers(stack)[0][2:-2], abs=1e-4)


def test_oblique_slices_are_refused():
    thick = grid_of_thick(FINE, 2, factor=4)
    assert is_aligned(FINE, turned(thick, 0.3)) and not is_aligned(FINE, turned(thick, 0.8))
    with pytest.raises(ValueError, match="oblique"):
        Acquisition(FINE, turned(thick, 0.8))
