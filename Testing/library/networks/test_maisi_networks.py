"""MAISI's networks against MONAI's own: the same values, less memory."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from maisis import CHANNELS, random_network
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi

from MedGenLib.networks import build, slabs
from MedGenLib.networks import maisi as nets
from MedGenLib.networks.slabs import Kept, Map, Room
from MedGenLib.packages.hub.nv_generate import AUTOENCODER, PUBLISHED

MONAI = {
    "MaisiAutoencoder": (AutoencoderKlMaisi, {"num_splits": 1, "save_mem": False}),
    "MaisiControlNet": (ControlNetMaisi, {}),
    "MaisiUNet": (DiffusionModelUNetMaisi, {}),
}
CT = PUBLISHED["nv-generate-ct"].networks
PARAMETERS = {"autoencoder": 20.9e6, "flow": 180.5e6, "controlnet": 72.0e6}


def pair(role: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A small network and its MONAI counterpart with the same weights."""
    spec = CT[role]
    arguments = {**spec["arguments"], **copy.deepcopy(CHANNELS[role])}
    ours = random_network(spec["network"], arguments)
    cls, options = MONAI[spec["network"]]
    theirs = cls(**copy.deepcopy(arguments), **options)
    assert theirs.load_state_dict(ours.state_dict()).missing_keys == []
    return ours, theirs.eval()


@pytest.fixture(scope="module")
def autoencoders():
    return pair("autoencoder")


@pytest.fixture(scope="module")
def controlnets():
    return pair("controlnet")


ROOMS = {
    "everything": Room(),
    "some maps": Room(largest=4 * 8 * 40 * 24 * 20),
    "hardly any": Room(largest=4 * 8 * 20 * 12 * 10),
    "nothing": Room(largest=0),
}


