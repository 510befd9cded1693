"""Three-dimensional segmentation network for small structures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock, Upsample, downsample, space_to_depth


class SegmentationUNet(nn.Module):
    """Residual U-Net: image (b, 1, i, j, k) -> scores (b, labels + 1, i, j, k), background first.

    i, j, k must be multiples of `stride`. Most layers work at half resolution and below; a shallow
    path at full resolution keeps boundaries sharp.

    Parameters
    ----------
    labels: number of labels without the background.
    widths, blocks: channels and encoder blocks per level; the first level has half resolution.
    stem: channels at full resolution.
    """

    def __init__(
        self, labels: int, widths: tuple[int, ...] = (24, 48, 96), blocks: tuple[int, ...] = (1, 2, 1), stem: int = 12
    ) -> None:
        super().__init__()
        widths, blocks = tuple(widths), tuple(blocks)
        self.arguments = {"labels": labels, "widths": list(widths), "blocks": list(blocks), "stem": stem}
        self.stride = 2 ** len(widths)
        self.stem = nn.Conv3d(1, stem, 3, padding=1)
        self.enter = nn.Conv3d(8 * stem, widths[0], 1)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(3, w) for _ in range(n))) for w, n in zip(widths, blocks, strict=True)
        )
        self.down = nn.ModuleList(downsample(3, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList(Upsample(3, b, a) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.decoder = nn.ModuleList(ResidualBlock(3, w) for w in widths[:-1])
        self.fine = Upsample(3, widths[0], stem)
        self.head = nn.Sequential(nn.Conv3d(2 * stem, stem, 3, padding=1), nn.SiLU(), nn.Conv3d(stem, labels + 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        full = F.silu(self.stem(image))
        h = self.enter(space_to_depth(full))
        skips = []
        for level, blocks in enumerate(self.encoder):
            h = blocks(h if level == 0 else self.down[level - 1](h))
            skips.append(h)
        for level in reversed(range(len(self.decoder))):
            h = self.decoder[level](self.up[level](h) + skips[level])
        return self.head(torch.cat([full, self.fine(h)], dim=1)).float()
