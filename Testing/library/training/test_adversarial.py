"""Losses of adversarial training against their formulas, and recipes that are known to learn or not to learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from MedGenLib.networks import ResidualTranslator, SliceTranslator
from MedGenLib.training.adversarial import (
    PIX2PIX_ADAM,
    DiscriminatorPyramid,
    ImagePool,
    feature_matching,
    least_squares_discriminator,
    least_squares_generator,
    patch_discriminator,
    patch_nce,
)
from MedGenLib.training.loop import Draw, OptimizationSettings, Trainer
from MedGenLib.training.recipes.cut import Cut
from MedGenLib.training.recipes.cyclegan import CycleGAN
from MedGenLib.training.recipes.pix2pixhd import Pix2PixHD


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


class Brighter:
    """Textures, and other textures that are brighter by 0.7."""

    def batch(self, draw, size):
        source, target = textures(draw.numpy, size), textures(draw.numpy, size) + 0.7
        return {"source": source, "target": target, "plane": torch.zeros(size, dtype=torch.int64)}

    def validate(self, networks, step, log):
        return {}

    def export(self, networks, step, out):
        return out


class BrighterCut(Brighter, Cut):
    pass


class BrighterCycle(Brighter, CycleGAN):
    pass


CYCLE = {
    "patch": 32,
    "network": {"channels_in": 1, "width": 8, "blocks": 1},
    "discriminator": {"width": 16, "layers": 1},
    "loss": {"adversarial": 1.0, "cycle": 10.0, "identity": 5.0},
    "data": {},
}


def brightens(recipe) -> None:
    """The translator adds 0.7 to textures that it never saw, and keeps their form."""
    source = textures(np.random.default_rng(99), 16)
    with torch.no_grad():
        made = recipe.networks["translator"].eval()(source, torch.zeros(16, dtype=torch.int64))
    assert float((made - source - 0.7).abs().mean()) < 0.25  # 0.7 for the source itself
    assert np.corrcoef(source.flatten(), made.flatten())[0, 1] > 0.8


@pytest.mark.slow
def test_cut_recovers_a_known_change_of_the_intensities_without_pairs(tmp_path):
    torch.manual_seed(0)
    config = {
        **CYCLE,
        "projector": {"width": 32, "places": 128},
        "loss": {"adversarial": 1.0, "nce": 1.0, "identity": 1.0},
    }
    recipe = BrighterCut(config, tmp_path)
    settings = OptimizationSettings(steps=150, batch=2, learning_rate=1e-3, warmup=10, ema=0.97, validate_every=1000)
    Trainer(recipe, settings, tmp_path).run()
    brightens(recipe)


@pytest.mark.slow
def test_cyclegan_recovers_a_known_change_of_the_intensities_without_pairs(tmp_path):
    torch.manual_seed(0)
    recipe = BrighterCycle({**CYCLE, "loss": {**CYCLE["loss"], "identity": 0.5}}, tmp_path)
    settings = OptimizationSettings(steps=150, batch=2, learning_rate=1e-3, warmup=10, ema=0.97, validate_every=1000)
    Trainer(recipe, settings, tmp_path).run()
    brightens(recipe)
    source = textures(np.random.default_rng(98), 16)
    with torch.no_grad():
        back = recipe.networks["back"].eval()(source + 0.7, torch.zeros(16, dtype=torch.int64))
    assert float((back - source).abs().mean()) < 0.25


class Added(torch.nn.Module):
    """A translator that adds a number, or a discriminator that says it."""

    def __init__(self, value: float, image: bool = True) -> None:
        super().__init__()
        self.value, self.image = torch.nn.Parameter(torch.tensor(value)), image

    def forward(self, x, plane=None):
        return x + self.value if self.image else [self.value.expand(len(x), 1, 4, 4)]


def test_the_losses_of_cyclegan_are_those_of_the_paper(tmp_path):
    recipe = CycleGAN(CYCLE, tmp_path)
    recipe.networks |= {"translator": Added(0.3), "back": Added(-0.1)}
    recipe.networks |= {"source_discriminator": Added(0.6, False), "target_discriminator": Added(-2.0, False)}
    batch, draw = recipe.random_batch(3), Draw.of(0, 0)
    loss, parts = recipe.objectives[0].loss(batch, draw)
    expected = {"adversarial": 0.4**2 + 3**2, "cycle": 2 * 0.2, "identity": 0.3 + 0.1}
    assert parts == pytest.approx(expected, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(0.4**2 + 3**2 + 10 * 0.4 + 5 * 0.4, rel=1e-4)
    loss, _ = recipe.objectives[1].loss(batch, draw)
    assert float(loss.detach()) == pytest.approx((0.4**2 + 0.6**2) / 2 + (3**2 + 2**2) / 2)
    assert torch.allclose(recipe.networks["source_pool"].images[:3], batch["target"] - 0.1)


def test_a_pool_returns_new_images_or_earlier_ones_that_they_replace():
    pool, generator = ImagePool(50, 4), np.random.default_rng(0)
    images = torch.arange(1000.0)[:, None, None, None].expand(-1, 1, 4, 4)
    first = pool.exchange(images[:50], generator)
    assert torch.equal(first, images[:50]) and torch.equal(pool.images, images[:50])
    later = pool.exchange(images[50:], generator)[:, 0, 0, 0]
    new = later == torch.arange(50.0, 1000.0)
    assert 0.45 < float(new.float().mean()) < 0.55
    held, shown = pool.images[:, 0, 0, 0].tolist(), later.tolist()
    assert sorted(held + shown) == list(range(1000))  # each image is shown or still held


@pytest.mark.slow
def test_a_resumed_cyclegan_has_the_images_of_its_pools(tmp_path):
    def run(folder, *stops):
        for steps in stops:
            torch.manual_seed(0)
            recipe = BrighterCycle({**CYCLE, "pool": 2}, folder)
            settings = OptimizationSettings(8, 2, decay=1e-9, validate_every=100)
            Trainer(recipe, replace(settings, steps=steps), folder).run()
        return torch.load(folder / "checkpoint.pt", weights_only=True)["networks"]

    one, two = run(tmp_path / "one", 8), run(tmp_path / "two", 4, 8)
    assert all(torch.equal(value, two[name][key]) for name in one for key, value in one[name].items())
    assert int(one["target_pool"]["filled"]) == 2


def test_feature_matching_has_a_closed_form_and_leaves_the_real_maps_alone():
    def maps(*values):
        return [torch.full((2, 3, 4, 4), value, requires_grad=True) for value in values]

    real, fake = [maps(1.0, 2.0, 9.0), maps(0.0, 0.0, 9.0)], [maps(1.5, 0.0, 0.0), maps(1.0, -3.0, 0.0)]
    loss = feature_matching(real, fake)
    assert float(loss.detach()) == pytest.approx(((0.5 + 2) + (1 + 3)) / 2)  # without the logits
    loss.backward()
    assert all(m.grad is None for scale in real for m in scale)
    assert fake[1][0].grad is not None and fake[1][2].grad is None


def test_the_scales_of_pix2pixhd_see_halves_of_the_image(tmp_path):
    torch.manual_seed(0)
    pyramid, image = DiscriminatorPyramid(2, 4, 3, 3).eval(), torch.randn(1, 2, 128, 128)
    found = pyramid(image)
    assert [tuple(maps[-1].shape[2:]) for maps in found] == [(14, 14), (6, 6), (2, 2)]
    kernel = torch.ones(2, 1, 3, 3)
    count = F.conv2d(torch.ones(1, 2, 128, 128), kernel, stride=2, padding=1, groups=2)
    half = F.conv2d(image, kernel, stride=2, padding=1, groups=2) / count  # the mean of 3 x 3 pixels of the image
    assert torch.allclose(found[0][0], pyramid.judges[0](image)[0])
    assert torch.allclose(found[1][0], pyramid.judges[1](half)[0], atol=1e-5)


def test_the_losses_of_pix2pixhd_add_up(tmp_path):
    torch.manual_seed(0)
    config = {
        "patch": 64,
        "network": {"channels_in": 1, "widths": [8, 16], "blocks": [1, 1], "stem": 4},
        "discriminator": {"width": 4, "layers": 3, "scales": 2},
        "loss": {"l1": 0.0, "adversarial": 1.0, "features": 10.0},
        "data": {},
    }
    recipe, draw = Pix2PixHD(config, tmp_path), Draw.of(0, 0)
    batch = recipe.random_batch(2)
    loss, parts = recipe.objectives[0].loss(batch, draw)
    judge = recipe.networks["discriminator"]
    with torch.no_grad():
        real, fake = (judge(torch.cat([batch["source"], batch[key]], 1)) for key in ("target", "made"))
    deceived = sum(float(((maps[-1] - 1) ** 2).mean()) for maps in fake)
    matched = (
        sum(float((f - r).abs().mean()) for k in (0, 1) for f, r in zip(fake[k][:-1], real[k][:-1], strict=True)) / 2
    )
    assert parts["adversarial"] == pytest.approx(deceived, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(deceived + 10 * matched, rel=1e-4)
    loss, _ = recipe.objectives[1].loss(batch, draw)
    expected = sum(float(((r[-1] - 1) ** 2).mean() + (f[-1] ** 2).mean()) / 2 for r, f in zip(real, fake, strict=True))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
