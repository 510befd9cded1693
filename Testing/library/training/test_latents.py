"""Compression and quantizers of the autoencoder, and the variational autoencoder of whole volumes."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from MedGenLib.errors import InputError
from MedGenLib.io.samples import sample
from MedGenLib.networks import Autoencoder, FlowUNet
from MedGenLib.networks.haar import haar, inverse_haar
from MedGenLib.pipelines.windows import decode_tiled
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.layouts import read_dataset
from MedGenLib.trainer.plan import make_plan
from MedGenLib.training.loop import Draw
from MedGenLib.training.losses import divergence
from MedGenLib.training.recipes.autoencoder import AutoencoderRecipe
from MedGenLib.training.recipes.vae import Vae


def plan(**changes: str):
    dataset = read_dataset(sample("hippocampi/dataset.json").parent)
    steps = {"steps.autoencoder": "1", "steps.latent-flow": "1"}
    return make_plan(dataset, inspect(dataset, "T1w")).changed({**steps, **changes}), dataset


def test_the_levels_of_the_haar_transform_are_orthonormal_and_coarse_first():
    x = torch.randn(2, 1, 8, 16, 8)
    bands = haar(x, 3)
    assert bands.shape == (2, 512, 1, 2, 1) and torch.allclose(inverse_haar(bands, 3), x, atol=1e-5)
    assert torch.allclose(
        bands[:, 0], x[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).unfold(3, 8, 8).sum((4, 5, 6)) / 8**1.5, atol=1e-5
    )


@pytest.mark.parametrize(("stride", "quantizer"), [(4, "kl"), (4, "vq"), (8, "none")])
def test_a_tile_with_its_halo_is_that_of_the_whole_volume(stride, quantizer):
    torch.manual_seed(0)
    network = Autoencoder(8, 1, stride, quantizer, codes=16)
    for part in (network.encoder, network.decoder):
        torch.nn.init.normal_(part.leave.weight, 0, 0.1)
    latent = network.encode(torch.randn(1, 1, *[12 * stride] * 3))
    assert latent.shape == (1, 8, 12, 12, 12)
    with torch.inference_mode():
        whole = network.decode(latent)
        tiled = decode_tiled(network.decode, latent, 6, network.halo // stride, stride, lambda done: None)
    assert torch.allclose(whole, tiled, atol=1e-5)
    again = Autoencoder(**network.arguments)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.decode(latent), network.decode(latent))


def test_the_divergence_is_that_of_two_normal_distributions():
    mean, log_variance = torch.randn(50), torch.randn(50)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(50), torch.ones(50)))
    assert torch.allclose(divergence(mean, log_variance), expected, atol=1e-5)


def test_the_nearest_code_counts_and_gradients_pass_it():
    network = Autoencoder(8, 0, 2, "vq", codes=3)
    network.codebook.data = torch.tensor([[0.0] * 4, [1.0] * 4, [-1.0] * 4])
    latent = torch.tensor([0.9, 0.8, 1.2, 1.0, -0.2, 0.1, 0.3, 0.0]).view(1, 8, 1, 1, 1).requires_grad_()
    assert network.quantized(latent).flatten().tolist() == [1.0] * 4 + [0.0] * 4
    network.decode(latent).sum().backward()
    assert latent.grad.abs().max() > 0


@pytest.mark.parametrize("quantizer", ["kl", "vq"])
def test_an_autoencoder_of_a_plan_learns(tmp_path, quantizer):
    made, dataset = plan(compression="4", quantizer=quantizer, autoencoder_width="8", patch="[16, 16, 16]")
    recipe = AutoencoderRecipe(made.config(dataset.cases, tmp_path / "cache"), tmp_path)
    network = recipe.networks["autoencoder"]
    assert network.stride == 4 and network.arguments["width"] == 16
    batch = recipe.batch(Draw.of(0, 0), 1)
    optimizer, losses = torch.optim.Adam(network.parameters(), 3e-3), []
    for step in range(25):
        loss, figures = recipe.objectives[0].loss(batch, Draw.of(0, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(figures["l1"])
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    recipe.export({"autoencoder": network}, 1, tmp_path)
    assert float(network.encode(batch["x"]).std().detach()) == pytest.approx(1, abs=0.5)


def test_the_flow_reads_the_mask_at_the_resolution_of_its_latent(tmp_path):
    flow = FlowUNet(5, widths=[8, 8], blocks=[1, 1], conditioner="mask-encoder/4")
    maps, x = torch.rand(1, 5, 16, 16, 16), torch.randn(1, 8, 4, 4, 4)
    assert flow(x, torch.zeros(1), flow.encode_mask(maps)).shape == x.shape
    made, dataset = plan(compression="4", widths="[8, 16]", blocks="[1, 1]")
    assert made.config(dataset.cases, tmp_path)["flow"]["network"]["conditioner"] == "mask-encoder/4"


def test_compressions_that_cannot_be():
    for changes, sentence in (
        ({"compression": "3"}, "compression is 3; give 2, 4 or 8"),
        ({"compression": "8"}, "give multiples of 32"),
        ({"quantizer": "fsq"}, "quantizer"),
    ):
        with pytest.raises(InputError, match=sentence):
            plan(**changes)


def test_the_evidence_of_a_vae_is_its_closed_form():
    torch.manual_seed(0)
    network = {"widths": [8, 8], "blocks": [0, 0]}
    config = {"classes": (), "network": {"grid": [8, 8, 8], "latent": 4, **network}, "discriminator": network}
    made = Vae(config, None)
    batch = made.random_batch(3)
    torch.nn.init.zeros_(made.networks["generator"].leave.weight)
    with torch.no_grad():
        made.networks["encoder"].judge.weight.zero_()
        made.networks["encoder"].judge.bias.copy_(torch.tensor([1.0] * 4 + [0.0] * 4))
    loss, figures = made.objectives[0].loss(batch, Draw.of(0, 0))
    error = float(batch["image"].square().mean())
    assert figures["nats"] == pytest.approx(4 * 0.5) and figures["error"] == pytest.approx(error, rel=1e-5)
    expected = 0.5 * torch.log(batch["image"].square().mean()) + 2 / 512
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
