"""The noise of a generated CT: the usual one of the mask's voxels, unless the user or a style image gives another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from MedGenLib import generate
from MedGenLib.cli import main
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.io.recorded import read
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.estimate import plan_run
from MedGenLib.pipelines.scanner_noise import scanner_noise
from MedGenLib.pipelines.scene import prepare

FAST = {"seed": 4, "preset": "draft", "retries": 0, "device": "cpu"}
NAMES = {1: "fat", 2: "soft tissue", 3: "bone"}
NO_CUBES = "12.1 HU, usual for voxels other than cubes of 1.5 to 3 mm"


def mask(*spacing: float, turned: float = 0.0) -> LabelMap:
    """Bone in soft tissue in fat, turned about the first axis by an angle in radians."""
    labels = np.ones((20, 20, 20), np.uint8)
    labels[4:16, 4:16, 4:16], labels[8:12, 8:12] = 2, 3
    affine = np.diag([*(spacing * 3)[:3], 1.0])
    sine, cosine = np.sin(turned), np.cos(turned)
    affine[1:3, 1:3] = np.array([[cosine, -sine], [sine, cosine]]) @ affine[1:3, 1:3]
    return LabelMap(labels, affine, NAMES)


@pytest.mark.parametrize(
    ("spacing", "level", "reason"),
    [
        ((1.5,), 15.9, "15.9 HU, usual at 1.5 mm"),
        ((2.0,), 12.1, "12.1 HU, usual at 2 mm"),
        ((3.0,), 13.0, "13 HU, usual at 3 mm"),
        ((2.0, 2.0, 3.27), 12.1, NO_CUBES),
        ((1.0,), 12.1, NO_CUBES),
    ],
)
def test_the_default_is_usual_for_the_voxels_of_the_mask(spacing, level, reason):
    manifest = find("ct-tissue")
    straight, turned = (prepare(mask(*spacing, turned=angle), manifest) for angle in (0.0, 0.3))
    assert straight.conditions == {"noise_hu": level, "noise": reason} == turned.conditions
    assert straight.scalars == pytest.approx(turned.scalars)
    assert plan_run(manifest, mask(*spacing).geometry).noise == reason


def test_the_default_is_that_noise_and_the_option_wins():
    usual, same, other = (generate(mask(3.0), noise_hu=noise, **FAST) for noise in (None, 13, 20))
    assert np.array_equal(usual.volume.array, same.volume.array)
    inner = binary_erosion(usual.source.array == 2)
    rough = [np.abs(np.diff(made.volume.array.astype(float), axis=0))[inner[1:]].mean() for made in (usual, other)]
    assert rough[1] > 1.1 * rough[0]
    assert other.report.parameters["noise_hu"] == 20 and "noise" not in other.report.parameters


def test_the_condition_makes_up_for_resampling():
    manifest = find("ct-tissue")
    kept = manifest.settings.resampled_noise.kept
    assert scanner_noise(manifest, (2, 2, 2), True, 12).condition == pytest.approx(12 / kept)
    assert scanner_noise(manifest, (2, 2, 2), True, 45).condition == 50
    assert scanner_noise(manifest, (2, 2, 2), False, 12).condition == 12


def test_a_style_image_wins():
    labels = mask(3.0)
    rough = np.where(labels.array == 2, 45, -95) + np.random.default_rng(0).normal(0, 40, labels.shape)
    reference = Volume(rough.astype(np.float32), labels.affine, "CT", "HU")
    found = generate(labels, style=reference, **FAST).report.parameters
    assert found["noise_hu"] == found["style"]["noise_hu"] > 12 and "noise" not in found


def test_models_without_a_usual_noise_name_none():
    assert plan_run(find("mr-brain"), mask(1.0).geometry).noise == ""
    assert plan_run(find("mr-hippocampus"), mask(1.0).geometry).noise == ""
    assert plan_run(find("head-mr-to-ct"), mask(1.0).geometry).noise == ""


def test_the_command_line_and_the_record_state_the_noise(tmp_path, capsys):
    write_volume(mask(3.0), tmp_path / "mask.nii.gz")
    arguments = ["generate", str(tmp_path / "mask.nii.gz"), "-o", str(tmp_path / "ct.nii.gz"), "--preset", "draft"]
    assert main([*arguments, "--map", "model", "--seed", "4", "--retries", "0"]) in (0, 3)
    assert "Noise: 13 HU, usual at 3 mm." in capsys.readouterr().out
    assert read(tmp_path / "ct.nii.gz").parameters["noise"] == "13 HU, usual at 3 mm"
