"""Two-dimensional image-to-image network for slices of any of the three planes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock, Upsample, downsample, space_to_depth


class SliceTranslator(nn.Module):
    """Residual U-Net: (b, channels_in, h, w) and plane index (b,) -> (b, 1, h, w).

    h and w must be multiples of `stride`. Most layers work at half resolution and below; a shallow
    path at full resolution keeps edges sharp.

    Parameters
    ----------
    channels_in: input channels, one per intensity window of the source image.
    widths, blocks: channels and encoder blocks per level; the first level has half resolution.
    stem: channels at full resolution.
    """

    def __init__(
        self,
        channels_in: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 192),
        blocks: tuple[int, ...] = (1, 2, 2, 2),
        stem: int = 16,
    ) -> None:
        super().__init__()
        widths, blocks = tuple(widths), tuple(blocks)
        self.arguments = {"channels_in": channels_in, "widths": list(widths), "blocks": list(blocks), "stem": stem}
        width = 64
        self.stride = 2 ** len(widths)
        self.plane = nn.Embedding(3, width)
        self.stem = nn.Conv2d(channels_in, stem, 3, padding=1)
        self.enter = nn.Conv2d(4 * stem, widths[0], 1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResidualBlock(2, w, width) for _ in range(n)) for w, n in zip(widths, blocks, strict=True)
        )
        self.down = nn.ModuleList(downsample(2, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.middle = ResidualBlock(2, widths[-1], width)
        self.up = nn.ModuleList(Upsample(2, b, a) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.decoder = nn.ModuleList(ResidualBlock(2, w, width) for w in widths[:-1])
        self.fine = Upsample(2, widths[0], stem)
        self.head = nn.Sequential(nn.Conv2d(2 * stem, stem, 3, padding=1), nn.SiLU(), nn.Conv2d(stem, 1, 3, padding=1))

    def forward(self, x: Tensor, plane: Tensor) -> Tensor:
        embedding = self.plane(plane)
        full = F.silu(self.stem(x))
        h = self.enter(space_to_depth(full))
        skips = []
        for level, blocks in enumerate(self.encoder):
            h = h if level == 0 else self.down[level - 1](h)
            for block in blocks:
                h = block(h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level in reversed(range(len(self.decoder))):
            h = self.decoder[level](self.up[level](h) + skips[level], embedding)
        return self.head(torch.cat([full, self.fine(h)], dim=1)).float()
