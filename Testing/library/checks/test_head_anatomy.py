"""The anatomical check of head CT: air, scalp, skull and brain in their order."""

from __future__ import annotations

import numpy as np
import pytest

from MedGenLib import translate
from MedGenLib.checks.anatomy import check_head, head_order
from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume
from MedGenLib.io.samples import sample

BRAIN, SKULL, SCALP = 65.0, 72.0, 78.0
"""Outer radii in mm."""
SLICE, WHOLE = (170, 170, 1), (85, 85, 85)


def head(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU of a spherical head, of 2 mm voxels if it is a volume, and place and radius of each voxel in mm."""
    spacing = 1.0 if 1 in shape else 2.0
    place = np.stack([(i - (n - 1) / 2) * spacing for i, n in zip(np.indices(shape), shape, strict=True)])
    radius = np.linalg.norm(place, axis=0)
    hu = np.select([radius < BRAIN, radius < SKULL, radius < SCALP], [35.0, 900.0, 20.0], -1000.0)
    return hu + np.random.default_rng(0).normal(0, 5, shape), place, radius


def failed(hu: np.ndarray) -> tuple[list[str], dict[str, float]]:
    spacing = 1.0 if 1 in hu.shape else 2.0
    check = OutputCheck()
    check_head(check, Volume(hu.astype(np.float32), np.diag([spacing] * 3 + [1]), "CT", "HU"))
    return [finding.sentence for finding in check.findings], check.figures["anatomy"]


def sector(place: np.ndarray) -> np.ndarray:
    """A cone or wedge to the left."""
    return place[0] < -0.7 * np.linalg.norm(place, axis=0)


@pytest.mark.parametrize("shape", [SLICE, WHOLE])
def test_a_head_in_order_passes(shape):
    sentences, figures = failed(head(shape)[0])
    assert sentences == []
    assert figures == {"bone_in_brain": 0, "air_in_brain": 0, "open_skull": 0, "bare_skull": 0}


@pytest.mark.parametrize("shape", [SLICE, WHOLE])
@pytest.mark.parametrize(("hu", "words"), [(700, "The brain encloses bone"), (-900, "The brain encloses air")])
def test_bone_and_air_in_the_brain(shape, hu, words):
    image, place, _ = head(shape)
    center = np.array([10.0, 20.0, 0.0])[:, None, None, None]
    distance = np.linalg.norm(place - center, axis=0)
    sentences, figures = failed(np.where(distance < 17.4, hu, image))  # 22 ml
    assert len(sentences) == 1 and words in sentences[0]
    share = 17.4**3 / BRAIN**3 if shape == WHOLE else 17.4**2 / BRAIN**2
    assert max(figures.values()) == pytest.approx(share, rel=0.15)
    assert failed(np.where(distance < 4, hu, image))[0] == [], "a calcification"


@pytest.mark.parametrize("shape", [SLICE, WHOLE])
def test_a_missing_part_of_the_skull(shape):
    image, place, radius = head(shape)
    sentences, _ = failed(np.where(sector(place) & (radius >= BRAIN) & (radius < SCALP), 20, image))
    assert any("The skull is open" in sentence for sentence in sentences)


@pytest.mark.parametrize("shape", [SLICE, WHOLE])
def test_a_missing_part_of_the_scalp(shape):
    image, place, radius = head(shape)
    sentences, _ = failed(np.where(sector(place) & (radius >= SKULL), -1000, image))
    assert len(sentences) == 1 and "The scalp is missing" in sentences[0]
    assert "limit 1" in sentences[0]


def test_an_image_without_a_brain_and_thick_slices_are_not_judged():
    image, _, radius = head(SLICE)
    bare = np.where(radius < SKULL, 900, image)
    assert head_order(Volume(bare.astype(np.float32), np.eye(4), "CT", "HU")) == {}
    thick = Volume(head(WHOLE)[0].astype(np.float32), np.diag([2.0, 2, 5, 1]), "CT", "HU")
    assert head_order(thick) == {}


def test_orientation_does_not_matter():
    image, place, radius = head(WHOLE)
    bad = np.where(sector(place) & (radius >= SKULL), -1000, image).astype(np.float32)
    straight = head_order(Volume(bad, np.diag([2.0, 2, 2, 1]), "CT", "HU"))
    turned = np.array([[0, 0, 2, 0], [2, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1]], float)
    moved = np.ascontiguousarray(bad.transpose(1, 2, 0)[:, ::-1])
    assert head_order(Volume(moved, turned, "CT", "HU")) == pytest.approx(straight, abs=0.01)


def test_a_translation_is_checked():
    mr = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    middle = mr.shape[2] // 2
    slab = crop(mr, (0, 0, middle), (*mr.shape[:2], middle + 1))
    report = translate(slab, "CT", accept_license=True, device="cpu").report
    assert set(report.output_checks[0].figures["anatomy"]) == {
        "bone_in_brain",
        "air_in_brain",
        "open_skull",
        "bare_skull",
    }
