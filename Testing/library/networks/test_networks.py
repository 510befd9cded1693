"""Networks: exact transforms, finite receptive fields, effect of the conditions."""

from __future__ import annotations

import pytest
import torch

from MedGenLib.networks import MAISI_NETWORKS, NETWORKS, build
from MedGenLib.networks.blocks import space_to_depth
from MedGenLib.networks.haar import haar, inverse_haar
from MedGenLib.packages.manifest import ALLOWED_NETWORKS
from MedGenLib.pipelines.windows import decode_tiled


def randomized(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights everywhere, also in layers initialized to zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        weights = torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(weights / max(1, parameter[0].numel()) ** 0.5)
    return network.eval().requires_grad_(False)


def test_the_allow_list_names_exactly_the_networks():
    assert set(ALLOWED_NETWORKS) == {*NETWORKS, *MAISI_NETWORKS}


def test_haar_is_orthonormal_and_inverts():
    x = torch.randn(2, 1, 6, 8, 4)
    bands = haar(x)
    assert bands.shape == (2, 8, 3, 4, 2)
    assert torch.allclose(inverse_haar(bands), x, atol=1e-6)
    assert float(bands.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)
    flat = haar(torch.ones(1, 1, 2, 2, 2))
    assert torch.allclose(flat.flatten()[1:], torch.zeros(7), atol=1e-6)


def test_haar_is_exact_under_autocast():
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        back = inverse_haar(haar(x))
    assert back.dtype == torch.float32 and torch.allclose(back, x, atol=1e-6)


def test_space_to_depth_keeps_every_value_in_its_block():
    x = torch.arange(4 * 4.0).reshape(1, 1, 4, 4)
    folded = space_to_depth(x)
    assert folded.shape == (1, 4, 2, 2)
    assert sorted(folded[0, :, 0, 0].tolist()) == [0, 1, 4, 5]


def test_the_decoder_inverts_the_normalization_of_the_autoencoder():
    network = randomized(build("Autoencoder", {"width": 8, "blocks": 1}))
    image = torch.randn(1, 1, 16, 16, 16)
    before = network.decode(network.encode(image))
    latents = network.encode(image).flatten(2)[0]
    network.normalize(latents)
    latent = network.encode(image)
    assert torch.allclose(latent.mean((0, 2, 3, 4)), torch.zeros(8), atol=1e-5)
    assert torch.allclose(latent.std((0, 2, 3, 4)), torch.ones(8), atol=1e-4)
    assert torch.allclose(network.decode(latent), before, atol=1e-4)


@pytest.mark.parametrize("tile", [4, 7, 8])
def test_tiled_decoding_equals_decoding_at_once(tile):
    network = randomized(build("Autoencoder", {"width": 8, "blocks": 1}))
    latent = torch.randn(1, 8, 18, 13, 11)
    whole = network.decode(latent)
    tiles = []
    tiled = decode_tiled(network.decode, latent, tile, network.halo // 2, network.stride, tiles.append)
    assert torch.allclose(tiled, whole, atol=1e-4)
    assert tiles == list(range(1, len(tiles) + 1)) and len(tiles) > 1


def test_tiles_without_a_halo_differ():
    network = randomized(build("Autoencoder", {"width": 8, "blocks": 1}))
    latent = torch.randn(1, 8, 16, 8, 8)
    tiled = decode_tiled(network.decode, latent, 8, 0, network.stride)
    assert not torch.allclose(tiled, network.decode(latent), atol=1e-4)


FLOW = {"maps": 3, "scalars": 2, "widths": [8, 16], "blocks": [1, 1]}


def test_velocity_depends_on_time_mask_and_scalars():
    network = randomized(build("FlowUNet", FLOW))
    x, maps = torch.randn(1, 8, 8, 8, 8), torch.randn(1, 3, 16, 16, 16)
    features, scalars = network.encode_mask(maps), torch.zeros(1, 2)
    base = network(x, torch.tensor([0.5]), features, scalars)
    assert base.shape == x.shape
    others = (
        network(x, torch.tensor([0.6]), features, scalars),
        network(x, torch.tensor([0.5]), network.encode_mask(maps * 0), scalars),
        network(x, torch.tensor([0.5]), features, scalars + 1),
        network(x * 0.9, torch.tensor([0.5]), features, scalars),
    )
    for other in others:
        assert float((other - base).abs().max()) > 1e-4


def test_the_flow_network_without_attention_is_local():
    network = randomized(build("FlowUNet", FLOW))
    x, maps = torch.randn(1, 8, 64, 4, 4), torch.randn(1, 3, 128, 8, 8)
    changed = x.clone()
    changed[:, :, 56:] += 1
    time, scalars = torch.tensor([0.5]), torch.zeros(1, 2)
    features = network.encode_mask(maps)
    difference = network(changed, time, features, scalars) - network(x, time, features, scalars)
    assert float(difference[:, :, :20].abs().max()) == 0
    assert float(difference[:, :, 56:].abs().max()) > 0


def test_the_translator_preserves_the_size_and_depends_on_the_plane():
    network = randomized(build("SliceTranslator", {"widths": [8, 16], "blocks": [1, 1], "stem": 4}))
    x = torch.randn(2, 1, 24, 32)
    axial = network(x, torch.zeros(2, dtype=torch.long))
    assert axial.shape == (2, 1, 24, 32)
    assert not torch.allclose(axial, network(x, torch.ones(2, dtype=torch.long)))


def test_an_empty_slice_does_not_depend_on_other_slices_of_the_batch():
    network = randomized(build("SliceTranslator", {"widths": [8, 16], "blocks": [1, 1], "stem": 4}))
    empty, full = torch.zeros(1, 1, 16, 16), torch.randn(1, 1, 16, 16)
    plane = torch.zeros(1, dtype=torch.long)
    alone = network(empty, plane)
    together = network(torch.cat([empty, full]), plane.repeat(2))[:1]
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Autoencoder", {"width": 8, "blocks": 1}),
        ("FlowUNet", FLOW),
        ("SliceTranslator", {"widths": [8, 16], "blocks": [1, 1], "stem": 4}),
    ],
)
def test_a_network_can_be_rebuilt_from_its_arguments(name, arguments):
    network = build(name, arguments)
    build(name, network.arguments).load_state_dict(network.state_dict())
    assert {**network.arguments, **arguments} == network.arguments
