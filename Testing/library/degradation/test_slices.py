"""Thick slices against closed forms: profiles, positions and the transposed operator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from MedGenLib.degradation.slices import Acquisition, grid_of_thick, is_aligned, slice_weights
from MedGenLib.imaging.volume import Geometry

FINE = Geometry((24, 20, 28), np.diag([1.0, 1.2, 0.9, 1.0]))


def rotation(degrees: float) -> np.ndarray:
    """About an axis that is none of the grid's."""
    from scipy.spatial.transform import Rotation

    axis = np.array([1.0, -2.0, 0.5])
    return Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()


def turned(grid: Geometry, degrees: float) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees)
    affine[:3, 3] = 7.0, -30.0, 2.5
    return Geometry(grid.shape, affine @ grid.affine)


def reordered(grid: Geometry, order: tuple[int, ...], flips: tuple[int, ...]) -> Geometry:
    """The same voxels, counted in another order of axes and from the other end."""
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
    """Slices of 2.5 mm every 3 mm, 0.25 mm off the faces of voxels of 1 mm."""
    weights = slice_weights(9, 2, 1.0, 3.0, 2.5, 1.0, "box").toarray()
    assert weights[0, :4] == pytest.approx([0.3, 0.4, 0.3, 0])
    assert weights[1, 3:7] == pytest.approx([0.3, 0.4, 0.3, 0])
    shifted = slice_weights(9, 1, 1.0, 3.0, 2.5, 1.1, "box").toarray()[0]
    assert shifted[:4] == pytest.approx([0.26, 0.4, 0.34, 0])


def test_a_gaussian_has_its_full_width_at_half_maximum():
    """The mean over a voxel of 0.1 mm hardly differs from the profile itself."""
    row = slice_weights(401, 1, 0.1, 4.0, 4.0, 20.0, "gaussian").toarray()[0]
    distance = np.arange(401) * 0.1 - 20
    assert row / row.max() == pytest.approx(0.5 ** ((distance / 2) ** 2), abs=1e-3)
    assert row[180] / row.max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_sums_are_1_also_over_the_border_and_a_slice_outside_is_empty(profile):
    weights = slice_weights(10, 6, 1.0, 3.7, 3.0, -1.2, profile)
    sums = weights.sum(axis=1)
    assert sums[:4] == pytest.approx(1) and sums[5] == 0
    assert weights[[0]].toarray()[0].argmax() == 0


@pytest.mark.parametrize("profile", ["box", "gaussian"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_voxel_shows_its_own_place(profile, order):
    """A ramp in the patient keeps its values: no shift of half a voxel, in any order, direction and obliquity."""
    fine = turned(FINE, 23.0)
    thick = grid_of_thick(fine, 1, factor=3.3)
    for flips in ((), (1,), (0, 2)):
        stack = reordered(thick, order, flips)
        acquisition = Acquisition(fine, stack, thickness_mm=3.6, profile=profile)
        slopes = np.array([0.7, -1.1, 0.4])
        seen = acquisition.degrade(np.tensordot(slopes, centers(fine), 1))
        error = np.abs(seen - np.tensordot(slopes, centers(stack), 1))
        inner = [slice(None)] * 3
        inner[acquisition.slice_axis] = slice(1, -1)  # slices at the border are cut off on one side
        assert error[tuple(inner)].max() < 2e-4


def test_a_point_lies_in_the_slice_around_it():
    fine = Geometry((5, 5, 24), np.eye(4))
    point = np.zeros(fine.shape)
    point[2, 3, 9] = 1.0
    seen = Acquisition(fine, grid_of_thick(fine, 2, factor=4), profile="box").degrade(point)
    wanted = np.zeros((5, 5, 6))
    wanted[2, 3, 2] = 0.25
    assert seen == pytest.approx(wanted)
    # Slice 2 has its center between voxels 9 and 10. Slices of 2.4 mm reach 0.2 mm into voxel 8, those of 2 mm do not.
    before = np.roll(point, -1, 2)
    seen = [Acquisition(fine, grid_of_thick(fine, 2, factor=4), mm, "box").degrade(before) for mm in (2.4, 2.0)]
    assert seen[0][2, 3, 2] == pytest.approx(0.2 / 2.4)
    assert not seen[1].any()


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
    x, y = rng.normal(size=fine.shape), rng.normal(size=stack.shape)
    there, back = acquisition.degrade(x), acquisition.adjoint(y)
    assert there.dtype == back.dtype == np.float32
    assert there.shape == stack.shape and back.shape == fine.shape
    assert np.vdot(there, y) == pytest.approx(np.vdot(x, back), rel=1e-4)


def test_thick_slices_begin_at_the_same_face_and_stay_inside():
    fine = turned(FINE, 15.0)
    thick = grid_of_thick(fine, 2, coarse_spacing_mm=4.0)
    assert thick.shape == (24, 20, 6) and thick.spacing == pytest.approx((1.0, 1.2, 4.0))
    for grid in (fine, thick):
        face = grid.affine @ [0, 0, -0.5, 1]
        assert face == pytest.approx(fine.affine @ [0, 0, -0.5, 1])
    assert Acquisition(fine, thick, profile="box").covered.all()
    with pytest.raises(ValueError, match="either a factor or a spacing"):
        grid_of_thick(fine, 2)


def test_pixels_smaller_than_the_fine_voxels_are_interpolated():
    """A box as wide as a voxel is linear interpolation: the ramp stays a ramp."""
    stack = FINE.with_spacing([0.4, 1.2, 3.6])
    seen = Acquisition(FINE, stack, profile="box").degrade(centers(FINE)[0])
    assert seen[2:-2] == pytest.approx(centers(stack)[0][2:-2], abs=1e-4)


def test_slices_with_less_than_half_inside_are_not_covered():
    stack = Geometry((24, 20, 8), FINE.moved((0, 0, -2), FINE.shape).affine @ np.diag([1, 1, 5, 1.0]))
    acquisition = Acquisition(FINE, stack, profile="box")
    # Slice 0 lies from voxel -4.5 to 0.5, slice 6 from 25.5 to 30.5, slice 7 outside; the image ends at -0.5 and 27.5.
    assert acquisition.covered[3, 3].tolist() == [False] + [True] * 5 + [False] * 2
    assert acquisition.degrade(np.ones(FINE.shape))[3, 3].tolist() == pytest.approx([1] * 7 + [0])


def test_oblique_slices_are_refused():
    thick = grid_of_thick(FINE, 2, factor=4)
    assert is_aligned(FINE, turned(thick, 0.3)) and not is_aligned(FINE, turned(thick, 0.8))
    with pytest.raises(ValueError, match="oblique"):
        Acquisition(FINE, turned(thick, 0.8))


def test_the_input_is_not_changed():
    image = np.random.default_rng(2).normal(size=FINE.shape).astype(np.float32)
    before = image.copy()
    acquisition = Acquisition(FINE, grid_of_thick(FINE, 1, factor=2))
    acquisition.adjoint(acquisition.degrade(image))
    assert np.array_equal(image, before)
