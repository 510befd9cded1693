"""Small tissue classifier of slices; its activations define a perceptual distance."""

from __future__ import annotations

from torch import Tensor, nn

from MedGenLib.networks.blocks import ChannelNorm


class FeatureNet(nn.Module):
    """Slices (b, 1, h, w) -> class scores (b, classes, h/8, w/8), with one stride-2 level per width."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        channels = 1
        for width in widths:
            self.levels.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.SiLU(),
                    nn.Conv2d(width, width, 4, stride=2, padding=1),
                    ChannelNorm(width),
                    nn.SiLU(),
                )
            )
            channels = width
        self.classify = nn.Conv2d(channels, classes, 1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Activations of every level, finest first."""
        activations = []
        for level in self.levels:
            image = level(image)
            activations.append(image)
        return activations

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.features(image)[-1])
