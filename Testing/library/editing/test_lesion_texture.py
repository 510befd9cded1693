"""Textures of lesions against closed forms: partial volume, heterogeneity, shares of the volume, strands."""

from __future__ import annotations

from math import erf, pi

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from MedGenLib.checks.lesion import around
from MedGenLib.editing.lesions import Insertion, insert_lesion
from MedGenLib.editing.lesions.texture import PRESETS, Drawing, Texture, drawn
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume

LEVEL = 40.0
"""Of the image before, nearly: an image of whole numbers alone would be taken for a mask."""
CLOSE = 0.03
PLAIN = {"preset": "draft", "device": "cpu", "seed": 1}


def made(
    texture: str | None, size: float = 30.0, spacing=(2.0, 2.0, 2.0), contrast: float = 100.0, slices: int | None = None
) -> Insertion:
    """A ball in the middle of an even block of tissue."""
    affine = np.diag([*spacing, 1.0])
    shape = [round(72 / s) for s in spacing]
    shape[2] = slices or shape[2]
    image = Volume(even(shape), affine, "CT", "HU")
    labels = LabelMap(np.full(shape, 2, np.uint8), affine, {2: "soft tissue"})
    at = affine[:3, :3] @ (np.array(shape) // 2 + 0.3)
    return insert_lesion(image, labels=labels, at=at, size_mm=size, contrast=contrast, texture=texture, **PLAIN)


def even(shape) -> np.ndarray:
    return LEVEL + CLOSE * np.random.default_rng(0).random(shape, np.float32)


def added(done: Insertion) -> np.ndarray:
    return done.volume.array.astype(float) - done.source.array


def depths(done: Insertion) -> np.ndarray:
    """mm from the center."""
    index = np.moveaxis(np.indices(done.volume.shape), 0, -1)
    at = np.array(done.report.parameters["at_ras_mm"])
    return np.linalg.norm(index * done.volume.spacing - at, axis=-1)


@pytest.mark.parametrize("spacing", [(2, 2, 2), (1.5, 1.5, 4)])
def test_the_partial_volume_of_the_border_adds_up_to_the_ball(spacing):
    done = made("solid,grain=0", spacing=spacing)
    values = added(done) / 100
    assert values.sum() * np.prod(spacing) == pytest.approx(pi * 30**3 / 6, rel=0.01)
    assert ((values > 0.1) & (values < 0.9)).sum() > 200
    half = np.linalg.norm(spacing) / 2
    assert np.allclose(values[depths(done) < 15 - half], 1, atol=1e-4) and (values[depths(done) > 15 + half] == 0).all()
    plain = added(made(None, spacing=spacing)) / 100
    assert abs(values.sum() - pi * 30**3 / 6 / np.prod(spacing)) < abs(plain.sum() - pi * 30**3 / 6 / np.prod(spacing))


def test_a_blurred_border_is_the_integral_of_a_bell_curve():
    done = made("solid,grain=0,border=3", size=50, spacing=(1.5, 1.5, 1.5))
    values, beyond = added(done) / 100, depths(done) - 25
    for distance in (-4.0, 0.0, 4.0):
        found = values[np.abs(beyond - distance) < 0.3].mean()
        assert found == pytest.approx(0.5 - 0.5 * erf(distance / 3 / 2**0.5), abs=0.06)


def test_heterogeneity_has_the_deviation_asked_for_and_mean_zero():
    done = made("solid,grain=20", size=40)
    inner = added(done)[depths(done) < 18]
    assert inner.mean() == pytest.approx(100, abs=3)
    assert inner.std() == pytest.approx(20, rel=0.1)


def test_heterogeneity_is_correlated_over_its_length_whatever_the_grid():
    def levels(spacing: float, seed: int) -> np.ndarray:
        count = round(60 / spacing)
        axis = (np.arange(count) - (count - 1) / 2) * spacing
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
        lesion = np.linalg.norm(offsets, axis=-1) < 29
        drawing = Drawing(lesion, lesion.astype(float), offsets, (spacing,) * 3, 60.0, seed)
        return np.where(lesion, drawn(Texture(1.0), drawing)[1], np.nan)

    fields = [levels(2.0, seed) for seed in range(4)]
    found = np.nanmean([np.nanmean(field[3:] * field[:-3]) for field in fields])
    assert found == pytest.approx(np.exp(-0.5), abs=0.1)  # 3 voxels are the length of 6 mm
    fine = levels(2 / 3, 0)[1::3, 1::3, 1::3]
    both = np.isfinite(fine) & np.isfinite(fields[0])
    assert np.corrcoef(fine[both], fields[0][both])[0, 1] > 0.999


@pytest.mark.parametrize(("name", "level"), [("core", "necrosis"), ("specks", "calcium")])
def test_shares_of_the_volume_are_those_asked_for(name, level):
    done = made(f"solid,grain=0,{name}=0.3,{level}=80", size=40, contrast=0)
    lesion = done.lesion.array > 0
    marked = added(done) > 40
    assert marked[lesion].mean() == pytest.approx(0.3, abs=0.02)
    assert added(done).max() == pytest.approx(80)
    inner = depths(done)[marked].mean() / depths(done)[lesion].mean()
    assert inner < 0.85 if name == "core" else inner > 0.85


@pytest.mark.parametrize("slices", [None, 1])
def test_the_rim_is_a_shell(slices):
    """Also in an image of one slice, which has no surface above and below."""
    done = made("solid,grain=0,rim=60", size=40, contrast=10, slices=slices)
    values, depth = added(done), depths(done)
    assert values[depth < 6] == pytest.approx(10)
    shell = values[(depth > 15) & (depth < 16)]
    assert np.median(shell) == pytest.approx(70) and shell.min() > 60  # a border voxel may be covered in part


def test_ground_glass_is_a_mixture_and_lets_the_tissue_through():
    everywhere = made("ground-glass,grain=0,glass=1", contrast=500)
    assert added(everywhere)[depths(everywhere) < 12] == pytest.approx(175)
    part = made("ground-glass,grain=0,glass=0.5", contrast=500)
    values = added(part)[part.lesion.array > 0]
    assert (values > 337).mean() == pytest.approx(0.5, abs=0.03)
    assert depths(part)[added(part) > 499].mean() < depths(part)[(added(part) > 100) & (added(part) < 180)].mean()


def test_strands_run_outwards_within_the_stated_halo():
    done, ball = made("spiculated,grain=0", size=24), made("solid,grain=0", size=24)
    outside = depths(done) > 12 + 2
    assert (added(ball)[outside] == 0).all()
    strands = outside & (added(done) > 15)
    shell = outside & (depths(done) < 16)
    assert 0.02 < strands[shell].mean() < 0.6  # rays, and no further shell
    away = distance_transform_edt(done.lesion.array == 0, done.volume.spacing)
    farthest = away[added(done) != 0].max()
    assert 5 < farthest <= done.halo_mm + 1e-3 <= 0.7 * 24 + 4
    assert done.report.passed and np.array_equal(done.lesion.array, ball.lesion.array)


def test_in_mr_levels_are_percent_of_the_tissue():
    affine, shape = np.eye(4), (36, 36, 36)
    image = Volume(even(shape) * 10, affine, "T1w")
    image.array[0, 0, 0] = 0  # nothing becomes darker than the darkest voxel
    labels = LabelMap(np.full(shape, 1, np.uint8), affine, {1: "anterior hippocampus"})
    options = {"labels": labels, "at": (17, 17, 17), "size_mm": 24, "model": "mr-hippocampus", **PLAIN}
    done = insert_lesion(image, texture="necrotic,grain=0", **options)
    values = done.volume.array[done.lesion.array > 0]
    assert values.min() == pytest.approx(400 * 0.65, rel=0.01) and values.max() == pytest.approx(480, rel=0.03)
    assert done.report.parameters["texture"]["necrosis"] == -35


def test_a_generated_tissue_fills_border_voxels_in_part():
    shape, affine = (32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])
    noise = np.random.default_rng(0).normal(-850, 20, shape)
    image = Volume(noise.astype(np.int16), affine, "CT", "HU")
    labels = LabelMap(np.full(shape, 4, np.uint8), affine, {4: "lung or gas"})
    options = {"labels": labels, "at": (31, 31, 31), "size_mm": 20, "label": "soft tissue", **PLAIN}
    plain, solid = insert_lesion(image, **options), insert_lesion(image, texture="solid", **options)
    border = solid.lesion.array > 0
    border &= distance_transform_edt(border) < 1.5
    assert np.median(plain.volume.array[border]) > -100 > np.quantile(solid.volume.array[border], 0.2) > -850
    inner = distance_transform_edt(solid.lesion.array) > 3
    assert abs(solid.volume.array[inner].mean() - plain.volume.array[inner].mean()) < 30


def test_every_preset_makes_another_image_and_the_same_one_again():
    volumes = {name: made(name).volume.array for name in PRESETS}
    assert len({volume.tobytes() for volume in volumes.values()}) == len(PRESETS)
    assert np.array_equal(made("mixed").volume.array, volumes["mixed"])
    one = made("mixed")
    where = around(one.lesion.array > 0, one.halo_voxels)
    untouched = np.ones(one.volume.shape, bool)
    untouched[where] = False
    assert (added(one)[untouched] == 0).all() and one.report.passed


@pytest.mark.parametrize(
    ("texture", "sentence"),
    [
        ("spongy", "There is no texture 'spongy'; choose solid, rim, necrotic"),
        ("rim,rim=bright", "'rim=bright' is no number of a texture"),
        ("necrotic,core=2", "The number core of a texture has to be 0 to 1, not 2"),
        ("solid,grain=-1", "The number grain of a texture has to be 0 to 1000, not -1"),
    ],
)
def test_what_is_no_texture_is_refused(texture, sentence):
    with pytest.raises(InputError, match=sentence):
        made(texture)