@pytest.mark.parametrize("slab", [2**24, 3000], ids=["one slab", "many slabs"])
@pytest.mark.parametrize("room", ROOMS)
@torch.inference_mode()
def test_decoding_is_exact_for_every_memory_limit(autoencoders, room, slab, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_VALUES", slab)
    ours, theirs = autoencoders
    latent = 3 * torch.randn((1, 4, 10, 6, 5), generator=torch.Generator().manual_seed(1))
    expected = theirs.decode(latent)
    image = ours.decode(latent, ROOMS[room])
    assert image.shape == (1, 1, 40, 24, 20) and image.dtype == torch.float32
    assert float(expected.std()) > 0.1
    assert torch.allclose(image, expected, atol=2e-5)


@pytest.mark.parametrize("room", ROOMS)
@torch.inference_mode()
def test_encoding_is_exact(autoencoders, room, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_VALUES", 3000)
    ours, theirs = autoencoders
    image = torch.rand((1, 1, 24, 20, 16), generator=torch.Generator().manual_seed(2))
    for made, expected in zip(ours.encode(image, ROOMS[room]), theirs.encode(image), strict=True):
        assert float(expected.std()) > 1e-3
        assert torch.allclose(made, expected, atol=2e-5)


@torch.inference_mode()
def test_tiles_of_a_decoder_with_group_normalization_differ(autoencoders):
    """The reason for slabs: the image of half a latent differs from the whole even far from the cut."""
    _, theirs = autoencoders
    latent = torch.randn((1, 4, 24, 4, 4), generator=torch.Generator().manual_seed(3))
    latent[:, :, 12:] *= 4
    whole, half = theirs.decode(latent), theirs.decode(latent[:, :, :12])
    assert float((whole[:, :, :8] - half[:, :, :8]).abs().max()) > 0.05


@torch.inference_mode()
def test_half_precision_maps_have_a_small_error(autoencoders):
    ours, theirs = autoencoders
    latent = torch.randn((1, 4, 8, 8, 8), generator=torch.Generator().manual_seed(4))
    expected = theirs.decode(latent)
    error = ours.decode(latent, Room(dtype=torch.float16)) - expected
    assert 0 < float(error.std()) < 5e-3 * float(expected.std())


@torch.inference_mode()
def test_maps_above_the_limit_are_not_kept(autoencoders, monkeypatch):
    """With a limit, no larger map is kept except the image itself."""
    kept = []
    monkeypatch.setattr(Kept, "__init__", _recording(Kept.__init__, kept))
    latent = torch.randn(1, 4, 8, 8, 8)
    autoencoders[0].decode(latent, Room(largest=100_000))
    image = 4 * 32**3
    assert max(size for size in kept if size != image) <= 100_000
    kept.clear()
    autoencoders[0].decode(latent)
    assert max(kept) > 4 * image


def _recording(original, sizes):
    def init(self, tensor):
        original(self, tensor)
        sizes.append(tensor.numel() * tensor.element_size())

    return init


@torch.inference_mode()
def test_a_block_reuses_memory(autoencoders, monkeypatch):
    """The second convolution of a block overwrites the result of the first one."""
    monkeypatch.setattr(slabs, "SLAB_VALUES", 500)
    targets = []
    original = slabs.keep

    def keep(source: Map, dtype, into=None):
        result = original(source, dtype, into)
        targets.append(into is not None and result.tensor is into.tensor)
        return result

    monkeypatch.setattr(slabs, "keep", keep)
    autoencoders[0].decode(torch.randn(1, 4, 4, 4, 4))
    assert sum(targets) == 4  # residual blocks of the small decoder


def test_progress_counts_the_layers(autoencoders):
    done = []
    ours = autoencoders[0]
    with torch.inference_mode():
        ours.decode(torch.zeros(1, 4, 2, 2, 2), on_layer=lambda: done.append(1))
    assert len(done) == ours.layers


@pytest.mark.parametrize(
    "wrong",
    [{"attention_levels": [False, False, True]}, {"with_decoder_nonlocal_attn": True}, {"use_convtranspose": True}],
)
def test_unsupported_autoencoders_are_refused(wrong):
    with pytest.raises(ValueError, match="attention or transposed"):
        build("MaisiAutoencoder", {**AUTOENCODER["arguments"], **CHANNELS["autoencoder"], **wrong})


def bits(labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([((labels.int() >> bit) & 1).float() for bit in range(8)])[None]


@pytest.mark.parametrize("tile", [32, 5])
@torch.inference_mode()
def test_the_mask_is_encoded_once_and_in_tiles(controlnets, tile, monkeypatch):
    monkeypatch.setattr(nets, "EMBED_TILE", tile)
    ours, theirs = controlnets
    numbers = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 256, (64, 48, 32), generator=numbers, dtype=torch.uint8)
    latent = torch.randn((1, 4, 16, 12, 8), generator=numbers)
    time, kind = torch.tensor([700.0]), torch.ones(1, dtype=torch.long)
    down, middle = theirs(latent, time, bits(labels), class_labels=kind)
    embedded = ours.embed(labels)
    made_down, made_middle = ours.residuals(latent, time, embedded, kind)
    assert float(middle.std()) > 0.1
    assert torch.allclose(made_middle, middle, atol=1e-4)
    assert len(made_down) == len(down)
    for made, expected in zip(made_down, down, strict=True):
        assert torch.allclose(made, expected, atol=1e-4)


@torch.inference_mode()
def test_fused_attention_is_exact():
    ours, theirs = pair("flow")
    latent = torch.randn((1, 4, 8, 12, 8), generator=torch.Generator().manual_seed(6))
    conditions = {
        "timesteps": torch.tensor([500.0]),
        "class_labels": torch.tensor([9]),
        "spacing_tensor": torch.tensor([[100.0, 100.0, 250.0]]),
    }
    expected = theirs(latent, **conditions)
    assert float(expected.std()) > 0.1
    assert torch.allclose(ours(latent, **conditions), expected, atol=1e-4)


@torch.inference_mode()
def test_lower_precision_keeps_norms_and_outermost_layers():
    arguments = {**AUTOENCODER["arguments"], **CHANNELS["autoencoder"]}
    net = random_network("MaisiAutoencoder", arguments)
    latent = torch.randn((1, 4, 6, 6, 6), generator=torch.Generator().manual_seed(7))
    expected = net.decode(latent)
    nets.lower_precision(net, torch.bfloat16)
    blocks = net.decoder.blocks
    assert blocks[1].conv1.conv.conv.weight.dtype == torch.bfloat16
    assert blocks[1].norm1.weight.dtype == blocks[-1].conv.conv.weight.dtype == torch.float32
    error = net.decode(latent) - expected
    assert 0 < float(error.std()) < 0.05 * float(expected.std())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_have_monais_keys_and_size(name):
    for role, spec in PUBLISHED[name].networks.items():
        cls, options = MONAI[spec["network"]]
        with torch.device("meta"):
            ours = build(spec["network"], copy.deepcopy(dict(spec["arguments"])))
            theirs = cls(**copy.deepcopy(dict(spec["arguments"])), **options)
        shapes = {key: value.shape for key, value in ours.state_dict().items()}
        assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
        if name == "nv-generate-ct":
            count = sum(math.prod(shape) for shape in shapes.values())
            assert count == pytest.approx(PARAMETERS[role], rel=5e-3)


@torch.inference_mode()
def test_the_published_decoder_is_exact():
    """The published architecture with random weights."""
    ours = random_network("MaisiAutoencoder", AUTOENCODER["arguments"])
    theirs = AutoencoderKlMaisi(**AUTOENCODER["arguments"], num_splits=1, save_mem=False).eval()
    theirs.load_state_dict(ours.state_dict())
    latent = torch.randn((1, 4, 4, 4, 6), generator=torch.Generator().manual_seed(8))
    expected = theirs.decode(latent)
    for room in (Room(), Room(largest=0)):
        assert torch.allclose(ours.decode(latent, room), expected, atol=1e-4)
