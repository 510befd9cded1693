"""Residual network without skip connections between its ends, for unpaired translation of slices."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock, Upsample, downsample


class ResidualTranslator(nn.Module):
    """Two levels down, residual blocks, two levels up: (b, channels_in, h, w) and plane (b,) -> (b, 1, h, w).

    The shape of the generator of CycleGAN and CUT (Johnson et al. 2016), with the normalization of `blocks` in place of
    instance normalization, so that a slice of any size gets the values of its parts. h and w must be multiples of
    `stride`.

    Parameters
    ----------
    channels_in: input channels.
    width: channels at full resolution, of which the lowest level has four times as many.
    blocks: residual blocks at the lowest level.
    """

    stride = 4

    def __init__(self, channels_in: int = 1, width: int = 32, blocks: int = 9) -> None:
        super().__init__()
        self.arguments = {"channels_in": channels_in, "width": width, "blocks": blocks}
        self.widths = (channels_in, 2 * width, 4 * width, 4 * width, 4 * width)
        """Channels of `features`."""
        embedding = 64

        def block(channels: int) -> ResidualBlock:
            return ResidualBlock(2, channels, embedding, padding="reflect")

        self.plane = nn.Embedding(3, embedding)
        self.stem = nn.Conv2d(channels_in, width, 7, padding=3, padding_mode="reflect")
        self.down = nn.ModuleList([downsample(2, width, 2 * width), downsample(2, 2 * width, 4 * width)])
        self.enter = nn.ModuleList([block(2 * width), block(4 * width)])
        self.blocks = nn.ModuleList(block(4 * width) for _ in range(blocks))
        self.up = nn.ModuleList([Upsample(2, 4 * width, 2 * width), Upsample(2, 2 * width, width)])
        self.leave = nn.ModuleList([block(2 * width), block(width)])
        self.head = nn.Conv2d(width, 1, 7, padding=3, padding_mode="reflect")

    def features(self, x: Tensor, plane: Tensor) -> list[Tensor]:
        """Maps of the encoder for PatchNCE: the input, both levels, the first and the middle block."""
        return self._encode(x, plane)[1]

    def _encode(self, x: Tensor, plane: Tensor) -> tuple[Tensor, list[Tensor]]:
        embedding = self.plane(plane)
        h, found = F.silu(self.stem(x)), [x]
        for down, block in zip(self.down, self.enter, strict=True):
            h = block(down(h), embedding)
            found.append(h)
        deep = []
        for block in self.blocks:
            h = block(h, embedding)
            deep.append(h)
        return h, [*found, deep[0], deep[len(deep) // 2]]

    def forward(self, x: Tensor, plane: Tensor) -> Tensor:
        embedding = self.plane(plane)
        h, _ = self._encode(x, plane)
        for up, block in zip(self.up, self.leave, strict=True):
            h = block(up(h), embedding)
        return self.head(F.silu(h)).float()
