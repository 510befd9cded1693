"""Mask encoder and velocity network of the mask-conditioned latent flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import (
    ResidualBlock,
    SelfAttention,
    Upsample,
    downsample,
    sinusoidal_embedding,
    space_to_depth,
)


class MaskEncoder(nn.Module):
    """Conditioning maps at image resolution -> features at every level of the U-Net.

    Run once per sample: its features are constant along the sampling path.
    """

    def __init__(self, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = nn.Conv3d(8 * channels_in, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(3, width) for width in widths)
        self.down = nn.ModuleList(
            downsample(3, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, maps: Tensor) -> list[Tensor]:
        h = self.enter(space_to_depth(maps))
        features = []
        for level, block in enumerate(self.blocks):
            h = block(h if level == 0 else self.down[level - 1](h))
            features.append(h)
        return features


class FlowUNet(nn.Module):
    """Velocity of a rectified flow in latent space, conditioned on a mask and on scalars.

    Parameters
    ----------
    maps: channels of the conditioning maps (one-hot labels and, where used, coordinates).
    scalars: number of scalar conditions, each roughly in -1..1 (spacing, noise level ...).
    widths: channels per level; every level halves the resolution.
    blocks: residual blocks per level of the encoder; the decoder has one a level.
    attention: self-attention at the coarsest level (fixed, small fields of view only).
    latent: latent channels.
    """

    def __init__(
        self,
        maps: int,
        scalars: int = 0,
        widths: tuple[int, ...] = (32, 80, 160),
        blocks: tuple[int, ...] = (1, 2, 2),
        attention: bool = False,
        latent: int = 8,
    ) -> None:
        super().__init__()
        widths, blocks = tuple(widths), tuple(blocks)
        self.arguments = {
            "maps": maps,
            "scalars": scalars,
            "widths": list(widths),
            "blocks": list(blocks),
            "attention": attention,
            "latent": latent,
        }
        width = 4 * widths[0]
        self.stride = 2 ** (len(widths) - 1)
        self.time_width = width
        self.embed = nn.Sequential(
            nn.Linear(width + scalars, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.mask_encoder = MaskEncoder(maps, widths)
        self.enter = nn.Conv3d(latent, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResidualBlock(3, w, width) for _ in range(n))
            for w, n in zip(widths, blocks, strict=True)
        )
        self.down = nn.ModuleList(
            downsample(3, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.attention = SelfAttention(widths[-1]) if attention else nn.Identity()
        self.middle = ResidualBlock(3, widths[-1], width)
        self.up = nn.ModuleList(
            Upsample(3, b, a) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.decoder = nn.ModuleList(ResidualBlock(3, w, width) for w in widths[:-1])
        self.leave = nn.Conv3d(widths[0], latent, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def encode_mask(self, maps: Tensor) -> list[Tensor]:
        """Conditioning maps (b, maps, 2i, 2j, 2k) -> features per level, latent size first."""
        return self.mask_encoder(maps)

    def forward(
        self, x: Tensor, time: Tensor, features: list[Tensor], scalars: Tensor | None = None
    ) -> Tensor:
        """Velocity ``noise - data`` at ``x`` (b, latent, i, j, k) and ``time`` (b,) in 0..1.

        i, j, k must be multiples of `stride`; ``scalars`` is (b, scalars).
        """
        embedding = sinusoidal_embedding(time, self.time_width)
        if scalars is not None:
            embedding = torch.cat([embedding, scalars.to(embedding)], dim=1)
        embedding = self.embed(embedding)

        h = self.enter(x)
        skips = []
        for level, blocks in enumerate(self.encoder):
            h = (h if level == 0 else self.down[level - 1](h)) + features[level]
            for block in blocks:
                h = block(h, embedding)
            skips.append(h)
        h = self.middle(self.attention(h), embedding)
        for level in reversed(range(len(self.decoder))):
            h = self.decoder[level](self.up[level](h) + skips[level], embedding)
        return self.leave(h).float()
