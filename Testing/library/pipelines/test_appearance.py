"""Appearance of a reference: noise and levels of a CT, contrast of an MR image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib import generate
from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import embedded_dir, find
from MedGenLib.pipelines.appearance import PERCENTILES, Appearance

SAMPLES = embedded_dir().parent / "SampleData"


def torso(noise: float, fat: float = -95, soft: float = 45, shape=(60, 60, 24)) -> Volume:
    """A body of two tissues at 2 mm, with white noise."""
    grid = np.indices(shape).astype(float)
    radius = np.hypot(grid[0] - 29.5, grid[1] - 29.5)
    hu = np.where(radius < 20, soft, np.where(radius < 27, fat, -1000.0))
    hu += np.random.default_rng(0).normal(0, noise, shape) * (radius < 27)
    return Volume(hu.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), "CT", "HU")


@pytest.fixture(scope="module")
def mask():
    return read_label_map(SAMPLES / "ct_tissue_mask.nii.gz")


def test_noise_and_levels_of_a_ct_are_measured():
    style = Appearance.of(torso(noise=16, fat=-110, soft=58), find("ct-tissue"))
    assert style.levels[1] == pytest.approx(-110, abs=4)
    assert style.levels[2] == pytest.approx(58, abs=4)
    assert set(style.levels) == {1, 2}
    quiet = Appearance.of(torso(noise=5), find("ct-tissue"))
    # The Gaussian of the high-pass filter removes a part of white noise.
    assert 0.75 * 16 < style.noise_hu < 16
    assert style.noise_hu / quiet.noise_hu == pytest.approx(16 / 5, rel=0.1)


def test_a_generated_ct_gets_noise_and_levels(mask):
    """References with more and less noise give tissue with more and less noise, at their means."""
    measured = {}
    for noise in (4, 30):
        reference = torso(noise=noise, fat=-105, soft=60)
        result = generate(mask, seed=1, steps=2, retries=0, device="cpu", style=reference)
        hu = result.volume.array.astype(np.float32)
        soft = result.source.array == 2
        measured[noise] = noise_level(hu, soft)
        assert hu[soft].mean() == pytest.approx(60, abs=1.5)
        assert hu[result.source.array == 1].mean() == pytest.approx(-105, abs=1.5)
        assert result.report.parameters["style"]["levels"][2] == pytest.approx(60, abs=4)
    assert measured[30] > 1.5 * measured[4]


def test_a_tissue_stays_within_the_range_of_the_model_card(mask):
    """Enhanced tissue in a reference must not turn soft tissue into bone."""
    manifest = find("ct-tissue")
    style = Appearance(levels={2: 170.0})
    volume = Volume(np.full(mask.shape, 40, np.int16), mask.affine, "CT", "HU")
    styled = style.apply(volume, mask, manifest)
    high = manifest.statistics.tissues[2].high
    assert styled.array[mask.array == 2].mean() == pytest.approx(high, abs=0.5)
    assert (styled.array[mask.array != 2] == 40).all()


def test_the_contrast_of_an_mr_image_is_transferred_monotonically(mask):
    """The deciles equal those of the reference, and the order of voxels is kept."""
    manifest = find("mr-hippocampus")
    reference = read_volume(SAMPLES / "hippocampus_real.nii.gz")
    dark = reference.with_array((reference.array.astype(np.float32) / 4) ** 1.3)
    labels = read_label_map(SAMPLES / "hippocampus_mask.nii.gz")
    style = Appearance.of(dark, manifest)
    plain = generate(labels, "mr-hippocampus", seed=3, steps=4, retries=0, device="cpu")
    styled = generate(labels, "mr-hippocampus", seed=3, steps=4, retries=0, device="cpu", style=dark)
    found = np.percentile(styled.volume.array, PERCENTILES)
    assert np.allclose(found, style.landmarks, atol=1.5)
    order = np.argsort(plain.volume.array, axis=None, kind="stable")
    assert (np.diff(styled.volume.array.ravel()[order].astype(int)) >= 0).all()
    smooth = [ndimage.gaussian_filter(r.volume.array.astype(float), 1) for r in (plain, styled)]
    assert np.corrcoef(*[s.ravel() for s in smooth])[0, 1] > 0.9


def test_a_reference_with_small_values_keeps_its_fractions():
    manifest = find("mr-hippocampus")
    labels = read_label_map(SAMPLES / "hippocampus_mask.nii.gz")
    reference = read_volume(SAMPLES / "hippocampus_real.nii.gz")
    unit = reference.with_array(reference.array / np.float32(reference.array.max()))
    generated = Volume(reference.array.astype(np.int16), reference.affine, "T1w")
    styled = Appearance.of(unit, manifest).apply(generated, labels, manifest)
    assert len(np.unique(styled.array)) > 50
    assert styled.array.max() <= 1.2


@pytest.mark.parametrize(
    ("reference", "model", "words"),
    [
        ("hippocampus_real.nii.gz", "ct-tissue", "The style reference is MR"),
        ("ct_tissue_real.nii.gz", "mr-hippocampus", "The style reference is CT"),
    ],
)
def test_a_reference_of_another_modality_is_refused(reference, model, words):
    with pytest.raises(InputError, match=words):
        Appearance.of(SAMPLES / reference, find(model))


def test_a_reference_without_anatomy_is_refused():
    flat = Volume(np.full((20, 20, 20), 7, np.float32), np.eye(4), "T1w")
    with pytest.raises(InputError, match="the same value nearly everywhere"):
        Appearance.of(flat, find("mr-hippocampus"))
    air = Volume(np.full((20, 20, 20), -1000, np.float32), np.eye(4), "CT", "HU")
    with pytest.raises(InputError, match="as masks have"):
        Appearance.of(sample("hippocampus_mask.nii.gz"), find("mr-hippocampus"))
    with pytest.raises(InputError, match="no body"):
        Appearance.of(air, find("ct-tissue"))


def test_the_command_line_takes_a_style_and_never_overwrites_it(tmp_path, capsys):
    reference = tmp_path / "reference.nii.gz"
    write_volume(read_volume(SAMPLES / "hippocampus_real.nii.gz"), reference)
    before = reference.read_bytes()
    words = [
        "generate",
        str(SAMPLES / "hippocampus_mask.nii.gz"),
        "--model",
        "mr-hippocampus",
        "--steps",
        "2",
        "--seed",
        "1",
        "--style",
        str(reference),
        "--device",
        "cpu",
    ]
    assert main([*words, "-o", str(reference), "--overwrite"]) == 2
    assert reference.read_bytes() == before
    assert main([*words, "-o", str(tmp_path / "out.nii.gz")]) == 0
    assert (tmp_path / "out.nii.gz").is_file()
