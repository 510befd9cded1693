"""Recipes of generators without a mask: losses and layers against their formulas, and distributions that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from MedGenLib.networks.style_generator import ModulatedConvolution, StyleGenerator
from MedGenLib.networks.volume_gan import VolumeDiscriminator, VolumeGenerator, batch_spread
from MedGenLib.training.adversarial import (
    R3GAN_ADAM,
    WGAN_ADAM,
    between,
    non_saturating_generator,
    one_centered,
    relativistic,
    saturated_discriminator,
    zero_centered,
)
from MedGenLib.training.loop import Draw, OptimizationSettings, Trainer
from MedGenLib.training.recipes.gan import Gan, StyleGan, WganGp

GRID = [8, 8, 8]
NETWORK = {"widths": [8, 8], "blocks": [1, 0]}
LOSSES = {
    Gan: {"r1": 0.5, "lazy": 1},
    WganGp: {"penalty": 10.0, "critic_steps": 5, "lazy": 1},
    StyleGan: {"r1": 1.0, "lazy": 16},
}


def recipe(kind, classes=(), **loss):
    network = {"widths": [8, 8]} if kind is StyleGan else NETWORK
    config = {
        "classes": classes,
        "network": {"grid": GRID, **network, "latent": 8},
        "discriminator": NETWORK,
        "loss": {**LOSSES[kind], **loss},
    }
    torch.manual_seed(0)
    return kind(config, None)


def linear(weights):
    return lambda x: x.flatten(1) @ weights


def test_losses_are_those_of_the_papers():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0])
    pairs = [math.log(1 + math.exp(-(r - f))) for r, f in ((2.0, 0.5), (-1.0, 1.0))]
    assert float(relativistic(real, fake)) == pytest.approx(np.mean(pairs), rel=1e-5)
    sigmoid = torch.sigmoid
    expected = -(sigmoid(real).log() + (1 - sigmoid(fake)).log()).mean()
    assert float(saturated_discriminator(real, fake)) == pytest.approx(float(expected), rel=1e-5)
    assert float(non_saturating_generator(fake)) == pytest.approx(float(-sigmoid(fake).log().mean()), rel=1e-5)


def test_penalties_of_a_linear_critic_have_a_closed_form():
    weights = torch.tensor([3.0, 0.0, 4.0])
    x = torch.randn(5, 3, requires_grad=True)
    assert float(one_centered(linear(weights)(x), x)) == pytest.approx((5 - 1) ** 2, rel=1e-5)
    assert float(zero_centered(linear(weights)(x), x)) == pytest.approx(25 / 2, rel=1e-5)
    flat = (x * 0).sum(1)
    assert float(zero_centered(flat, x)) == 0
    quadratic = (x**2).sum(1) / 2  # its gradient is the image itself
    assert float(zero_centered(quadratic, x).detach()) == pytest.approx(
        float(x.detach().square().sum(1).mean()) / 2, rel=1e-5
    )


def test_the_points_of_the_penalty_lie_between_real_and_fake():
    real, fake = torch.zeros(64, 1, 2), torch.ones(64, 1, 2)
    points = between(real, fake, torch.Generator().manual_seed(0))
    assert torch.equal(points[:, 0, 0], points[:, 0, 1]) and 0 <= points.min() < 0.1 and 0.9 < points.max() <= 1


def test_the_critic_of_two_shifted_gaussians_has_the_slope_of_the_closed_form():
    """Of a shift of 3, a critic of slope s gets 3 s - 10 (s - 1)^2, which is largest at s = 1 + 3 / 20."""
    torch.manual_seed(0)
    critic = nn.Linear(1, 1)
    nn.init.constant_(critic.weight, 0.1)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-2, WGAN_ADAM.betas)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        noise = torch.randn(256, 1, generator=generator)
        real, fake = noise + 3, noise
        points = between(real, fake, generator).requires_grad_()
        loss = critic(fake).mean() - critic(real).mean() + 10 * one_centered(critic(points), points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critic.weight.item() == pytest.approx(1.15, abs=0.03)


def test_the_relativistic_loss_with_both_penalties_finds_all_modes():
    """Eight Gaussians on a ring, which a generator that collapses would not cover."""
    torch.manual_seed(0)
    angles = torch.arange(8) * math.pi / 4
    centers = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    layers = [
        [nn.Linear(a, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2), nn.Linear(48, b)]
        for a, b in ((4, 2), (2, 1))
    ]
    made, judge = (nn.Sequential(*part) for part in layers)
    adams = [torch.optim.Adam(net.parameters(), 3e-3, R3GAN_ADAM.betas) for net in (made, judge)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(700):
        chosen = torch.randint(8, (128,), generator=generator)
        real = centers[chosen] + 0.1 * torch.randn(128, 2, generator=generator)
        for turn, optimizer in zip(("judge", "made"), adams[::-1], strict=True):
            fake = made(torch.randn(128, 4, generator=generator))
            if turn == "judge":
                x, y = real.clone().requires_grad_(), fake.detach().requires_grad_()
                logits = judge(x), judge(y)
                loss = relativistic(*logits) + 0.05 * (zero_centered(logits[0], x) + zero_centered(logits[1], y))
            else:
                loss = relativistic(judge(fake), judge(real))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    samples = made(torch.randn(2000, 4, generator=generator)).detach()
    distance, nearest = torch.cdist(samples, centers).min(1)
    shares = torch.bincount(nearest[distance < 0.5], minlength=8) / len(samples)
    assert float(shares.sum()) > 0.55 and float(shares.min()) > 0.03


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulation_of_input_and_output_is_that_of_the_weights(demodulate):
    """The weights of each item as in section 2.2 of the paper, in one grouped convolution."""
    torch.manual_seed(0)
    layer = ModulatedConvolution(6, 5, 3, 4, demodulate)
    x, w = torch.randn(3, 6, 4, 5, 6), torch.randn(3, 4)
    weight = layer.weight * layer.scale * layer.style(w)[:, None, :, None, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((2, 3, 4, 5), keepdim=True) + 1e-8).sqrt()
    expected = F.conv3d(x.reshape(1, 18, 4, 5, 6), weight.flatten(0, 1), padding=1, groups=3).reshape(3, 5, 4, 5, 6)
    assert torch.allclose(layer(x, w), expected, atol=1e-5)


def test_demodulation_keeps_the_variance_for_any_style():
    torch.manual_seed(0)
    layer = ModulatedConvolution(32, 32, 3, 8)
    made = layer(torch.randn(4, 32, 12, 12, 12), 20 * torch.randn(4, 8))[:, :, 1:-1, 1:-1, 1:-1]
    assert torch.allclose(made.var((1, 2, 3, 4)), torch.ones(4), atol=0.15)


def test_noise_of_the_layers_is_off_at_first_and_changes_detail_with_its_strength():
    torch.manual_seed(0)
    network, kind = StyleGenerator(GRID, [8, 8], latent=8), torch.zeros(2).long()
    noise = torch.randn(2, 8)

    def volume(seed):
        return network(noise, kind, torch.Generator().manual_seed(seed))

    assert torch.equal(volume(0), volume(1))
    for layer in network.refine:
        nn.init.ones_(layer.strength)
    assert not torch.equal(volume(0), volume(1)) and torch.equal(volume(1), volume(1))


@pytest.mark.parametrize("kind", [VolumeGenerator, StyleGenerator])
def test_a_generator_starts_with_values_about_1_that_depend_on_noise_and_class(kind):
    torch.manual_seed(0)
    extra = {"blocks": [1, 1, 0]} if kind is VolumeGenerator else {}
    network = kind([16, 24, 16], [16, 16, 8], latent=32, classes=3, **extra)
    noise = torch.randn(32, 32)
    made = network(noise, torch.zeros(32).long())
    assert made.shape == (32, 1, 16, 24, 16) and 0.2 < float(made.std()) < 4
    assert float(made.std(0).mean()) > 0.1  # from noise
    assert float((network(noise, torch.ones(32).long()) - made).abs().mean()) > 0.1


def test_the_spread_of_a_batch_tells_a_collapsed_generator():
    x = torch.randn(4, 3, 8, 8, 8)
    assert batch_spread(x).shape == (4, 1, 8, 8, 8) and 0.6 < float(batch_spread(x)[0, 0, 0, 0, 0]) < 1.1
    assert float(batch_spread(x[:1].expand(4, -1, -1, -1, -1)).max()) < 1e-3
    judge = VolumeDiscriminator(GRID, [8, 8], [1, 0], spread=True)
    images, kind = torch.randn(4, 1, *GRID), torch.zeros(4).long()
    assert not torch.allclose(judge(images, kind), torch.cat([judge(x[None], kind[:1]) for x in images]))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_lazy_penalty_is_the_whole_one_on_average(kind):
    made = recipe(kind, lazy=4)
    batch = made.random_batch(2)
    figures = [made.objectives[0].loss(batch, Draw.of(0, step)) for step in range(8)]
    assert [("penalty" in parts) for _, parts in figures] == [step % 4 == 0 for step in range(8)]
    loss, parts = figures[4]
    assert float(loss.detach()) == pytest.approx(parts["discriminator"] + 4 * parts["penalty"], rel=1e-5)


def test_the_generator_learns_in_each_fifth_step_of_the_critic():
    made = recipe(WganGp)
    counts = dict.fromkeys((o.name for o in made.objectives), 0)
    for step in range(10):
        for objective in made.objectives:
            counts[objective.name] += step % objective.every == 0
    assert counts == {"discrimination": 10, "generation": 2} and made.period == 5


def test_gradients_of_the_generator_do_not_change_the_discriminator():
    made = recipe(Gan)
    loss, _ = made.objectives[1].loss(made.random_batch(2), Draw.of(0, 0))
    loss.backward()
    assert all(p.grad is None and p.requires_grad for p in made.networks["discriminator"].parameters())
    assert all(p.grad is not None for p in made.networks["generator"].parameters())


@pytest.mark.parametrize("kind", LOSSES)
def test_each_recipe_learns_the_levels_of_two_classes(kind, tmp_path):
    """Images of one class are dark and those of the other bright, by levels that differ between images."""
    made = recipe(kind, classes=("dark", "bright"), **({} if kind is WganGp else {"r1": 5.0}))

    def batch(draw, size):
        number = torch.arange(size) % 2
        level = (2 * number - 1) + 0.2 * torch.randn(size, generator=draw.torch)
        return {"image": level.view(-1, 1, 1, 1, 1).expand(-1, 1, *GRID).clone(), "kind": number}

    made.batch, made.validate = batch, lambda networks, step, log: {}
    made.export = lambda networks, step, out: networks
    steps = 240 if kind is WganGp else 80
    settings = OptimizationSettings(steps, batch=8, learning_rate=3e-3, warmup=10, ema=0.9, checkpoint_every=10**6)
    network = Trainer(made, settings, tmp_path).run()["generator"]
    with torch.no_grad():
        dark, bright = (network(torch.randn(16, 8), torch.full((16,), number)).mean() for number in (0, 1))
    assert float(bright) - float(dark) > 1


def test_a_step_without_a_turn_leaves_the_networks_of_an_objective_alone(tmp_path):
    made = recipe(WganGp)
    made.batch, made.validate = lambda draw, size: made.random_batch(size), lambda networks, step, log: {}
    made.export = lambda networks, step, out: made.networks["generator"]
    before = [p.clone() for p in made.networks["generator"].parameters()]
    Trainer(made, OptimizationSettings(1, batch=2, warmup=0), tmp_path).run()
    once = [p.clone() for p in made.networks["generator"].parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, once, strict=True))
    (tmp_path / "checkpoint.pt").unlink()
    trainer = Trainer(made, OptimizationSettings(5, batch=2, warmup=0), tmp_path)
    trainer._resume = lambda: setattr(trainer, "step", 1)
    trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(once, made.networks["generator"].parameters(), strict=True))
