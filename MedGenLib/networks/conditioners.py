"""Conditioners, which feed a mask to the velocity network, behind one interface.

``prepare(maps)`` is called once per sample with the conditioning maps at image resolution,
(b, maps, 2i, 2j, 2k). ``residuals(h, embedding, prepared)`` is called at every network evaluation
and returns the tensors added at each level of the U-Net's encoder, finest level first.
"""

from __future__ import annotations

from torch import Tensor, nn

from MedGenLib.networks.blocks import ResidualBlock, downsample, space_to_depth


class MaskEncoder(nn.Module):
    """Features of the mask only, computed once per sample."""

    def __init__(self, channels_in: int, widths: tuple[int, ...], embedding: int = 0) -> None:
        super().__init__()
        self.enter = nn.Conv3d(8 * channels_in, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(3, width) for width in widths)
        self.down = _downs(widths)

    def prepare(self, maps: Tensor) -> list[Tensor]:
        h = self.enter(space_to_depth(maps))
        features = []
        for level, block in enumerate(self.blocks):
            h = block(h if level == 0 else self.down[level - 1](h))
            features.append(h)
        return features

    def residuals(self, h: Tensor, embedding: Tensor, prepared: list[Tensor]) -> list[Tensor]:
        return prepared


class ControlBranch(nn.Module):
    """A second encoder over the noisy latent and the mask (ControlNet, Zhang et al. 2023, arXiv 2302.05543).

    Its outputs pass through convolutions initialized to zero. A U-Net trained without the branch
    is therefore unchanged at first and can stay frozen while the branch is trained. Each network
    evaluation runs one encoder more.
    """

    def __init__(self, channels_in: int, widths: tuple[int, ...], embedding: int) -> None:
        super().__init__()
        self.enter = nn.Conv3d(8 * channels_in, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(3, width, embedding) for width in widths)
        self.down = _downs(widths)
        self.leave = nn.ModuleList(nn.Conv3d(width, width, 1) for width in widths)
        for convolution in self.leave:
            nn.init.zeros_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def prepare(self, maps: Tensor) -> list[Tensor]:
        return [self.enter(space_to_depth(maps))]

    def residuals(self, h: Tensor, embedding: Tensor, prepared: list[Tensor]) -> list[Tensor]:
        h = h + prepared[0]
        added = []
        for level, (block, leave) in enumerate(zip(self.blocks, self.leave, strict=True)):
            h = block(h if level == 0 else self.down[level - 1](h), embedding)
            added.append(leave(h))
        return added


def _downs(widths: tuple[int, ...]) -> nn.ModuleList:
    return nn.ModuleList(downsample(3, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))


CONDITIONERS: dict[str, type[nn.Module]] = {"mask-encoder": MaskEncoder, "control": ControlBranch}
