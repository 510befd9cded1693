"""Losses of adversarial training against their formulas, and recipes that are known to learn or not to learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from MedGenLib.networks import ResidualTranslator, SliceTranslator
from MedGenLib.training.adversarial import (
    PIX2PIX_ADAM,
    least_squares_discriminator,
    least_squares_generator,
    patch_discriminator,
    patch_nce,
)
from MedGenLib.training.loop import OptimizationSettings, Trainer
from MedGenLib.training.recipes.cut import Cut


def test_least_squares_losses_are_those_of_the_textbook():
    real, fake = torch.tensor([1.5, 0.0]), torch.tensor([-5.0, 2.0])
    assert float(least_squares_generator(fake)) == pytest.approx(((-5 - 1) ** 2 + (2 - 1) ** 2) / 2)
    assert float(least_squares_discriminator(real, fake)) == pytest.approx(((0.25 + 1) / 2 + (25 + 4) / 2) / 2)
    logit = torch.tensor([-5.0], requires_grad=True)
    least_squares_generator(logit).backward()
    assert float(logit.grad) == pytest.approx(-12)  # no activation makes the gradient of a bad fake vanish


def test_patch_nce_of_orthogonal_features_has_a_closed_form():
    features = torch.eye(256)[None]
    expected = math.log(1 + 255 * math.exp(-1 / 0.07))
    assert float(patch_nce(features, features)) == pytest.approx(expected, rel=1e-2)
    same = F.normalize(torch.ones(2, 256, 8), dim=-1)  # all places alike: a guess among 256
    assert float(patch_nce(same, same)) == pytest.approx(math.log(256), rel=1e-5)
    swapped = features[:, [1, 0, *range(2, 256)]]
    assert float(patch_nce(features, swapped)) == pytest.approx(expected + 2 / 256 / 0.07, rel=1e-3)


def test_patch_nce_takes_negatives_from_its_own_image_and_leaves_the_keys_alone():
    one, two = (F.normalize(torch.randn(1, 16, 8), dim=-1) for _ in range(2))
    both = patch_nce(torch.cat([one, two]), torch.cat([two, one]))
    assert float(both) == pytest.approx(float(patch_nce(one, two) + patch_nce(two, one)) / 2, rel=1e-5)
    queries, keys = (F.normalize(torch.randn(1, 16, 8), dim=-1).requires_grad_() for _ in range(2))
    patch_nce(queries, keys).backward()
    assert queries.grad is not None and keys.grad is None


def test_a_logit_sees_70_pixels():
    judge = patch_discriminator(1, width=4).eval()
    for module in judge.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):  # it sees the whole image
            module.forward = lambda x: x
    image = torch.randn(1, 1, 128, 128, requires_grad=True)
    maps = judge(image)[-1]
    maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2].backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 70


@pytest.mark.parametrize("network", [ResidualTranslator(1, 8, 2), SliceTranslator(1, (8, 16), (1, 1), 4)])
def test_the_values_of_a_slice_do_not_depend_on_its_size(network):
    """What lies beyond the receptive field of a pixel does not change it."""
    network.eval()
    torch.manual_seed(0)
    small, plane = torch.randn(1, 1, 96, 96), torch.zeros(1, dtype=torch.int64)
    large = F.pad(small, (32, 0, 32, 0), value=3.0)
    with torch.no_grad():
        near, far = network(small, plane)[..., 64:, 64:], network(large, plane)[..., 96:, 96:]
    assert torch.allclose(near, far, atol=1e-5)


def test_features_of_the_residual_network_follow_the_layers():
    network = ResidualTranslator(1, 8, 5)
    found = network.features(torch.randn(2, 1, 32, 32), torch.zeros(2, dtype=torch.int64))
    assert [tuple(x.shape[1:]) for x in found] == [(1, 32, 32), (16, 16, 16), *[(32, 8, 8)] * 3]
    assert tuple(x.shape[1] for x in found) == network.widths


def test_the_optimizer_of_pix2pix_is_that_of_the_paper():
    assert (PIX2PIX_ADAM.betas, PIX2PIX_ADAM.weight_decay, PIX2PIX_ADAM.clip) == ((0.5, 0.999), 0.0, None)


def textures(generator: np.random.Generator, count: int) -> torch.Tensor:
    """Smooth dark textures (b, 1, 32, 32) from -0.85 to 0.15."""
    smooth = np.stack([gaussian_filter(generator.normal(size=(32, 32)), 2.5, mode="wrap") for _ in range(count)])
    values = -0.35 + 0.5 * np.tanh(1.5 * smooth / smooth.std((1, 2), keepdims=True))
    return torch.from_numpy(values.astype(np.float32))[:, None]


class Brightened(Cut):
    """CUT on textures, whose targets are other textures that are brighter by 0.7."""

    def batch(self, draw, size):
        source, target = textures(draw.numpy, size), textures(draw.numpy, size) + 0.7
        return {"source": source, "target": target, "plane": torch.zeros(size, dtype=torch.int64)}

    def validate(self, networks, step, log):
        return {}

    def export(self, networks, step, out):
        return out


def test_cut_recovers_a_known_change_of_the_intensities_without_pairs(tmp_path):
    torch.manual_seed(0)
    config = {
        "patch": 32,
        "network": {"channels_in": 1, "width": 8, "blocks": 1},
        "discriminator": {"width": 16, "layers": 1},
        "projector": {"width": 32, "places": 128},
        "loss": {"adversarial": 1.0, "nce": 1.0, "identity": 1.0},
        "data": {},
    }
    recipe = Brightened(config, tmp_path)
    settings = OptimizationSettings(steps=150, batch=2, learning_rate=1e-3, warmup=10, ema=0.97, validate_every=1000)
    Trainer(recipe, settings, tmp_path).run()
    source = textures(np.random.default_rng(99), 16)
    with torch.no_grad():
        made = recipe.networks["translator"].eval()(source, torch.zeros(16, dtype=torch.int64))
    assert float((made - source - 0.7).abs().mean()) < 0.25  # 0.7 for the source itself
    assert np.corrcoef(source.flatten(), made.flatten())[0, 1] > 0.8
