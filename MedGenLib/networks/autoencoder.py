"""Autoencoder with a latent of eight channels at half the resolution."""

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

    A Haar transform followed by a learned correction, and the reverse. The decoder never sees
    the mask: all it knows comes through the latent. No layer mixes more than its neighbours, so
    that `halo` image voxels around a tile make tiled decoding equal to decoding at once.

    Parameters
    ----------
    width: channels of the correction networks.
    blocks: residual blocks in each.
    """

    def __init__(self, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks}
        self.encoder = _Residual(width, blocks)
        self.decoder = _Residual(width, blocks)
        self.halo = 2 * (2 + 2 * blocks)
        self.register_buffer("mean", torch.zeros(1, 8, 1, 1, 1))
        self.register_buffer("spread", torch.ones(1, 8, 1, 1, 1))

    def encode(self, image: Tensor) -> Tensor:
        """The latent, of zero mean and unit spread per channel once `normalise` was called."""
        return (self.encoder(haar(image)) - self.mean) / self.spread

    def decode(self, latent: Tensor) -> Tensor:
        return inverse_haar(self.decoder(latent * self.spread + self.mean))

    def normalise(self, latents: Tensor) -> None:
        """Fold the mean and spread of many latents (8, count) into encoder and decoder."""
        old_mean, old_spread = self.mean.flatten(), self.spread.flatten()
        mean = latents.mean(dim=1) * old_spread + old_mean
        spread = latents.std(dim=1) * old_spread
        self.mean.copy_(mean.view(1, 8, 1, 1, 1))
        self.spread.copy_(spread.view(1, 8, 1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.encode(image)
        return self.decode(latent), latent
