"""Heads, heads without their skull, and other parts of the body."""

import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from MedGenLib.checks.input import check_image
from MedGenLib.imaging.head import head_problem
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import find, for_translation

SAMPLES = Path(__file__).resolve().parents[3] / "Resources" / "SampleData"
SPACING = 3.0
GRID = (66, 80, 60)


def ellipsoid(*radii):
    """Relative distance from the center; 1 on the surface with these radii in mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * SPACING / r for n, r in zip(GRID, radii, strict=True)]
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))


def layered(values, air, noise):
    """Skin, skull and brain of a head with these values; the skull lies 5 to 12 mm below the skin."""
    skin, skull, brain = values
    array = np.full(GRID, air, np.float32)
    for shrink, value in ((0, skin), (5, skull), (12, brain)):
        array[ellipsoid(78 - shrink, 98 - shrink, 85 - shrink) < 1] = value
    generator = np.random.default_rng(0)
    return array + generator.normal(0, noise, GRID).astype(np.float32) * (array != air)


def ct(values=(30, 900, 35), air=-1000.0):
    return Volume(layered(values, air, 8), np.diag([SPACING] * 3 + [1.0]), "CT", "HU")


def mr():
    return Volume(layered((180, 20, 100), 0, 5), np.diag([SPACING] * 3 + [1.0]), "T1w")


def bare_brain():
    """Gray on the outside, white inside, and exactly 0 around, as skull stripping leaves it."""
    distance = ellipsoid(66, 86, 73)
    array = np.where(distance < 1, 70 + 40 * (1 - distance), 0).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 2, GRID).astype(np.float32)
    return Volume(array + noise * (array > 0), np.diag([SPACING] * 3 + [1.0]), "T1w")


def trunk(modality):
    """A trunk of 360 x 240 mm with a spine, filling the field of view from head to foot."""
    shape = (130, 90, 40)
    x, y = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * SPACING for n in shape[:2]), indexing="ij")
    air, fat, soft, bone = (-1000, -100, 50, 400) if modality == "CT" else (0, 200, 90, 60)
    plane = np.full(shape[:2], air, np.float32)
    for inside, value in (
        (np.hypot(x / 180, y / 120) < 1, fat),
        (np.hypot(x / 160, y / 100) < 1, soft),
        (np.hypot(x, y + 60) < 25, bone),
    ):
        plane[inside] = value
    return Volume(np.repeat(plane[..., None], shape[2], axis=2), np.diag([SPACING] * 3 + [1.0]), modality)


def thigh(fat_mm):
    """Bright fat around dark muscle, with marrow in a dark ring of bone, as in a T1w image."""
    shape = (66, 66, 40)
    x, y = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * SPACING for n in shape[:2]), indexing="ij")
    plane = np.zeros(shape[:2], np.float32)
    for radius, value in ((85, 200), (85 - fat_mm, 80), (16, 20), (9, 190)):
        plane[np.hypot(x, y) < radius] = value
    noise = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    array = np.repeat(plane[..., None], shape[2], axis=2)
    return Volume(array + noise * (array > 0), np.diag([SPACING] * 3 + [1.0]), "T1w")


@pytest.mark.parametrize("fat_mm", [4, 15, 30])
def test_a_limb_is_no_head(fat_mm):
    assert "No dark skull" in head_problem(thigh(fat_mm))
    assert head_problem(crop(thigh(fat_mm), (20, 20, 0), (46, 46, 40))) is None  # shows no skin


def test_whole_heads_have_no_problem():
    assert head_problem(ct()) is None and head_problem(mr()) is None
    assert head_problem(read_volume(SAMPLES / "head_t1.nii.gz")) is None


def test_slices_and_slabs_of_heads_have_no_problem():
    for image in (ct(), mr()):
        for low, high in ((30, 31), (25, 35), (20, 60)):
            assert head_problem(crop(image, (0, 0, low), (*GRID[:2], high))) is None
        assert head_problem(crop(image, (20, 20, 20), (40, 40, 40))) is None


def test_a_brain_without_its_skull():
    assert "skull-stripping" in head_problem(bare_brain())
    assert "No skull" in head_problem(ct(values=(35, 35, 35)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [4.0, 5.5, 6.5, 8.0])
def test_a_head_in_thick_slices_of_any_plane_is_a_head(axis, thickness):
    head = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    spacing = [thickness if n == axis else s for n, s in enumerate(head.spacing)]
    assert head_problem(resample(head, spacing)) is None


@pytest.mark.parametrize("modality", ["CT", "T1w"])
def test_a_trunk_is_no_head(modality):
    assert "is no head" in head_problem(trunk(modality))


def test_the_model_of_the_head_refuses_them():
    for image in (bare_brain(), trunk("T1w")):
        errors = [f for f in check_image(image, find("head-mr-to-ct")) if f.level == "error"]
        assert [f.code for f in errors] == ["no-head"] and "needs T1w MR of a whole head" in errors[0].sentence
        assert "For limbs use the model 'body-mr-to-ct'." in errors[0].sentence
    codes = [f.code for f in check_image(trunk("CT"), find("head-ct-to-mr"))]
    assert "no-head" in codes
    assert not [f for f in check_image(trunk("T1w"), find("body-mr-to-ct")) if f.level == "error"]


def test_translators_of_the_head_come_first():
    """They refuse other images; a translator of other parts would take a head without a word."""
    assert for_translation("T1w", "CT").name == "head-mr-to-ct"
    assert for_translation("CT", "T1w").name == "head-ct-to-mr"


REAL_HEADS = (
    "mr_t1_head/*.nii.gz",
    "mr_head/*.nii.gz",
    "pairs_ct_mr/seg3d_mr_with_ct_skull/mr_t1.nii.gz",
    "pairs_ct_mr/template_mni_2mm/avg152*.nii.gz",
    "mr_brain_labels/mne_ecog/T1.nii.gz",
    "mr_brain_labels/medddpm_whole_head_3/t1ce.nii.gz",
    "mr_brain_labels/pyradiomics_brain1/image.nrrd",
    "dicom_series/mr_brain_pgbm*",
    "dicom_series/ct_head_ge_tilt",
)
OTHERS = (
    "mr_t1_brain/*_t1.nii.gz",
    "mr_brain_labels/*/t1.nii.gz",
    "mr_brain_labels/open_ms_*/t2.nii.gz",
    "mr_brain_labels/open_ms_*/flair.nii.gz",
    "pairs_ct_mr/sts_sarcoma/*/ct.nii.gz",
    "pairs_ct_mr/sts_sarcoma/*/mr_t1.nii.gz",
    "ct_torso_*/*/ct.nii.gz",
)


@pytest.mark.skipif("MEDGEN_DATA" not in os.environ, reason="real images lie in MEDGEN_DATA")
def test_real_images():
    data = Path(os.environ["MEDGEN_DATA"])
    heads = [path for pattern in REAL_HEADS for path in sorted(data.glob(pattern))]
    others = [path for pattern in OTHERS for path in sorted(data.glob(pattern))]
    assert len(heads) == 23 and len(others) == 158
    assert {str(path): found for path in heads if (found := head_problem(read_volume(path)))} == {}
    assert [str(path) for path in others if head_problem(read_volume(path)) is None] == []


@pytest.mark.skipif("MEDGEN_DATA" not in os.environ, reason="real images lie in MEDGEN_DATA")
def test_axial_slices_of_150_people_show_a_skull():
    paths = sorted(Path(os.environ["MEDGEN_DATA"]).glob("pairs_ct_mr/synthrad2023_brain_slices/*/mri_axial.png"))
    refused = []
    for path in paths:
        plane = np.rint(imread(path) * 255).astype(np.float32)
        slab = np.repeat((plane if plane.ndim == 2 else plane[..., 0]).T[..., None], 4, axis=2)
        refused += [path.parent.name] if head_problem(Volume(slab, np.diag([1.0, 1.0, 3.0, 1.0]), "T1w")) else []
    assert len(paths) == 150 and refused == []
