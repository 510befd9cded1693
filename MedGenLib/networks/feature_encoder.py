"""Feature encoder of image slices, used by the distribution metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ChannelNorm, ResidualBlock, downsample, space_to_depth


class FeatureEncoder(nn.Module):
    """Slices (b, 1, h, w) of at least 16 x 16 pixels -> features (b, sum of widths).

    The features are the spatial means of every level, so they cover fine texture and anatomy; their
    scale is set by `standardize`. The first layer folds 2 x 2 pixels into channels, which keeps all
    values and leaves a quarter of the positions at the most costly level.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (1, 1, 2)) -> None:
        super().__init__()
        self.arguments = {"widths": list(widths), "blocks": list(blocks)}
        self.stem = nn.Conv2d(4, widths[0], 3, padding=1)
        self.levels, self.norms, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if level:
                self.downs.append(downsample(2, widths[level - 1], width))
            self.levels.append(nn.Sequential(*(ResidualBlock(2, width) for _ in range(count))))
            self.norms.append(ChannelNorm(width))
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("deviation", torch.ones(sum(widths)))

    @property
    def multiple(self) -> int:
        """Height and width are padded to a multiple of this number of pixels."""
        return 2 ** len(self.levels)

    def forward(self, image: Tensor) -> Tensor:
        rest = [-length % self.multiple for length in image.shape[2:]]
        if any(rest):
            image = F.pad(image, (0, rest[1], 0, rest[0]), mode="replicate")
        x = self.stem(space_to_depth(image))
        found = []
        for level, (blocks, norm) in enumerate(zip(self.levels, self.norms, strict=True)):
            x = blocks(self.downs[level - 1](x) if level else x)
            found.append(F.silu(norm(x)).mean((2, 3)))
        return (torch.cat(found, 1) - self.mean) / self.deviation

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Shift and scale later outputs by the statistics of ``features`` (n, sum of widths).

        Afterwards these features have mean 0 and each level has a total variance of 100, so that
        every level has the same weight in a distance.
        """
        widths = [norm.weight.numel() for norm in self.norms]
        total = [part.var(0).sum() for part in features.split(widths, dim=1)]
        scale = torch.cat([v.sqrt().expand(n) / 10 for v, n in zip(total, widths, strict=True)])
        self.mean.add_(features.mean(0) * self.deviation)
        self.deviation.mul_(scale)
