"""Diffusion in voxels: denoiser against closed forms, and training of the recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hippocampi import small_config, sphere
from safetensors.torch import load_file

from MedGenLib import generate
from MedGenLib.diffusion import SAMPLERS
from MedGenLib.diffusion.cosine import CosineDenoiser, v_target
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.packages import store
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.training import train

SD = 0.5


def gaussian_v(x: torch.Tensor, t: float) -> torch.Tensor:
    """The optimal estimate of v for normal data with mean 1 and standard deviation SD."""
    signal, spread = math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)
    total = (signal * SD) ** 2 + spread**2
    noise, data = spread * (x - signal) / total, (SD**2 * signal * x + spread**2) / total
    return signal * noise - spread * data


@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (0.5, 0.5), (2.0, 0.1), (0.01, 1.0)])
def test_the_denoiser_gives_the_posterior_mean(alpha, sigma):
    """E[data | x] of a normal prior in closed form, for any scale of x."""
    x = torch.linspace(-2, 3, 11)
    expected = (SD**2 * alpha * x + sigma**2) / ((alpha * SD) ** 2 + sigma**2)
    found = CosineDenoiser(gaussian_v)(x, alpha, sigma)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "heun"])
def test_every_sampler_reaches_the_distribution_with_a_network_of_v(name):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 30, 30, 30, generator=generator)
    drawn = SAMPLERS[name](CosineDenoiser(gaussian_v), noise, 200, generator=generator)
    assert float(drawn.mean()) == pytest.approx(1, abs=0.03)
    assert float(drawn.std()) == pytest.approx(SD, abs=0.04)


def test_the_path_has_unit_variance_and_derivative_v():
    torch.manual_seed(0)
    data, noise = torch.randn(4, 1, 20, 20, 20), torch.randn(4, 1, 20, 20, 20)
    times = torch.tensor([0.0, 0.3, 0.7, 1.0])
    points, v = v_target(data, noise, times)
    assert torch.equal(points[0], data[0])
    assert torch.allclose(points[3], noise[3], atol=1e-6)
    assert points.std(dim=(1, 2, 3, 4)).sub(1).abs().max() < 0.02
    ahead, _ = v_target(data, noise, times + 1e-3)
    assert torch.allclose((ahead - points) / 1e-3, math.pi / 2 * v, atol=1e-2)


@pytest.fixture(scope="module")
def package(crops, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pixel")
    path = small_config(folder, crops)
    config = json.loads(path.read_text())
    config["optimisation"]["pixel-diffusion"] = config["optimisation"].pop("latent-flow")
    config["package"]["metadata"]["name"] = "tiny-pixels"
    config["package"]["medgen"]["sampler"] = {"name": "ddim", "prediction": "v", "presets": {"normal": {"steps": 4}}}
    config["package"]["medgen"]["statistics"] = {}
    path.write_text(json.dumps(config))
    return train("pixel-diffusion", path, folder / "flow", device="cpu")


def test_the_recipe_exports_a_valid_package_without_a_learned_latent(package):
    assert store.verify(load_manifest(package)) == []
    codec = load_file(str(package / "models" / "autoencoder.safetensors"))
    assert all(not v.any() for k, v in codec.items() if "leave" in k)  # the bare Haar transform


def test_a_package_that_predicts_v_is_sampled_with_v(package, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    store.add(package)
    labels = np.zeros((16, 20, 16), np.uint8)
    labels[sphere((16, 20, 16), (8, 13, 8), 3)] = 1
    result = generate(LabelMap(labels, np.eye(4)), "tiny-pixels", mapping="model", seed=1, retries=0, device="cpu")
    assert result.volume.shape == (16, 20, 16)
    assert result.report.sampler == "ddim"
    assert np.isfinite(result.volume.array).all()
    assert result.volume.array.std() > 0
