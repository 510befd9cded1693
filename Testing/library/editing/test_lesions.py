"""Shapes of lesions and where they may lie."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label as pieces
from scipy.spatial import ConvexHull
from workers import left_handed_oblique

from MedGenLib.editing.lesions import names
from MedGenLib.editing.lesions.library import shape
from MedGenLib.editing.lesions.placement import Host, Placement, voxel_at
from MedGenLib.editing.lesions.shapes import PROCEDURAL, MaskShape, rasterize
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.io.files import write_volume

FINE = Geometry((48, 48, 48), np.eye(4))
MIDDLE = np.array([24.0, 23.0, 25.0])
NAMES = [name for name, _ in names()]


def drawn(name, size, geometry=FINE, center=MIDDLE, seed=1):
    return rasterize(shape(name, seed), geometry, center, size)


def diameter(mask, geometry=FINE):
    """Greatest distance in mm between the centers of two voxels."""
    places = np.argwhere(mask) @ geometry.affine[:3, :3].T
    places = places[ConvexHull(places).vertices]
    return max(float(np.linalg.norm(places - place, axis=1).max()) for place in places)


# Shapes


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_is_as_large_as_was_asked_for_and_in_one_piece(name):
    mask = drawn(name, 30.0)
    assert diameter(mask) == pytest.approx(30, abs=3 if name in ("spiculated", "plaque-branched") else 2)
    found, count = pieces(mask, np.ones((3, 3, 3)))
    assert np.bincount(found.ravel())[1:].max() > 0.97 * mask.sum(), count
    assert mask[24, 23, 25] or name.startswith("plaque")


def test_a_sphere_is_a_ball_to_the_voxel():
    distance = np.linalg.norm(np.stack(np.indices(FINE.shape), -1) - MIDDLE, axis=-1)
    mask = drawn("sphere", 25.0)
    assert mask[distance < 11.6].all() and not mask[distance > 13.4].any()
    assert mask.sum() == pytest.approx(np.pi / 6 * 25**3, rel=0.01)


def test_shapes_differ_in_what_they_are_called_for():
    """Volume over that of the ball with the same diameter: spikes reach far and hold little."""
    share = {name: drawn(name, 36.0).sum() / (np.pi / 6 * 36**3) for name in PROCEDURAL}
    assert share["sphere"] > 0.98 > 0.75 > share["ellipsoid"] > 0.25
    assert 0.7 > share["lobulated"] > share["spiculated"]
    assert share["spiculated"] < 0.35


@pytest.mark.parametrize("name", ["ellipsoid", "lobulated", "spiculated"])
def test_the_seed_decides_on_the_form_and_nothing_else_does(name):
    first, again, other = (drawn(name, 24.0, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(drawn("sphere", 24.0, seed=1), drawn("sphere", 24.0, seed=2))


@pytest.mark.parametrize(
    "affine",
    [np.diag([1.0, 1, 4, 1]), left_handed_oblique((0.8, 1.0, 2.5)), np.diag([-1.0, 1, 1, 1])],
    ids=["thick", "oblique", "flipped"],
)
@pytest.mark.parametrize("name", ["sphere", "spiculated", "plaque-round"])
def test_a_shape_keeps_its_form_and_place_in_millimeters_on_any_grid(name, affine):
    size = 26.0
    geometry = Geometry((50, 48, 24), affine)
    center = affine[:3, :3] @ [24.3, 23.8, 11.6] + affine[:3, 3]
    mask = drawn(name, size, geometry, center)
    # The same on a fine grid, at the same place of the patient.
    fine = Geometry((64, 64, 64), np.block([[0.5 * np.eye(3), (center - 15.75)[:, None]], [0, 0, 0, 1]]))
    truth = drawn(name, size, fine, center)
    voxel = float(np.prod(geometry.spacing))
    assert mask.sum() * voxel == pytest.approx(truth.sum() * 0.125, rel=0.15)
    place = affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]
    expected = 0.5 * np.argwhere(truth).mean(0) + center - 15.75
    assert np.linalg.norm(place - expected) < 0.3 * max(geometry.spacing) + 0.3


def test_a_lesion_smaller_than_a_voxel_is_one_voxel():
    thick = Geometry((9, 9, 5), np.diag([3.0, 3, 10, 1]))
    mask = drawn("sphere", 2.0, thick, np.array([13.0, 12, 24]))
    assert np.argwhere(mask).tolist() == [[4, 4, 2]]
    single = Geometry((20, 20, 1), np.diag([1.0, 1, 8, 1]))
    assert drawn("sphere", 8.0, single, np.array([10.0, 10, 2])).sum() > 30


def test_a_lesion_at_the_border_of_the_image_is_cut_there():
    whole = drawn("sphere", 20.0)
    corner = drawn("sphere", 20.0, center=np.array([0.0, 0, 0]))
    assert 0.1 < corner.sum() / whole.sum() < 0.2
    assert not drawn("sphere", 5.0, center=np.array([-100.0, 0, 0])).any()


def test_a_mask_is_a_shape_with_a_size_of_its_own(tmp_path):
    mask = drawn("lobulated", 20.0, seed=3)
    path = write_volume(LabelMap(mask.astype(np.uint8), FINE.affine), tmp_path / "mine.nii.gz")
    own = shape(str(path), 0)
    assert own.size_mm == pytest.approx(20, abs=2)
    again = rasterize(own, FINE, np.argwhere(mask).mean(0), own.size_mm)
    assert 2 * (again & mask).sum() / (again.sum() + mask.sum()) > 0.97
    double = rasterize(own, FINE, MIDDLE, 2 * own.size_mm)
    assert double.sum() == pytest.approx(8 * mask.sum(), rel=0.1)


def test_the_library_knows_its_shapes():
    sizes = {name: shape(name, 0).size_mm for name in NAMES}
    assert sizes["sphere"] is None and sizes["plaque-small"] == pytest.approx(7.3, abs=0.1)
    for name, sentence in names():
        if name.startswith("plaque"):
            assert f"{sizes[name]:.0f} mm" in sentence
    with pytest.raises(InputError, match="no shape 'banana'; choose sphere"):
        shape("banana", 0)
    with pytest.raises(InputError, match=r"no file .*gone.nii"):
        shape("gone.nii", 0)
    with pytest.raises(InputError, match="empty"):
        MaskShape.of(LabelMap(np.zeros((3, 3, 3), np.uint8), np.eye(4)))


# Place


def organs() -> LabelMap:
    """A slab of 2 with a ball of 3 (diameter 20 mm) in it, on voxels of 2 mm."""
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-40, -30, 100)
    array = np.zeros((40, 30, 20), np.uint8)
    array[2:-2, 2:-2, 2:-2] = 2
    geometry = Geometry(array.shape, affine)
    array[rasterize(shape("sphere", 0), geometry, np.array([0.0, 0, 120]), 20.0)] = 3
    return LabelMap(array, affine, {2: "liver", 3: "gall_bladder"})


def host(wanted="gall bladder"):
    labels = organs()
    return Host.organ(labels, wanted, labels.names)


def test_an_organ_is_found_by_number_or_name():
    for wanted in (3, "3", "gall bladder", "Gall_Bladder"):
        assert host(wanted).array.sum() == (organs().array == 3).sum()
    with pytest.raises(InputError, match="no organ 'spleen' .* 2 liver, 3 gall_bladder"):
        host("spleen")
    with pytest.raises(InputError, match="no organ '7'"):
        host(7)


def test_a_random_place_leaves_room_for_the_lesion():
    inside = host("liver")
    for seed in range(20):
        generator = np.random.default_rng(seed)
        spot = inside.random_place(12.0, generator)
        mask = rasterize(shape("sphere", 0), inside.geometry, np.array(spot), 12.0)
        kept, findings = inside.keep_inside(mask, 12.0)
        assert kept.sum() > 0.95 * mask.sum()
    spots = {inside.random_place(12.0, np.random.default_rng(s)) for s in range(20)}
    assert len(spots) > 10


def test_a_lesion_larger_than_its_organ_is_refused_with_what_fits():
    with pytest.raises(InputError, match=r"30 mm is larger than 'gall_bladder', where .* (18|20|22)"):
        host().random_place(30.0, np.random.default_rng(0))
    large = rasterize(shape("sphere", 0), host().geometry, np.array([0.0, 0, 120]), 36.0)
    with pytest.raises(InputError, match="larger than 'gall_bladder'"):
        host().keep_inside(large, 36.0)


def test_what_reaches_out_is_cut_off_with_a_warning():
    near = rasterize(shape("sphere", 0), host().geometry, np.array([7.0, 0, 120]), 10.0)
    kept, findings = host().keep_inside(near, 10.0)
    assert 0 < kept.sum() < near.sum() and not kept[~host().array].any()
    assert findings[0].level == "warning" and "reached out of 'gall_bladder'" in findings[0].sentence
    far = rasterize(shape("sphere", 0), host().geometry, np.array([30.0, 20, 120]), 8.0)
    with pytest.raises(InputError, match="No part of the lesion lies inside"):
        host().keep_inside(far, 8.0)


def test_a_place_outside_is_refused_with_the_extent_of_the_image():
    with pytest.raises(InputError, match=r"R -40 to 38, A -30 to 28, S 100 to 138 mm"):
        host().index_of((0, 0, 500))
    with pytest.raises(InputError, match=r"30, 0, 120 mm \(RAS\) does not lie inside"):
        host().index_of((30, 0, 120))
    assert host().index_of((0.4, -0.4, 120.3)) == (20, 15, 10)
    flat = Geometry((8, 1, 8), left_handed_oblique())
    inside = flat.affine[:3, :3] @ [3, 0, 4] + flat.affine[:3, 3]
    assert voxel_at(flat, inside) == (3, 0, 4)


def test_a_place_is_reported_in_the_units_of_the_patient():
    labels = organs()
    mask = rasterize(shape("sphere", 0), labels.geometry, np.array([0.0, 0, 120]), 8.0)
    place = Placement.inside(host(), mask, "painted", 8.0)
    report = place.to_dict(Volume(labels.array, labels.affine))
    assert report["at_ras_mm"] == pytest.approx([0, 0, 120], abs=0.01)
    assert report["volume_ml"] == pytest.approx(mask.sum() * 8 / 1000)
