"""Velocity network of the mask-conditioned latent flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import (
    ResampleBlock,
    ResidualBlock,
    SelfAttention,
    Upsample,
    downsample,
    sinusoidal_embedding,
)
from MedGenLib.networks.conditioners import CONDITIONERS


class FlowUNet(nn.Module):
    """Velocity of a rectified flow in latent space, conditioned on a mask and on scalars.

    ``norm="group"``, ``resample="residual"`` and attention at several levels are the options of ADM
    (Dhariwal and Nichol 2021). They cost time or remove the finite receptive field, so they suit
    small, fixed fields of view.

    Parameters
    ----------
    maps: channels of the conditioning maps (one-hot labels and, where used, coordinates).
    scalars: number of scalar conditions, each roughly in -1..1 (e.g. spacing, noise level).
    widths: channels per level; every level halves the resolution.
    blocks: residual blocks per level of the encoder; the decoder has one per level.
    attention: self-attention at the coarsest level (True) or at the listed levels (0 has the
        resolution of the latent).
    latent: latent channels.
    conditioner: "mask-encoder" (once per sample) or "control" (a branch at every evaluation), with "/4" or "/8" after
        it where a latent voxel has so many image voxels along each axis, instead of 2.
    norm: "channel" or "group".
    resample: "plain" (strided convolution, interpolation) or "residual".
    step_size: also condition on the length of the step; the output is then the average velocity
        over the step, for sampling in few steps (Frans et al. 2024, arXiv 2410.12557).
    """

    def __init__(
        self,
        maps: int,
        scalars: int = 0,
        widths: Sequence[int] = (32, 80, 160),
        blocks: Sequence[int] = (1, 2, 2),
        attention: bool | Sequence[int] = False,
        latent: int = 8,
        conditioner: str = "mask-encoder",
        norm: str = "channel",
        resample: str = "plain",
        step_size: bool = False,
    ) -> None:
        super().__init__()
        widths, blocks, last = tuple(widths), tuple(blocks), len(widths) - 1
        levels = ([last] if attention else []) if isinstance(attention, bool) else list(attention)
        self.arguments = {
            "maps": maps,
            "scalars": scalars,
            "widths": list(widths),
            "blocks": list(blocks),
            "attention": attention if isinstance(attention, bool) else levels,
            "latent": latent,
            "conditioner": conditioner,
            "norm": norm,
            "resample": resample,
            "step_size": step_size,
        }
        width = 4 * widths[0]
        self.stride = 2**last
        self.time_width = width
        self.embed = nn.Sequential(
            nn.Linear(width * (1 + step_size) + scalars, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        kind, _, latent_stride = conditioner.partition("/")
        self.pooled = int(latent_stride or 2) // 2
        self.mask_encoder = CONDITIONERS[kind](maps, widths, width)
        self.enter = nn.Conv3d(latent, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResidualBlock(3, w, width, norm) for _ in range(n))
            for w, n in zip(widths, blocks, strict=True)
        )
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        residual = resample == "residual"
        self.down = nn.ModuleList(
            ResampleBlock(3, a, b, width, norm, up=False) if residual else downsample(3, a, b) for a, b in steps
        )
        self.encoder_attention = _attention_at(levels, widths[:-1])
        self.attention = SelfAttention(widths[-1]) if last in levels else nn.Identity()
        self.middle = ResidualBlock(3, widths[-1], width, norm)
        self.up = nn.ModuleList(
            ResampleBlock(3, b, a, width, norm, up=True) if residual else Upsample(3, b, a) for a, b in steps
        )
        self.decoder = nn.ModuleList(ResidualBlock(3, w, width, norm) for w in widths[:-1])
        self.decoder_attention = _attention_at(levels, widths[:-1])
        self.leave = nn.Conv3d(widths[0], latent, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def freeze_base(self) -> None:
        """Freeze all weights but those of the conditioner, to add a condition to a trained network."""
        self.requires_grad_(False)
        self.mask_encoder.requires_grad_(True)

    def encode_mask(self, maps: Tensor) -> list[Tensor]:
        """Conditioning maps (b, maps, si, sj, sk) -> the ``features`` of `forward`; s is the latent's stride.

        Above 2 the maps are averaged, so that labels become shares.
        """
        return self.mask_encoder.prepare(maps if self.pooled == 1 else F.avg_pool3d(maps, self.pooled))

    def forward(
        self, x: Tensor, time: Tensor, features: list[Tensor], scalars: Tensor | None = None, step: Tensor | None = None
    ) -> Tensor:
        """Velocity ``noise - data`` at ``x`` (b, latent, i, j, k) and ``time`` (b,) in 0..1.

        i, j, k must be multiples of `stride`; ``scalars`` is (b, scalars). A network with
        `step_size` requires ``step`` (b,) and returns the average velocity from ``time`` down to
        ``time - step``.
        """
        embedding = sinusoidal_embedding(time, self.time_width)
        if scalars is not None:
            embedding = torch.cat([embedding, scalars.to(embedding)], dim=1)
        if step is not None:
            embedding = torch.cat([embedding, sinusoidal_embedding(step, self.time_width)], dim=1)
        embedding = self.embed(embedding)

        h = self.enter(x)
        residuals = self.mask_encoder.residuals(h, embedding, features)
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                h = _resampled(self.down[level - 1], h, embedding)
            h = h + residuals[level]
            for block in blocks:
                h = block(h, embedding)
            if str(level) in self.encoder_attention:
                h = self.encoder_attention[str(level)](h)
            skips.append(h)
        h = self.middle(self.attention(h), embedding)
        for level in reversed(range(len(self.decoder))):
            h = _resampled(self.up[level], h, embedding) + skips[level]
            h = self.decoder[level](h, embedding)
            if str(level) in self.decoder_attention:
                h = self.decoder_attention[str(level)](h)
        return self.leave(h).float()


def _attention_at(levels: Sequence[int], widths: Sequence[int]) -> nn.ModuleDict:
    return nn.ModuleDict({str(level): SelfAttention(width) for level, width in enumerate(widths) if level in levels})


def _resampled(layer: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    return layer(h, embedding) if isinstance(layer, ResampleBlock) else layer(h)
