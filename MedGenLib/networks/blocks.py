"""Building blocks shared by the 2-D and 3-D networks.

By default, normalization is over the channels of each voxel and not over space. A network of
these blocks then has a finite receptive field: a tile with a sufficient halo gives the same values
as the whole volume, and an empty slice is not amplified into noise. `SelfAttention` and `GroupNorm`
depend on all positions and remove this property.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channel axis of (batch, channels, *space)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GroupNorm(nn.GroupNorm):
    """Group normalization over channels and space, with groups of at least four channels, as in ADM.

    The receptive field becomes the whole input: a tile no longer gives the values of the whole.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(max(1, channels // 4), 32), channels)


NORMS = {"channel": ChannelNorm, "group": GroupNorm}


class ResidualBlock(nn.Module):
    """Two normalized convolutions; an optional embedding scales and shifts the second.

    Scale and shift follow the adaptive group normalization of ADM (Dhariwal and Nichol 2021,
    section 3). The last convolution is initialized to zero, so an untrained block is the identity.

    Parameters
    ----------
    dims: 2 or 3 spatial dimensions.
    embedding: channels of the embedding; 0 for a block without one.
    norm: "channel" (finite receptive field) or "group" (as in ADM).
    padding: what lies beyond the border: "zeros", or "reflect", by which features do not tell how near the border is.
    """

    def __init__(
        self, dims: int, channels: int, embedding: int = 0, norm: str = "channel", padding: str = "zeros"
    ) -> None:
        super().__init__()
        convolution = CONVOLUTION[dims]
        self.norm1 = NORMS[norm](channels)
        self.conv1 = convolution(channels, channels, 3, padding=1, padding_mode=padding)
        self.norm2 = NORMS[norm](channels)
        self.conv2 = convolution(channels, channels, 3, padding=1, padding_mode=padding)
        self.modulation = nn.Linear(embedding, 2 * channels) if embedding else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(self._enter(x)))
        if self.modulation is not None:
            space = (1,) * (x.ndim - 2)
            scale, shift = self.modulation(embedding).chunk(2, dim=1)
            h = h * (1 + scale.view(*scale.shape, *space)) + shift.view(*shift.shape, *space)
        return self._pass(x) + self.conv2(F.silu(h))

    def _enter(self, x: Tensor) -> Tensor:
        return F.silu(self.norm1(x))

    def _pass(self, x: Tensor) -> Tensor:
        return x


class ResampleBlock(ResidualBlock):
    """A residual block that halves or doubles the resolution and changes the number of channels.

    Both branches are resampled (Dhariwal and Nichol 2021, section 3, after BigGAN): by averaging
    over two voxels along each axis, or by linear interpolation.
    """

    def __init__(self, dims: int, channels_in: int, channels_out: int, embedding: int, norm: str, up: bool) -> None:
        super().__init__(dims, channels_out, embedding, norm)
        convolution = CONVOLUTION[dims]
        self.norm1 = NORMS[norm](channels_in)
        self.conv1 = convolution(channels_in, channels_out, 3, padding=1)
        self.skip = convolution(channels_in, channels_out, 1)
        self.scale = 2.0 if up else 0.5
        self.mode = {2: "bilinear", 3: "trilinear"}[dims] if up else "area"

    def _enter(self, x: Tensor) -> Tensor:
        return self._resample(super()._enter(x))

    def _pass(self, x: Tensor) -> Tensor:
        return self.skip(self._resample(x))

    def _resample(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode=self.mode)


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions; the receptive field becomes the whole input."""

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        batch, length, channels = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, channels))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Upsample(nn.Module):
    """1x1 convolution, then linear interpolation by two, which avoids checkerboard artifacts."""

    def __init__(self, dims: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = CONVOLUTION[dims](channels_in, channels_out, 1)
        self.mode = {2: "bilinear", 3: "trilinear"}[dims]

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode=self.mode)


def downsample(dims: int, channels_in: int, channels_out: int) -> nn.Module:
    """Convolution with kernel and stride 2."""
    return CONVOLUTION[dims](channels_in, channels_out, 2, stride=2)


def sinusoidal_embedding(value: Tensor, channels: int, max_period: float = 1000.0) -> Tensor:
    """Sine and cosine features of a scalar, (batch,) -> (batch, channels).

    Vaswani et al. 2017, section 3.5, applied to ``10 * value``, for values in 0..1.
    """
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=value.device)
    frequency = torch.exp(-math.log(max_period) * index / half)
    angle = 10.0 * value.float()[:, None] * frequency[None]
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def space_to_depth(x: Tensor) -> Tensor:
    """Fold two voxels along every axis into channels: (b, c, *s) -> (b, c 2^d, *s/2)."""
    batch, channels, *space = x.shape
    dims = len(space)
    x = x.reshape(batch, channels, *(n for size in space for n in (size // 2, 2)))
    order = [0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    return x.permute(order).reshape(batch, channels * 2**dims, *(size // 2 for size in space))


def depth_to_space(x: Tensor) -> Tensor:
    """The inverse of `space_to_depth`: (b, c 2^d, *s) -> (b, c, *2s)."""
    batch, channels, *space = x.shape
    dims = len(space)
    x = x.reshape(batch, channels // 2**dims, *(2,) * dims, *space)
    order = [0, 1, *(axis for n in range(dims) for axis in (2 + dims + n, 2 + n))]
    return x.permute(order).reshape(batch, channels // 2**dims, *(2 * size for size in space))
