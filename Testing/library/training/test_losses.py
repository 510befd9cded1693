"""Terms of the flow's loss: theory, real networks, and training runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hippocampi import small_config

from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.normalization import Affine, TissueStandard, ZScore
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.io.samples import sample
from MedGenLib.networks import FlowUNet
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network
from MedGenLib.training import train
from MedGenLib.training.config import read_config
from MedGenLib.training.loop import Draw
from MedGenLib.training.losses import (
    Anatomy,
    Contrast,
    Region,
    Terms,
    TrainingStep,
    balanced_cross_entropy,
    region_contrast,
    standardized,
)
from MedGenLib.training.recipes.latent_flow import LatentFlowRecipe

CODEC = Affine(500, 200)


@pytest.fixture(scope="module")
def run(crops, tmp_path_factory) -> Path:
    """A folder with a trained autoencoder and the configuration beside it."""
    folder = tmp_path_factory.mktemp("losses")
    train("autoencoder", small_config(folder, crops), folder / "autoencoder", device="cpu")
    return folder


def recipe(run: Path, losses: dict | None = None) -> LatentFlowRecipe:
    torch.manual_seed(0)
    config = read_config(run / "config.json")
    if losses is not None:
        config["flow"]["losses"] = losses
    return LatentFlowRecipe(config, run / "flow")


def one_hot(labels: torch.Tensor, count: int) -> torch.Tensor:
    """(i, j, k) -> (1, count, i, j, k)."""
    return torch.nn.functional.one_hot(labels.long(), count).permute(3, 0, 1, 2)[None].float()


def a_step(maps: torch.Tensor, time: float = 0.1, velocity: torch.Tensor | None = None) -> TrainingStep:
    generator = torch.Generator().manual_seed(0)
    shape = (maps.shape[0], 8, *(n // 2 for n in maps.shape[2:]))
    point, target = (torch.randn(shape, generator=generator) for _ in range(2))
    return TrainingStep(
        maps,
        torch.ones_like(maps[:, :1]),
        point,
        target,
        target.clone() if velocity is None else velocity,
        torch.full((len(maps),), time),
    )


# Region


def test_a_region_has_the_configured_weight():
    labels = torch.zeros(4, 4, 4)
    labels[0, 0, 0], labels[3, 3, 3] = 1, 2
    weights = Region((1,), 20.0).weights(one_hot(labels, 3))
    assert weights.shape == (1, 1, 2, 2, 2)
    assert weights[0, 0, 0, 0, 0] == 20 and weights.sum() == 20 + 7
    both = Region((1, 2), 20.0).weights(one_hot(labels, 3))
    assert both[0, 0, 1, 1, 1] == 20 and both.sum() == 40 + 6


def test_without_terms_or_with_weight_1_the_loss_is_unchanged(run):
    plain, even, more = (
        recipe(run, losses)
        for losses in (
            None,
            {"region": {"labels": [1], "weight": 1}},
            {"region": {"labels": ["anterior"], "weight": 30}},
        )
    )
    batch = plain.batch(Draw.of(0, 0), 2)
    values = [float(r._loss(batch, Draw.of(0, 1))[0].detach()) for r in (plain, even, more)]
    assert values[0] == values[1] != values[2]
    # An untrained network predicts 0, so the error is the velocity.
    data = plain._encode(batch["x"])
    draw = Draw.of(0, 1)
    noise = torch.randn(data.shape, generator=draw.torch)
    error = (noise - data).square().mean(1, keepdim=True)
    share = torch.nn.functional.avg_pool3d(batch["valid"], 2).clamp(min=0.05)
    weight = share * Region((1,), 30.0).weights(batch["maps"])
    assert values[2] == pytest.approx(float((weight * error).sum() / weight.sum()), rel=1e-5)


# Contrast


def test_a_contrast_requires_a_difference_inside_and_the_truth_outside():
    region = torch.zeros(1, 1, 6, 6, 6)
    region[..., 1:3, 1:3, 1:3] = 1
    valid = torch.ones_like(region)
    target = torch.randn(1, 8, 6, 6, 6)
    alike, outside = region_contrast(target, target.clone(), target, region, valid, 2.0)
    assert (float(alike), float(outside)) == (2.0, 0.0)
    half = target + region * 0.5
    assert float(region_contrast(target, half, target, region, valid, 2.0)[0]) == pytest.approx(1.5)
    far = target + region * 3
    alike, outside = region_contrast(target, far, target, region, valid, 2.0)
    assert (float(alike), float(outside)) == (0.0, 0.0)  # inside it may be anything


def test_the_margin_of_a_region_is_not_constrained():
    region = torch.zeros(1, 1, 8, 8, 8)
    region[..., 3:5, 3:5, 3:5] = 1
    target = torch.randn(1, 8, 8, 8, 8)
    without = (target + torch.rand(target.shape)).requires_grad_()
    valid = torch.ones_like(region)
    valid[..., 0] = 0
    alike, outside = region_contrast(target, without, target, region, valid, 9.0)
    (inner,) = torch.autograd.grad(alike, without, retain_graph=True)
    (outer,) = torch.autograd.grad(outside, without)
    ring = torch.nn.functional.max_pool3d(region, 3, 1, 1) - region
    for gradient in (inner, outer):
        assert not (gradient * ring).any()
    assert (inner.abs().amax(1, keepdim=True) > 0).float().equal(region)
    assert not outer[..., 0].any() and not (outer * region).any() and outer.any()
    assert (inner < 0).any() and not (inner > 0).any()  # downhill is further apart
    assert (outer >= 0).all()  # and downhill is nearer to the truth


def test_an_erased_label_is_replaced_and_others_are_unchanged():
    labels = torch.randint(0, 4, (6, 6, 6))
    maps = torch.cat([one_hot(labels, 4), torch.randn(1, 3, 6, 6, 6)], 1)
    erased = Contrast((3, 1), into=2).erased(maps)
    expected = torch.where((labels == 1) | (labels == 3), 2, labels)
    assert torch.equal(erased[:, :4], one_hot(expected, 4))
    assert torch.equal(erased[:, 4:], maps[:, 4:])


def test_a_contrast_ignores_masks_without_the_region():
    torch.manual_seed(0)
    net = FlowUNet(maps=3, widths=(8, 16), blocks=(1, 1))
    torch.nn.init.normal_(net.leave.weight, std=0.05)
    labels = torch.zeros(8, 8, 8)
    labels[2:6, 2:6, 2:6] = 1
    with_it = one_hot(labels, 3)
    term = Contrast((1,), 0, weight=1.0)
    nothing, figures = term(net, a_step(torch.zeros_like(with_it)))
    assert float(nothing) == 0 and figures == {}
    alone, figures = term(net, a_step(with_it))
    assert float(alone.detach()) == pytest.approx(figures["region_alike"] + figures["outside_error"])
    # A batch of two with one dropped mask: half of it.
    both = torch.cat([with_it, torch.zeros_like(with_it)])
    half, figures = term(net, a_step(both))
    assert float(half.detach()) == pytest.approx((figures["region_alike"] + figures["outside_error"]) / 2, rel=1e-5)


def test_training_with_a_contrast_increases_the_effect_of_the_mask():
    """Forty steps on one batch: with the term, the mask has more effect on the velocity."""
    labels = torch.zeros(8, 8, 8)
    labels[2:6, 2:6, 2:6] = 1
    maps = one_hot(labels, 2)

    def apart(term: Contrast | None) -> float:
        torch.manual_seed(0)
        net = FlowUNet(maps=2, widths=(8, 16), blocks=(1, 1))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(40):
            fixed = a_step(maps)
            velocity = net(fixed.point, fixed.time, net.encode_mask(maps))
            made = TrainingStep(maps, fixed.valid, fixed.point, fixed.target, velocity, fixed.time)
            loss = (velocity - fixed.target).square().mean()
            if term is not None:
                loss = loss + term(net, made)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            erased = Contrast((1,), 0).erased(maps)
            both = [net(fixed.point, fixed.time, net.encode_mask(m)) for m in (maps, erased)]
        inside = torch.nn.functional.max_pool3d(maps[:, 1:], 2) > 0
        return float((both[0] - both[1]).abs().mean(1, keepdim=True)[inside].mean())

    assert apart(Contrast((1,), 0, weight=0.5)) > 1.5 * apart(None)


# Anatomy


@pytest.fixture(scope="module")
def hippocampus():
    """The real sample crop, cropped to whole strides: image (1, 1, ...) and labels (i, j, k)."""
    image = read_volume(sample("hippocampus_real.nii.gz")).array[:32, :48, :32]
    labels = read_label_map(sample("hippocampus_mask.nii.gz")).array[:32, :48, :32]
    return torch.from_numpy(image.copy())[None, None], torch.from_numpy(labels.astype(np.int64))


@pytest.fixture(scope="module")
def parts():
    """The real autoencoder and segmenter of the packages."""
    cpu = torch.device("cpu")
    return (
        network(find("mr-hippocampus"), "autoencoder", cpu),
        network(find("hippocampus-segmenter"), "segmenter", cpu),
    )


def anatomy(parts, **options) -> Anatomy:
    autoencoder, segmenter = parts
    return Anatomy(segmenter, autoencoder, {0: 0, 1: 1, 2: 2}, (-3, 5), **options)


def on_the_path(parts, image, labels, t=0.2, error=0.0) -> TrainingStep:
    """A real crop on its path, with the true velocity or a noisy one."""
    x = (image - image.mean()) / image.std()
    latent = parts[0].encode(x).detach()
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(latent.shape, generator=generator)
    velocity = noise - latent + error * torch.randn(latent.shape, generator=generator)
    maps = one_hot(labels, 3)
    return TrainingStep(
        maps,
        torch.ones_like(maps[:, :1]),
        torch.lerp(latent, noise, t),
        noise - latent,
        velocity.requires_grad_(),
        torch.tensor([t]),
    )


def test_a_frozen_segmenter_distinguishes_the_correct_mask(parts, hippocampus):
    image, labels = hippocampus
    term = anatomy(parts, weight=1.0)
    right, _ = term(None, on_the_path(parts, image, labels))
    moved, _ = term(None, on_the_path(parts, image, labels.roll(6, 1)))
    wrong, _ = term(None, on_the_path(parts, image, labels, error=3.0))
    assert float(right.detach()) < 0.5 * float(moved.detach())
    assert float(right.detach()) < float(wrong.detach())


def test_its_gradient_reaches_the_velocity_and_points_to_the_mask(parts, hippocampus):
    image, labels = hippocampus
    step = on_the_path(parts, image, labels, error=1.0)
    term = anatomy(parts, weight=1.0)
    before, _ = term(None, step)
    (gradient,) = torch.autograd.grad(before, step.velocity)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
    downhill = (step.velocity - 100 * gradient).detach().requires_grad_()
    after, _ = term(None, TrainingStep(**{**vars(step), "velocity": downhill}))
    assert float(after.detach()) < float(before.detach())
    assert not any(p.requires_grad or p.grad is not None for net in parts for p in net.parameters())


def test_late_times_and_dropped_masks_are_ignored(parts, hippocampus):
    image, labels = hippocampus
    term = anatomy(parts, weight=1.0, until=0.3)
    for t, mask in ((0.31, 1), (0.9, 1), (0.1, 0)):
        step = on_the_path(parts, image, labels, t=t)
        step.maps.mul_(mask)
        value, figures = term(None, step)
        assert float(value.detach()) == 0 and figures == {}
    value, figures = term(None, on_the_path(parts, image, labels, t=0.29))
    assert float(value.detach()) == pytest.approx(figures["anatomy"]) and float(value.detach()) > 0


def test_images_are_standardized_as_for_the_segmenter(hippocampus):
    image, _ = hippocampus
    expected = ZScore(-3, 5).encode(image[0, 0].numpy())
    inside = torch.ones_like(image)
    found = standardized(image, inside, (-3, 5))[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Padding has no effect.
    padded = torch.nn.functional.pad(image, (0, 8), value=1e4)
    inside = torch.nn.functional.pad(inside, (0, 8))
    found = standardized(padded, inside, (-3, 5))[0, 0].numpy()
    np.testing.assert_allclose(found[..., :-8], expected, atol=1e-4)
    assert not found[..., -8:].any()


def test_a_small_structure_counts_as_much_as_the_background():
    labels = torch.zeros(4, 4, 4)
    labels[0, 0, 0] = 1
    maps = one_hot(labels, 3)
    classes = {0: 0, 1: 1, 2: 2}
    even = balanced_cross_entropy(torch.zeros(1, 3, 4, 4, 4), maps, classes)
    assert float(even) == pytest.approx(np.log(3))
    sure = torch.zeros(1, 3, 4, 4, 4)
    sure[:, 0] = 50  # all background: one voxel of 64 is wrong, and half of the loss is
    assert float(balanced_cross_entropy(sure, maps, classes)) == pytest.approx(25)


# In training


LOSSES = {
    "region": {"labels": ["anterior hippocampus"], "weight": 10},
    "contrast": {"labels": [1, 2], "into": 0, "weight": 0.01, "window": 2},
    "anatomy": {"package": "hippocampus-segmenter", "weight": 0.05, "until": 1.0},
}


def test_all_terms_together_train_resume_and_export(run):
    config = json.loads((run / "config.json").read_text())
    config["flow"]["losses"] = LOSSES
    path = run / "all.json"
    path.write_text(json.dumps(config))
    straight = train("latent-flow", path, run / "straight", device="cpu")
    assert (straight / "models").is_dir()

    def killed(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("latent-flow", path, run / "resumed", device="cpu", progress=killed)
    train("latent-flow", path, run / "resumed", device="cpu")
    first, second = (
        torch.load(run / name / "checkpoint.pt", weights_only=True)["networks"]["flow"]
        for name in ("straight", "resumed")
    )
    for name in first:
        assert torch.isfinite(first[name]).all() and torch.equal(first[name], second[name]), name


def test_every_term_is_reported_with_name_and_weight(run):
    made = recipe(run, LOSSES)
    torch.nn.init.normal_(made.networks["flow"].leave.weight, std=0.05)
    batch = made.batch(Draw.of(0, 0), 2)
    total, figures = made._loss(batch, Draw.of(0, 3))
    assert figures.keys() == {"velocity", "region_alike", "outside_error", "anatomy"}
    contrast = 0.01 * (figures["region_alike"] + figures["outside_error"])
    expected = figures["velocity"] + contrast + 0.05 * figures["anatomy"]
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4)
    total.backward()
    assert made.networks["flow"].leave.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({"focus": {}}, "no loss term 'focus'"),
        ({"region": {"labels": [7], "weight": 2}}, "names the label 7"),
        ({"region": {"labels": [], "weight": 2}}, "empty"),
        ({"region": {"labels": [1], "weight": 0.5}}, "give 1 or more"),
        ({"contrast": {"labels": [1], "into": 1}}, "erased into itself"),
        ({"contrast": {"labels": ["liver"]}}, "names the label liver"),
        ({"contrast": {"labels": [1], "window": 0}}, "more than 0"),
        ({"anatomy": {"package": "hippocampus-segmenter", "until": 2}}, "until is 2"),
    ],
)
def test_wrong_terms_get_a_sentence(run, losses, words):
    with pytest.raises(InputError, match=words):
        recipe(run, losses)


def test_a_segmenter_that_does_not_fit_gets_a_sentence(run):
    with pytest.raises((InputError, PackageError), match="ct-tissue"):
        recipe(run, {"anatomy": {"package": "ct-tissue"}})
    config = read_config(run / "config.json")
    config["flow"]["losses"] = {"anatomy": {"package": "hippocampus-segmenter"}}
    with pytest.raises(InputError, match="one scale"):
        Terms.of(config, TissueStandard((0.0,), (1.0,)), torch.nn.Identity())
    labels = config["package"]["medgen"]["input"]["labels"]
    labels["1"], labels["2"] = {"name": "liver"}, {"name": "spleen"}
    with pytest.raises(InputError, match="has none"):
        Terms.of(config, CODEC, torch.nn.Identity())
    with pytest.raises(TypeError):  # train() makes a sentence of it
        config["flow"]["losses"] = {"contrast": {"labels": [1], "windows": 2}}
        Terms.of(config, CODEC, torch.nn.Identity())
