"""What a slice looks like, as a vector: the network behind the distribution measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.blocks import ChannelNorm, ResidualBlock, downsample, space_to_depth


class FeatureEncoder(nn.Module):
    """Slices (b, 1, h, w) of any size from 16 x 16 -> features (b, sum of widths).

    The spatial means of every level, so that fine texture counts as well as anatomy, on a scale
    that `standardise` sets. The first layer folds 2 x 2 pixels into channels: nothing is lost
    before the first convolution, and the most costly level has a quarter of the pixels.
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
        """Height and width are padded to multiples of this number of pixels."""
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
    def standardise(self, features: Tensor) -> None:
        """From now on features like these (n, sum of widths) have mean 0, and every level the same
        total variance of 100, so that none drowns the others in a distance."""
        widths = [norm.weight.numel() for norm in self.norms]
        total = [part.var(0).sum() for part in features.split(widths, dim=1)]
        scale = torch.cat([v.sqrt().expand(n) / 10 for v, n in zip(total, widths, strict=True)])
        self.mean.add_(features.mean(0) * self.deviation)
        self.deviation.mul_(scale)
