"""The networks of MAISI (NV-Generate-CTMR), derived from MONAI's, with lower memory use on any device.

State dictionaries have MONAI's keys, so the published weights load unchanged. The computation
differs: attention does not materialize its matrix, the ControlNet encodes the mask once per sample
instead of at every step, and the autoencoder works slab by slab with the exact result (see `slabs`).

Guo et al. 2025, arXiv 2409.11169 (MAISI); Zhao et al. 2026, arXiv 2508.05772 (MAISI v2).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import (
    AutoencoderKlMaisi,
    MaisiConvolution,
    MaisiDownsample,
    MaisiGroupNorm3D,
    MaisiResBlock,
    MaisiUpsample,
)
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from monai.networks.blocks.selfattention import SABlock
from torch import Tensor, nn

from MedGenLib.networks.slabs import Convolution, Doubled, Kept, Map, Normalized, Room, Sum, keep

EVERYTHING = Room()
EMBED_TILE = 32
"""Side, in latent voxels, of the tiles in which the ControlNet encodes a mask."""


def lower_precision(network: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of convolutions, linear layers and embeddings in ``dtype``.

    Autocast would convert them at every evaluation. Normalization layers and the layers in
    ``network.exact`` stay in float32.
    """
    exact = set(getattr(network, "exact", ()))
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear) and module not in exact:
            module.to(dtype)


