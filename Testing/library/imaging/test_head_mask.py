"""The head mask of the translators: every voxel with signal, and a margin of air."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image, head_from_image
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume
from MedGenLib.io.samples import sample

BRAIN_MM, SKULL_MM, SCALP_MM = 60.0, 74.0, 78.0
"""Outer radii; the scalp is a thin ring around a thick skull with dark marrow."""


def head(shape: tuple[int, ...], signal: np.random.Generator, noise: float = 8.0) -> tuple[Volume, np.ndarray]:
    """An MR image of a head with noise in the air, and where the head is."""
    middle = [(n - 1) / 2 for n in shape]
    offsets = [o for o, n in zip(np.indices(shape), shape, strict=True)]
    radius = np.sqrt(sum((o - m) ** 2 for o, m in zip(offsets, middle, strict=True)))
    level = np.select([radius < BRAIN_MM, radius < SKULL_MM, radius < SCALP_MM], [200.0, 8.0, 300.0])
    array = np.hypot(level + noise * signal.standard_normal(shape), noise * signal.standard_normal(shape))
    return Volume(array.astype(np.float32), np.eye(4), "T1w"), radius < SCALP_MM


@pytest.mark.parametrize("shape", [(190, 190, 1), (190, 1, 190), (190, 190, 40)])
def test_thin_scalp_beyond_dark_marrow_is_inside(shape):
    volume, inside = head(shape, np.random.default_rng(0))
    assert (~(body_envelope_from_image(volume).array > 0) & inside).sum() > 0.1 * inside.sum(), (
        "the scalp is opened away"
    )
    mask = head_from_image(volume).array > 0
    assert (mask & inside).sum() == inside.sum()
    outside = ndimage.distance_transform_edt(~inside)
    assert outside[mask].max() < 20, "noise of the air does not belong to the head"


def test_the_margin_reaches_into_the_part_without_signal():
    """The field of view of the MR ends 10 mm above that of the grid."""
    volume, _ = head((190, 190, 1), np.random.default_rng(1))
    dark = volume.array.copy()
    dark[:, :60] = 0
    mask = head_from_image(volume.with_array(dark)).array[..., 0] > 0
    assert mask[60:130, 50].all() and not mask[:, 40].any()


def test_every_voxel_with_signal_of_the_sample_is_inside():
    volume = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    mask = head_from_image(volume).array > 0
    assert mask[body_envelope_from_image(volume).array > 0].all()


def test_an_empty_image_has_no_head():
    with pytest.raises(InputError, match="shows no body"):
        head_from_image(Volume(np.zeros((20, 20, 20), np.float32), np.eye(4), "T1w"))
