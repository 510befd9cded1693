"""Geometry: what an affine means, and what may not be one."""

import numpy as np
import pytest
from grids import oblique

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import (
    Geometry,
    LabelMap,
    Volume,
    affine_from_lps,
    check_finite,
    crop,
    lps_from_affine,
    occupied,
    pad,
    to_sitk,
)


def test_properties_come_from_the_affine():
    volume = Volume(np.zeros((4, 5, 6)), np.diag([1.0, 2.0, 3.0, 1.0]), "CT", "HU")
    assert volume.shape == (4, 5, 6)
    assert volume.spacing == (1.0, 2.0, 3.0)
    assert volume.field_of_view == (4.0, 10.0, 18.0)
    assert volume.orientation == "RAS"
    np.testing.assert_allclose(volume.direction, np.eye(3))
    np.testing.assert_allclose(volume.origin, 0)


@pytest.mark.parametrize("signs, expected", [((-1, -1, 1), "LPS"), ((1, 1, -1), "RAI")])
def test_orientation_names_the_growing_direction(signs, expected):
    assert Geometry((2, 2, 2), np.diag([*signs, 1.0])).orientation == expected


def test_orientation_of_permuted_axes():
    affine = np.eye(4)
    affine[:3, :3] = [[-1, 0, 0], [0, 0, 1], [0, -1, 0]]
    assert Geometry((2, 2, 2), affine).orientation == "LIA"


@pytest.mark.parametrize("left_handed", [False, True])
def test_lps_and_back(left_handed):
    affine = oblique(left_handed=left_handed)
    np.testing.assert_allclose(affine_from_lps(*lps_from_affine(affine)), affine, atol=1e-12)


def test_sitk_places_every_voxel_where_the_affine_does():
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), oblique())
    picture = to_sitk(volume)
    for index in [(0, 0, 0), (1, 0, 3), (0, 2, 1)]:
        left_posterior = np.array(picture.TransformIndexToPhysicalPoint(index))
        ras = volume.affine[:3, :3] @ index + volume.origin
        np.testing.assert_allclose(left_posterior * (-1, -1, 1), ras, atol=1e-9)
        assert picture[index] == volume.array[index]


def test_crop_and_pad_keep_voxels_in_place():
    volume = Volume(np.arange(120.0).reshape(4, 5, 6), oblique(left_handed=True))
    part = crop(volume, (1, 2, 0), (3, 5, 4))
    assert part.shape == (2, 3, 4)
    place = volume.affine @ (1, 2, 0, 1)
    np.testing.assert_allclose(part.affine @ (0, 0, 0, 1), place, atol=1e-12)
    back = pad(part, (1, 2, 0), (1, 0, 2), value=-1)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-12)
    np.testing.assert_array_equal(back.array[1:3, 2:5, 0:4], part.array)
    assert back.array[0, 0, 0] == -1


def test_crop_outside_is_refused():
    with pytest.raises(InputError, match="does not lie inside"):
        crop(Volume(np.zeros((2, 2, 2)), np.eye(4)), (0, 0, 0), (3, 2, 2))


def test_with_spacing_keeps_the_center_and_covers_the_field_of_view():
    grid = Geometry((10, 7, 1), oblique())
    other = grid.with_spacing((2, 2, 2))
    np.testing.assert_allclose(other.spacing, (2, 2, 2.5))
    assert (np.array(other.field_of_view) >= np.array(grid.field_of_view) - 1e-9).all()
    centers = [g.affine[:3, :3] @ ((np.array(g.shape) - 1) / 2) + g.origin for g in (grid, other)]
    np.testing.assert_allclose(*centers, atol=1e-9)


def test_geometry_is_close_measures_corners_in_mm():
    grid = Geometry((100, 100, 100), np.eye(4))
    turned = np.eye(4)
    turned[0, 1] = 2e-4  # 0.02 mm at the far corner
    assert grid.is_close(Geometry(grid.shape, turned), tolerance=0.03)
    assert not grid.is_close(Geometry(grid.shape, turned), tolerance=0.01)
    assert not grid.is_close(Geometry((100, 100, 99), np.eye(4)))


SINGULAR = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SHEARED = np.array([[1.0, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    "affine, words",
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), "spacing"),
        (SINGULAR, "singular"),
        (SHEARED, "instead of 90 degrees"),
        (np.diag([np.nan, 1.0, 1.0, 1.0]), "finite"),
        (np.eye(3), "4 x 4"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
    ],
)
def test_impossible_affines_are_refused(affine, words):
    with pytest.raises(InputError, match=words):
        Volume(np.zeros((2, 2, 2)), affine)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2, 2)])
def test_three_axes_are_needed(shape):
    with pytest.raises(InputError, match="three axes"):
        Volume(np.zeros(shape), np.eye(4))


def test_with_array_keeps_the_grid_and_checks_the_shape():
    volume = Volume(np.zeros((2, 3, 4)), oblique(), "T1w", "a.u.", ("a note",))
    other = volume.with_array(np.ones((2, 3, 4)), "CT", "HU")
    assert (other.modality, other.unit, other.notes) == ("CT", "HU", ("a note",))
    np.testing.assert_array_equal(other.affine, volume.affine)
    with pytest.raises(InputError, match="does not fit"):
        volume.with_array(np.zeros((2, 3, 5)))


def test_the_affine_cannot_be_changed_behind_the_back():
    affine = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), affine)
    affine[0, 0] = 9
    assert volume.spacing[0] == 1.0
    with pytest.raises(ValueError):
        volume.affine[0, 0] = 9


def test_label_map_values_and_types():
    array = np.zeros((3, 3, 3))
    array[0, 0, 0], array[1, 1, 1] = 7, 2
    labels = LabelMap(array, np.eye(4), {2: "bone"})
    assert labels.values() == [2, 7]
    assert np.issubdtype(labels.array.dtype, np.integer)
    assert LabelMap(array > 0, np.eye(4)).values() == [1]


@pytest.mark.parametrize("value, words", [(0.5, "whole numbers"), (-1.0, "negative"), (np.nan, "whole numbers")])
def test_label_maps_hold_labels_only(value, words):
    with pytest.raises(InputError, match=words):
        LabelMap(np.full((2, 2, 2), value), np.eye(4))


def test_check_finite_names_the_first_place():
    array = np.zeros((3, 3, 3), np.float32)
    array[1, 2, 0] = np.inf
    with pytest.raises(InputError, match=r"1 of its voxels.* \(1, 2, 0\)"):
        check_finite(Volume(array, np.eye(4)))


def test_where_something_is():
    array = np.zeros((5, 6, 7), np.uint8)
    assert occupied(array) is None
    array[1, 2, 6] = array[3, 2, 0] = 4
    assert occupied(array) == ((1, 4), (2, 3), (0, 7))