class MaisiUNet(DiffusionModelUNetMaisi):
    """Velocity (or noise) at a latent (b, 4, i, j, k); i, j, k are multiples of `stride`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, use_flash_attention=False)
        self.stride = 2 ** (len(self.block_out_channels) - 1)
        _fuse_attention(self)


class MaisiControlNet(ControlNetMaisi):
    """Residuals that a mask adds to the U-Net's features.

    `embed` encodes a mask once per sample; `residuals` takes its result at every evaluation.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, use_checkpointing=False, use_flash_attention=False)
        self.bits = self.controlnet_cond_embedding.conv_in.conv.in_channels
        levels = len(self.controlnet_cond_embedding.blocks) // 2
        self.image_stride = 2**levels
        # In latent voxels: 3x3x3 convolutions, two at every resolution but the last, which has one.
        self.halo = levels + 1
        _fuse_attention(self)

    def embed(self, labels: Tensor) -> Tensor:
        """Labels (s i, s j, s k), integers below 2**bits, with s = `image_stride` -> (1, c, i, j, k).

        A label is encoded in binary, one bit per channel (MONAI's `binarize_labels`). The encoder
        has no normalization over space, so tiles with a halo give the same values as the whole.
        """
        step = self.image_stride
        shape = [n // step for n in labels.shape]
        whole = None
        for inner, outer in _tiles(shape, EMBED_TILE, self.halo):
            part = labels[tuple(slice(step * s.start, step * s.stop) for s in outer)]
            part = self.controlnet_cond_embedding(self._binary(part))
            cut = [slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)]
            if whole is None:
                whole = part.new_empty((1, part.shape[1], *shape))
            whole[(slice(None), slice(None), *inner)] = part[(slice(None), slice(None), *cut)]
        return whole

    def _binary(self, labels: Tensor) -> Tensor:
        powers = 2 ** torch.arange(self.bits, device=labels.device)
        bits = labels.int()[None, None] & powers.int().view(1, -1, 1, 1, 1)
        weight = self.controlnet_cond_embedding.conv_in.conv.weight
        return bits.ne(0).to(weight.dtype)

    def residuals(
        self, x: Tensor, timesteps: Tensor, embedded: Tensor, class_labels: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """MONAI's ``forward`` with conditioning scale 1, from an embedded mask (1, c, i, j, k)."""
        embedding = self._prepare_time_and_class_embedding(x, timesteps, class_labels)
        h = self._apply_initial_convolution(x) + embedded
        down, h = self._apply_down_blocks(embedding, None, h)
        h = self._apply_mid_block(embedding, None, h)
        return self._apply_controlnet_blocks(h, down)


def _tiles(shape: list[int], side: int, halo: int) -> list[tuple[tuple, tuple]]:
    """Slices of the tiles that cover a grid, each without and with a halo clipped to the grid."""
    tiles = []
    for corner in product(*(range(0, n, side) for n in shape)):
        inner = tuple(slice(c, min(c + side, n)) for c, n in zip(corner, shape, strict=True))
        outer = tuple(slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in zip(inner, shape, strict=True))
        tiles.append((inner, outer))
    return tiles


def _fuse_attention(network: nn.Module) -> None:
    """Use PyTorch's fused attention, without a matrix of voxels times voxels, on every device.

    MONAI's constructor option does the same but raises an error without CUDA.
    """
    for module in network.modules():
        if isinstance(module, SABlock):
            module.use_flash_attention = True


class MaisiAutoencoder(AutoencoderKlMaisi):
    """Image (1, 1, 4i, 4j, 4k) <-> latent (1, 4, i, j, k), exact at any size.

    With group normalization every voxel depends on the whole image, so tiles with a halo differ in
    brightness. `encode` and `decode` work in slabs with the statistics of the whole image.

    Raises
    ------
    ValueError: the arguments ask for attention or transposed convolutions, which the published
        networks do not have.
    """

    def __init__(self, **arguments: Any) -> None:
        attention = (
            *arguments["attention_levels"],
            arguments.get("with_encoder_nonlocal_attn"),
            arguments.get("with_decoder_nonlocal_attn"),
        )
        if any(attention) or arguments.get("use_convtranspose"):
            raise ValueError("an autoencoder with attention or transposed convolutions")
        super().__init__(
            **arguments, use_checkpointing=False, norm_float16=False, num_splits=1, dim_split=0, save_mem=False
        )
        self.stride = 2 ** (len(arguments["num_channels"]) - 1)
        # First and last layers of both halves: rounding to bfloat16 there would cost up to 4 HU.
        self.exact = {
            self.encoder.blocks[0].conv.conv,
            self.encoder.blocks[-1].conv.conv,
            self.decoder.blocks[-1].conv.conv,
            self.post_quant_conv.conv,
            self.quant_conv_mu.conv,
            self.quant_conv_log_sigma.conv,
        }

    def encode(
        self, image: Tensor, room: Room = EVERYTHING, on_layer: Callable[[], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (1, 4, i, j, k) of the latent; parameters as in `decode`."""
        h = self._run(self.encoder.blocks, Kept(image), room, on_layer)
        mean = keep(Convolution(h, self.quant_conv_mu.conv), torch.float32).tensor
        log_variance = keep(Convolution(h, self.quant_conv_log_sigma.conv), torch.float32).tensor
        return mean, torch.exp(log_variance.clamp(-30.0, 20.0) / 2)

    def decode(self, latent: Tensor, room: Room = EVERYTHING, on_layer: Callable[[], None] | None = None) -> Tensor:
        """Image (1, 1, 4i, 4j, 4k) of a latent, in float32.

        Parameters
        ----------
        room: limit of the maps kept in memory. Larger maps are recomputed for every layer that
            needs them, which trades time for memory.
        on_layer: called after each layer, `layers` times in all.
        """
        h = keep(Convolution(Kept(latent), self.post_quant_conv.conv), torch.float32)
        return self._run(self.decoder.blocks, h, room, on_layer).tensor

    @property
    def layers(self) -> int:
        """Number of calls of ``on_layer`` by `decode`."""
        return len(self.decoder.blocks)

    def _run(self, blocks: nn.ModuleList, x: Map, room: Room, on_layer: Callable[[], None] | None) -> Kept:
        *inner, last = blocks
        for block in inner:
            x = _LAYERS[type(block)](block, x, room)
            if on_layer is not None:
                on_layer()
        x = keep(Convolution(x, last.conv.conv), torch.float32)
        if on_layer is not None:
            on_layer()
        return x


def _convolution(block: MaisiConvolution, x: Map, room: Room) -> Map:
    return _kept(Convolution(x, block.conv.conv), room)


def _downsample(block: MaisiDownsample, x: Map, room: Room) -> Map:
    return _kept(Convolution(x, block.conv.conv.conv), room)


def _upsample(block: MaisiUpsample, x: Map, room: Room) -> Map:
    return _kept(Convolution(Doubled(x), block.conv.conv.conv), room)


def _last_norm(block: MaisiGroupNorm3D, x: Map, room: Room) -> Map:
    return Normalized(x, block, activate=False)


def _residual(block: MaisiResBlock, x: Map, room: Room) -> Map:
    h = _kept(Convolution(Normalized(x, block.norm1), block.conv1.conv.conv), room)
    shortcut = x
    if block.in_channels != block.out_channels:
        shortcut = Convolution(x, block.nin_shortcut.conv.conv)
    deep = Convolution(Normalized(h, block.norm2), block.conv2.conv.conv)
    return room.keep(Sum(deep, shortcut), deep.layer.weight.dtype, into=h)


def _kept(x: Convolution, room: Room) -> Map:
    return room.keep(x, x.layer.weight.dtype)


_LAYERS: dict[type, Callable[[Any, Map, Room], Map]] = {
    MaisiConvolution: _convolution,
    MaisiDownsample: _downsample,
    MaisiUpsample: _upsample,
    MaisiResBlock: _residual,
    MaisiGroupNorm3D: _last_norm,
}
