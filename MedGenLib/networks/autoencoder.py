"""Autoencoder with an eight-channel latent at half the image resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock
from MedGenLib.networks.haar import haar, inverse_haar


class _Residual(nn.Module):
    """Per-channel scaling plus a learned correction, both at latent resolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.shift = nn.Parameter(torch.zeros(8))
        self.enter = nn.Conv3d(8, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(3, width) for _ in range(blocks))
        self.leave = nn.Conv3d(width, 8, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        straight = x * self.scale.view(1, 8, 1, 1, 1) + self.shift.view(1, 8, 1, 1, 1)
        return straight + self.leave(h).float()


class Autoencoder(nn.Module):
    """Image (b, 1, 2i, 2j, 2k) <-> latent (b, 8, i, j, k).

    The encoder is a Haar transform followed by a learned correction; the decoder is the reverse.
    The decoder has no access to the mask. The receptive field is finite: a tile decoded with
    `halo` image voxels on each side equals the same part of the whole decoded volume.

    Parameters
    ----------
    width: channels of the two correction networks.
    blocks: residual blocks in each correction network.
    """

    channels, stride = 8, 2
    """Of the latent; the stride is in image voxels."""

    def __init__(self, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks}
        self.encoder = _Residual(width, blocks)
        self.decoder = _Residual(width, blocks)
        self.halo = 2 * (2 + 2 * blocks)
        self.register_buffer("mean", torch.zeros(1, 8, 1, 1, 1))
        self.register_buffer("spread", torch.ones(1, 8, 1, 1, 1))

    def encode(self, image: Tensor) -> Tensor:
        """Latent, with zero mean and unit standard deviation per channel after `normalize`."""
        return (self.encoder(haar(image)) - self.mean) / self.spread

    def decode(self, latent: Tensor) -> Tensor:
        """Image of a latent; approximate inverse of `encode`."""
        return inverse_haar(self.decoder(latent * self.spread + self.mean))

    def normalize(self, latents: Tensor) -> None:
        """Fold the channel means and standard deviations of ``latents`` (8, count) into both halves."""
        old_mean, old_spread = self.mean.flatten(), self.spread.flatten()
        mean = latents.mean(dim=1) * old_spread + old_mean
        spread = latents.std(dim=1) * old_spread
        self.mean.copy_(mean.view(1, 8, 1, 1, 1))
        self.spread.copy_(spread.view(1, 8, 1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and latent of ``image``."""
        latent = self.encode(image)
        return self.decode(latent), latent
