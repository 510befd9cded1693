"""Classifier guidance: against a closed form, and with a trained classifier."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hippocampi import small_config, sphere

from MedGenLib import generate
from MedGenLib.diffusion import SAMPLERS
from MedGenLib.diffusion.flow import FlowDenoiser
from MedGenLib.diffusion.guidance import LARGEST_FACTOR, ClassifierGuidance
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.packages import store
from MedGenLib.training import train


def standard_normal(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """Posterior mean of standard normal data."""
    return alpha * x / (alpha**2 + sigma**2)


def logistic(point: torch.Tensor, time: float) -> torch.Tensor:
    """A classifier of two labels whose log odds are the point itself."""
    return torch.cat([torch.zeros_like(point), point], 1)


def wanting(label: int, x: torch.Tensor) -> torch.Tensor:
    wanted = torch.zeros(1, 2, *x.shape[2:])
    wanted[:, label] = 1
    return wanted


@pytest.mark.parametrize(("alpha", "sigma"), [(0.7, 0.3), (0.5, 0.5), (0.9, 0.6)])
def test_the_estimate_moves_by_the_gradient_of_the_classifier(alpha, sigma):
    """d/dx log sigmoid(x / s) = sigmoid(-x / s) / s with s = alpha + sigma."""
    x = torch.linspace(-2, 2, 27).view(1, 1, 3, 3, 3)
    guided = ClassifierGuidance(standard_normal, logistic, wanting(1, x), weight=2.0)
    total = alpha + sigma
    expected = 2 * sigma**2 / alpha * torch.sigmoid(-x / total) / total
    moved = guided(x, alpha, sigma) - standard_normal(x, alpha, sigma)
    assert torch.allclose(moved, expected, atol=1e-6)


def test_weight_0_changes_nothing_and_pure_noise_is_bounded():
    x = torch.randn(1, 1, 4, 4, 4)
    free = ClassifierGuidance(standard_normal, logistic, wanting(1, x), weight=0.0)
    assert torch.equal(free(x, 0.5, 0.5), standard_normal(x, 0.5, 0.5))
    guided = ClassifierGuidance(standard_normal, logistic, wanting(1, x), weight=1.0)
    assert (guided(x, 0.0, 1.0) - standard_normal(x, 0.0, 1.0)).abs().max() <= LARGEST_FACTOR


@pytest.mark.parametrize("name", ["euler", "ddim", "heun"])
def test_every_sampler_follows_the_target_label_also_in_inference_mode(name):
    noise = torch.randn(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    means = []
    with torch.inference_mode():
        for label in (0, 1):
            denoise = ClassifierGuidance(standard_normal, logistic, wanting(label, noise), 1.0)
            means.append(float(SAMPLERS[name](denoise, noise, 20).mean()))
    assert means[0] < -0.2
    assert means[1] > 0.2
    assert math.isclose(means[0], -means[1], abs_tol=0.15)  # the labels are symmetric


def test_the_flow_denoiser_is_differentiated():
    x = torch.randn(1, 1, 4, 4, 4)
    plain = FlowDenoiser(lambda x, t: torch.zeros_like(x))
    guided = ClassifierGuidance(plain, logistic, wanting(1, x), 1.0)
    assert (guided(x, 0.5, 0.5) > plain(x, 0.5, 0.5)).all()


@pytest.fixture(scope="module")
def package(crops, tmp_path_factory) -> Path:
    """A classifier of the embedded hippocampus model, trained for some steps on drawn crops."""
    folder = tmp_path_factory.mktemp("classifier")
    path = small_config(folder, crops)
    config = json.loads(path.read_text())
    config["classifier"] = {"package": "mr-hippocampus", "patch": [16, 24, 16], "network": {"widths": [8, 16]}}
    config["optimisation"]["classifier"] = {
        "steps": 40,
        "batch": 2,
        "learning_rate": 0.01,
        "warmup": 1,
        "ema": 0.9,
        "validate_every": 39,
        "checkpoint_every": 100,
        "precision": "fp32",
    }
    (folder / "added.md").write_text("## Classifier\n\n{steps} steps.\n")
    config["package"].update(
        version="9.0.0", changelog="a classifier", presets={}, command="medgen train classifier", card="added.md"
    )
    path.write_text(json.dumps(config))
    package = train("classifier", path, folder / "run", device="cpu")
    lines = (folder / "run" / "validation.jsonl").read_text().splitlines()
    return package, json.loads(lines[-1])


def test_the_recipe_learns_and_extends_the_package(package):
    folder, figures = package
    assert figures["entropy at 0.1"] < 0.75 * math.log(3)  # better than guessing
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["version"] == "9.0.0"
    assert metadata["medgen"]["networks"]["classifier"]["network"] == "LatentClassifier"
    assert (folder / "docs" / "README.md").read_text().endswith("40 steps.\n")


def test_a_package_with_a_classifier_is_guided(package, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    folder, _ = package
    renamed = tmp_path / "guided"
    _copy_as(folder, renamed, "guided")
    store.add(renamed)
    labels = np.zeros((16, 20, 16), np.uint8)
    labels[sphere((16, 20, 16), (8, 13, 8), 3)] = 1
    mask = LabelMap(labels, np.eye(4))
    options = {"mapping": "model", "seed": 1, "steps": 3, "retries": 0, "device": "cpu"}
    free = generate(mask, "guided", **options)
    guided = generate(mask, "guided", **options, classifier_guidance=1.0)
    assert guided.report.parameters["classifier_guidance"] == 1.0
    assert np.abs(guided.volume.array.astype(int) - free.volume.array).max() > 5
    with pytest.raises(InputError, match="choose 0 to 1"):
        generate(mask, "guided", **options, classifier_guidance=-1)


def test_a_package_without_a_classifier_refuses(tmp_path):
    mask = LabelMap(np.full((16, 16, 16), 2, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="'ct-tissue' has no classifier"):
        generate(mask, "ct-tissue", seed=1, steps=1, device="cpu", classifier_guidance=1.0)


def _copy_as(package: Path, target: Path, name: str) -> None:
    import shutil

    from MedGenLib.packages import seal

    shutil.copytree(package, target)
    path = target / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["name"] = name
    path.write_text(json.dumps(metadata))
    seal(target)
