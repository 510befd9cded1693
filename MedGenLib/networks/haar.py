"""The three-dimensional orthonormal Haar transform, of one level or several, and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from MedGenLib.networks.blocks import space_to_depth


def _basis(device: torch.device, dtype: torch.dtype) -> Tensor:
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device=device, dtype=dtype) / 2**0.5
    return torch.kron(torch.kron(pair, pair), pair)


def _mix(channels: Tensor) -> Tensor:
    """Multiply the eight channels by the basis in the input's precision, also under autocast."""
    with torch.autocast(channels.device.type, enabled=False):
        basis = _basis(channels.device, channels.dtype)
        return torch.einsum("oc,bcijk->boijk", basis, channels)


def haar(x: Tensor, levels: int = 1) -> Tensor:
    """(b, 1, i, j, k) -> (b, 8, i/2, j/2, k/2); channel 0 is the low-pass band, and each level splits all bands.

    The transform is orthonormal: it preserves the sum of squares. The first channels are the coarsest bands.
    """
    for _ in range(levels):
        x = _mix(space_to_depth(x.flatten(0, 1)[:, None])).unflatten(0, x.shape[:2]).flatten(1, 2)
    return x


def inverse_haar(bands: Tensor, levels: int = 1) -> Tensor:
    """Exact inverse of `haar`: (b, 8, i, j, k) -> (b, 1, 2i, 2j, 2k)."""
    for _ in range(levels):
        batch, channels, i, j, k = bands.shape
        blocks = _mix(bands.reshape(-1, 8, i, j, k))  # the basis is symmetric and orthonormal, hence its own inverse
        blocks = blocks.reshape(-1, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3)
        bands = blocks.reshape(batch, channels // 8, 2 * i, 2 * j, 2 * k)
    return bands
