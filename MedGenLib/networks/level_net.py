"""Three-dimensional networks that know the usual level of each tissue from the shapes of all tissues around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _LevelUNet(nn.Module):
    """U-Net of three levels; the sides of its input must be multiples of `stride`."""

    stride = 4

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.enter, self.down = _block(inputs, fine), _block(fine, middle)
        self.deep = _block(middle, coarse)
        self.up, self.leave = _block(coarse + middle, middle), _block(middle + fine, fine)
        self.head = nn.Conv3d(fine, outputs, 1)

    def maps(self, x: Tensor) -> Tensor:
        """(b, inputs, i, j, k) -> (b, outputs, i, j, k), in single precision."""
        fine = self.enter(x)
        middle = self.down(F.avg_pool3d(fine, 2))
        deep = self.deep(F.avg_pool3d(middle, 2))
        h = self.up(torch.cat([F.interpolate(deep, scale_factor=2.0), middle], 1))
        h = self.leave(torch.cat([F.interpolate(h, scale_factor=2.0), fine], 1))
        return self.head(h).float()


class LevelNet(_LevelUNet):
    """Shares of the tissues in cells, outside first -> their levels, both (b, tissues + 1, i, j, k).

    Level 0 stands for the center of the tissue in the codec, 1 for one scale above it; that of the outside is 0.

    Parameters
    ----------
    tissues: labels of the model.
    widths: channels of the three levels.
    """

    def __init__(self, tissues: int = 4, widths: Sequence[int] = (12, 24, 48)) -> None:
        super().__init__(tissues + 1, tissues, widths)
        self.arguments = {"tissues": tissues, "widths": list(widths)}

    def forward(self, shares: Tensor) -> Tensor:
        levels = self.maps(shares)
        return torch.cat([torch.zeros_like(levels[:, :1]), levels], 1)


class VoxelLevelNet(_LevelUNet):
    """Labels and the levels of their cells -> level of each tissue in each voxel, and how strong its texture is.

    The input (b, 2 * tissues + 3, i, j, k) has the labels one-hot, outside first, the levels of the cells by
    `LevelNet`, and the scalar conditions spacing and noise. The output (b, 3, tissues, i, j, k) has levels, and mean
    absolute values of the fine and of the coarse texture, in scales of the codec. Without ``cells`` the input lacks
    their levels, and the output is the same for all tissues: that of the voxel's own.

    Parameters
    ----------
    tissues: labels of the model.
    widths: channels of the three levels.
    cells: whether the levels of the cells are known.
    """

    def __init__(self, tissues: int = 4, widths: Sequence[int] = (8, 24, 48), cells: bool = True) -> None:
        super().__init__((1 + cells) * tissues + 3, 3 * (tissues if cells else 1), widths)
        self.arguments = {"tissues": tissues, "widths": list(widths), **({} if cells else {"cells": False})}

    def forward(self, known: Tensor) -> Tensor:
        tissues, cells = self.arguments["tissues"], self.arguments.get("cells", True)
        level, fine, coarse = self.maps(known).split(tissues if cells else 1, 1)
        if cells:
            level = level + known[:, tissues + 1 : 2 * tissues + 1].float()
        found = torch.stack([level, F.softplus(fine), F.softplus(coarse)], 1)
        return found.expand(-1, -1, tissues, -1, -1, -1)


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels_in, channels):
        layers += [nn.Conv3d(before, channels, 3, padding=1), nn.GroupNorm(4, channels), nn.SiLU()]
    return nn.Sequential(*layers)
