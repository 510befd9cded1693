"""Three-dimensional network that adds missing detail to an image and removes its noise."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import depth_to_space, space_to_depth

EMBEDDING = 64
SHARE = 0.3
"""Factor of what a block adds."""


class Restorer(nn.Module):
    """Residual blocks at half resolution: (b, 1, i, j, k) and conditions (b, conditions) -> (b, 1, i, j, k).

    The blocks are those of EDSR (Lim et al., Enhanced deep residual networks for single image super-resolution, CVPRW
    2017), without normalization, each scaled and shifted by the conditions. Eight voxels are folded into channels for
    an eighth of the work. The output is the input plus a correction, so that an untrained network is the identity. The
    sides must be multiples of `stride`.

    Parameters
    ----------
    width: channels.
    blocks: residual blocks of two convolutions each.
    conditions: number of scalar conditions.
    """

    stride = 2

    def __init__(self, width: int = 32, blocks: int = 4, conditions: int = 5) -> None:
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks, "conditions": conditions}
        self.embed = nn.Sequential(
            nn.Linear(conditions, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )
        self.enter = nn.Conv3d(8, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.leave = nn.Conv3d(width, 8, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def halo(self) -> int:
        """Voxels around a voxel that its value depends on, along each axis."""
        return self.stride * (2 * len(self.blocks) + 3) - 1

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        embedding = self.embed(conditions)
        h = self.enter(space_to_depth(x))
        for block in self.blocks:
            h = block(h, embedding)
        return x + depth_to_space(self.leave(h)).float()


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        self.modulation = nn.Linear(EMBEDDING, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = (part[..., None, None, None] for part in self.modulation(embedding).chunk(2, dim=1))
        return x + SHARE * self.second(F.silu(self.first(x) * (1 + scale) + shift))
