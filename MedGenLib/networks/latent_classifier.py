"""Voxel classifier of noisy latents, for classifier guidance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock, Upsample, downsample, sinusoidal_embedding


class LatentClassifier(nn.Module):
    """Logits of the labels at every voxel of a latent, at any time of the flow.

    Parameters
    ----------
    labels: number of labels, background included.
    latent: latent channels.
    widths: channels per level; every level halves the resolution.
    """

    def __init__(self, labels: int, latent: int = 8, widths: Sequence[int] = (24, 48)) -> None:
        super().__init__()
        widths = tuple(widths)
        self.arguments = {"labels": labels, "latent": latent, "widths": list(widths)}
        self.stride = 2 ** (len(widths) - 1)
        self.time_width = 4 * widths[0]
        width = self.time_width
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.enter = nn.Conv3d(latent, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(ResidualBlock(3, w, width) for w in widths)
        self.down = nn.ModuleList(downsample(3, a, b) for a, b in steps)
        self.up = nn.ModuleList(Upsample(3, b, a) for a, b in steps)
        self.decoder = nn.ModuleList(ResidualBlock(3, w, width) for w in widths[:-1])
        self.leave = nn.Conv3d(widths[0], labels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Latent (b, latent, i, j, k) at times (b,) in 0..1 -> logits (b, labels, i, j, k).

        i, j, k must be multiples of `stride`.
        """
        embedding = self.embed(sinusoidal_embedding(time, self.time_width))
        h = self.enter(x)
        skips = []
        for level, block in enumerate(self.encoder):
            h = block(h if level == 0 else self.down[level - 1](h), embedding)
            skips.append(h)
        for level in reversed(range(len(self.decoder))):
            h = self.decoder[level](self.up[level](h) + skips[level], embedding)
        return self.leave(h).float()
