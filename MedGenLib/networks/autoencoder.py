"""Autoencoder with an eight-channel latent at a half, a quarter or an eighth of the image resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock
from MedGenLib.networks.haar import haar, inverse_haar

STRIDES = {2: 1, 4: 2, 8: 3}
"""Image voxels per latent voxel -> levels of the Haar transform."""
CODED = 4
"""Channels of the latent that one code of a codebook stands for."""
AT_ONCE = 2**14
"""Codes that are looked up at once, for the memory of the distances to all of them."""


class _Residual(nn.Module):
    """Per-channel scaling of the coarsest bands plus a learned correction, both at latent resolution."""

    def __init__(self, channels_in: int, channels_out: int, width: int, blocks: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.shift = nn.Parameter(torch.zeros(8))
        self.enter = nn.Conv3d(channels_in, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(3, width) for _ in range(blocks))
        self.leave = nn.Conv3d(width, channels_out, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        made = self.leave(h).float()
        straight = x[:, :8] * self.scale.view(1, 8, 1, 1, 1) + self.shift.view(1, 8, 1, 1, 1)
        return F.pad(straight, (0, 0, 0, 0, 0, 0, 0, made.shape[1] - 8)) + made


class Autoencoder(nn.Module):
    """Image (b, 1, si, sj, sk) <-> latent (b, 8, i, j, k) with the stride s.

    The encoder is a Haar transform followed by a learned correction; the decoder is the reverse.
    The decoder has no access to the mask. The receptive field is finite: a tile decoded with
    `halo` image voxels on each side equals the same part of the whole decoded volume.

    Parameters
    ----------
    width: channels of the two correction networks.
    blocks: residual blocks in each correction network.
    stride: image voxels per latent voxel along each axis: 2, 4 or 8.
    quantizer: "none"; "kl", whose encoder also gives the variance of the latent (arXiv 1312.6114); or "vq", whose
        decoder takes the nearest of ``codes`` entries of a codebook for each four channels (arXiv 1711.00937).
    """

    channels = 8
    """Of the latent."""

    def __init__(
        self, width: int = 32, blocks: int = 1, stride: int = 2, quantizer: str = "none", codes: int = 512
    ) -> None:
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks}
        if stride != 2 or quantizer != "none":
            self.arguments |= {"stride": stride, "quantizer": quantizer, "codes": codes}
        self.stride, self.levels = stride, STRIDES[stride]
        self.encoder = _Residual(8**self.levels, 16 if quantizer == "kl" else 8, width, blocks)
        self.decoder = _Residual(8, 8**self.levels, width, blocks)
        self.codebook = nn.Parameter(torch.randn(codes, CODED)) if quantizer == "vq" else None
        self.halo = stride * (2 + 2 * blocks)
        self.register_buffer("mean", torch.zeros(1, 8, 1, 1, 1))
        self.register_buffer("spread", torch.ones(1, 8, 1, 1, 1))

    def encode(self, image: Tensor) -> Tensor:
        """Latent, with zero mean and unit standard deviation per channel after `normalize`."""
        return (self.posterior(image)[0] - self.mean) / self.spread

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of the latent before `normalize`, and the logarithm of its variance with the quantizer "kl"."""
        found = self.encoder(haar(image, self.levels))
        return found[:, :8], found[:, 8:] if found.shape[1] > 8 else None

    def decode(self, latent: Tensor) -> Tensor:
        """Image of a latent; approximate inverse of `encode`."""
        latent = latent * self.spread + self.mean
        if self.codebook is not None:  # gradients pass straight through
            latent = latent + (self.quantized(latent) - latent).detach()
        return inverse_haar(self.decoder(latent), self.levels)

    def quantized(self, latent: Tensor) -> Tensor:
        """Each four channels replaced by the nearest entry of the codebook."""
        parts = latent.movedim(1, -1).reshape(-1, CODED)
        with torch.no_grad():
            found = [torch.cdist(part.float(), self.codebook).argmin(1) for part in parts.split(AT_ONCE)]
        return self.codebook[torch.cat(found)].view(*latent.movedim(1, -1).shape).movedim(-1, 1)

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
