"""A series from its first image: motion and change of intensity of each frame, by a recurrent network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PHASE = 3
"""Numbers that state the phase of a frame."""
GROUPS = 4


class ConvGRU(nn.Module):
    """Gated recurrent unit with convolutions (Ballas et al. 2016, arXiv 1511.06432, equations 5 to 8)."""

    def __init__(self, given: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv3d(given + hidden, 2 * hidden, 3, padding=1)
        self.propose = nn.Conv3d(given + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        update, reset = torch.sigmoid(self.gates(torch.cat([x, state], 1))).chunk(2, 1)
        proposed = torch.tanh(self.propose(torch.cat([x, reset * state], 1)))
        return state + update * (proposed - state)


class SequenceNet(nn.Module):
    """First frames (b, 1, i, j, k) -> displacements (b, frames, 3, i, j, k) and residuals (b, frames, i, j, k).

    An encoder halves the grid at each level, a `ConvGRU` is unrolled over the frames at the coarsest one, driven by
    their phase, and a decoder with skip connections makes a field for each frame on half the grid, which is
    interpolated. Displacements are in voxels of the grid, from each voxel of a frame to the place in the first frame
    that it shows; residuals are added to what is there. Both are differences from the output for the first frame, so
    that they are exactly 0 for it.

    Parameters
    ----------
    frames: frames of a series.
    widths: channels of the levels, the finest first, a multiple of `GROUPS`; the sides of the grid are multiples of two
        for each level.
    """

    def __init__(self, frames: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.arguments = {"frames": frames, "widths": list(widths)}
        self.encoder = nn.ModuleList(_level(a, b, 2) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        coarse = widths[-1]
        self.begin = nn.Conv3d(coarse, coarse, 1)
        self.unit = ConvGRU(coarse + PHASE, coarse)
        finer = widths[-2::-1]
        self.decoder = nn.ModuleList(_level(a + b, b) for a, b in zip(widths[:0:-1], finer, strict=True))
        self.leave = nn.Conv3d(widths[0], 4, 3, padding=1, bias=False)
        nn.init.normal_(self.leave.weight, 0, 1e-3)  # nothing moves at first

    def forward(self, first: Tensor) -> tuple[Tensor, Tensor]:
        x, maps = first, []
        for level in self.encoder:
            x = level(x)
            maps.append(x)
        state, states = torch.tanh(self.begin(x)), []
        for phase in phases(self.arguments["frames"]):
            shown = phase.to(x).view(1, PHASE, 1, 1, 1).expand(len(x), -1, *x.shape[2:])
            state = self.unit(torch.cat([x, shown], 1), state)
            states.append(state)
        x = torch.stack(states, 1).flatten(0, 1)
        for level, skip in zip(self.decoder, maps[-2::-1], strict=True):
            finer = F.interpolate(x, size=skip.shape[2:], mode="trilinear")
            x = level(torch.cat([finer, skip.repeat_interleave(len(states), 0)], 1))
        made = self.leave(x).float().unflatten(0, (len(first), -1))
        made = (made - made[:, :1]).flatten(0, 1)
        made = F.interpolate(made, size=first.shape[2:], mode="trilinear").unflatten(0, (len(first), -1))
        return made[:, :, :3], made[:, :, 3]


def _level(given: int, width: int, stride: int = 1) -> nn.Sequential:
    """Two convolutions with group normalization, of which the first may halve the grid."""
    layers: list[nn.Module] = []
    for number, channels in enumerate((given, width)):
        layers.append(nn.Conv3d(channels, width, 3, stride if not number else 1, 1))
        layers += [nn.GroupNorm(GROUPS, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def phases(frames: int) -> Tensor:
    """(frames, 3): sine and cosine of the phase of each frame in the cycle, and its share of the whole time."""
    share = torch.arange(frames) / frames
    turn = 2 * math.pi * share
    return torch.stack([turn.sin(), turn.cos(), share], 1)


def warp(images: Tensor, displacement: Tensor) -> Tensor:
    """Images (b, c, i, j, k) at each voxel plus its displacement (b, 3, i, j, k) in voxels, linearly interpolated.

    Beyond the border it is the nearest voxel. A spatial transformer, as in VoxelMorph (Balakrishnan et al. 2019, arXiv
    1809.05231, section III-B).
    """
    sides = images.shape[2:]
    index = torch.stack(torch.meshgrid(*(torch.arange(n, device=images.device) for n in sides), indexing="ij"))
    places = index + displacement
    share = [2 * places[:, axis] / max(1, n - 1) - 1 for axis, n in enumerate(sides)]
    return F.grid_sample(images, torch.stack(share[::-1], -1), padding_mode="border", align_corners=True)


def animated(first: Tensor, displacement: Tensor, residual: Tensor) -> Tensor:
    """The frames (b, frames, i, j, k) of first images (b, 1, i, j, k) by the outputs of `SequenceNet`."""
    count = displacement.shape[1]
    moved = warp(first.repeat_interleave(count, 0), displacement.flatten(0, 1))
    return moved[:, 0].unflatten(0, (-1, count)) + residual
