"""Three-dimensional network that knows the usual level of each tissue from the shape of all tissues around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LevelNet(nn.Module):
    """U-Net of three levels: shares of the tissues, outside first -> their levels, both (b, tissues + 1, i, j, k).

    Level 0 stands for the center of the tissue in the codec, 1 for one scale above it; that of the outside is 0. The
    sides must be multiples of `stride`.

    Parameters
    ----------
    tissues: labels of the model.
    widths: channels of the three levels.
    """

    stride = 4

    def __init__(self, tissues: int = 4, widths: tuple[int, int, int] = (12, 24, 48)) -> None:
        super().__init__()
        fine, middle, coarse = widths = tuple(widths)
        self.arguments = {"tissues": tissues, "widths": list(widths)}
        self.enter, self.down = _block(tissues + 1, fine), _block(fine, middle)
        self.deep = _block(middle, coarse)
        self.up, self.leave = _block(coarse + middle, middle), _block(middle + fine, fine)
        self.head = nn.Conv3d(fine, tissues, 1)

    def forward(self, shares: Tensor) -> Tensor:
        fine = self.enter(shares)
        middle = self.down(F.avg_pool3d(fine, 2))
        deep = self.deep(F.avg_pool3d(middle, 2))
        h = self.up(torch.cat([F.interpolate(deep, scale_factor=2.0), middle], 1))
        h = self.leave(torch.cat([F.interpolate(h, scale_factor=2.0), fine], 1))
        levels = self.head(h).float()
        return torch.cat([torch.zeros_like(levels[:, :1]), levels], 1)


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels_in, channels):
        layers += [nn.Conv3d(before, channels, 3, padding=1), nn.GroupNorm(4, channels), nn.SiLU()]
    return nn.Sequential(*layers)
