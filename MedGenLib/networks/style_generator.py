"""Style-modulated generator of whole volumes on one grid, from the paper of StyleGAN2 (arXiv 1912.04958) in 3-D.

A mapping network makes a style from the noise; the style scales the input channels of each convolution, whose output
is divided by the norm that this gives its weights. Each convolution is followed by noise of a learned strength, and
each level adds its image to that of the coarser ones. The alias-free filters of StyleGAN3 are left out: they cost eight
times the voxels at each nonlinearity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks.volume_gan import SLOPE, coarsest, one_hot

MAPPING_RATE = 0.01
"""Learning rate of the mapping network, relative to the others."""


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled as it runs, by which all layers learn at one pace."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate, self.scale = rate, rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class ModulatedConvolution(nn.Module):
    """Convolution with weights that a style scales for each item, in the form that scales its input and its output.

    Parameters
    ----------
    demodulate: divide by the norm of the scaled weights (section 2.2 of the paper).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(kernel,) * 3))
        self.scale, self.padding = 1 / math.sqrt(inputs * kernel**3), kernel // 2
        self.style = EqualLinear(style, inputs, bias=1.0)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight, scales = self.weight * self.scale, self.style(w)
        x = F.conv3d(x * scales[:, :, None, None, None].to(x.dtype), weight, padding=self.padding)
        if not self.demodulate:
            return x
        norm = (scales.square() @ weight.square().sum((2, 3, 4)).T + 1e-8).rsqrt()
        return x * norm[:, :, None, None, None].to(x.dtype)


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias and nonlinearity."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.convolution = ModulatedConvolution(inputs, outputs, 3, style)
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1, 1))

    def forward(self, x: Tensor, w: Tensor, draw: torch.Generator | None) -> Tensor:
        x = self.convolution(x, w)
        if draw is not None:
            noise = torch.randn(len(x), 1, *x.shape[2:], generator=draw, device=draw.device)
            x = x + self.strength * noise.to(x.device)
        return math.sqrt(2) * F.leaky_relu(x + self.bias, SLOPE)


class StyleGenerator(nn.Module):
    """Noise (b, latent) and classes (b,) -> volumes (b, 1, *grid); parameters as of `VolumeGenerator`."""

    def __init__(
        self, grid: Sequence[int], widths: Sequence[int], mapping: int = 4, latent: int = 64, classes: int = 0
    ) -> None:
        super().__init__()
        self.arguments = {"grid": list(grid), "widths": list(widths), "mapping": mapping, "latent": latent}
        self.arguments["classes"] = classes
        self.latent = latent
        sizes = [latent + classes] + [latent] * mapping
        self.mapping = nn.ModuleList(
            EqualLinear(a, b, MAPPING_RATE) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.constant = nn.Parameter(torch.randn(1, widths[0], *coarsest(grid, len(widths))))
        before = [widths[0], *widths[:-1]]
        self.enter = nn.ModuleList(StyledLayer(a, b, latent) for a, b in zip(before, widths, strict=True))
        self.refine = nn.ModuleList(StyledLayer(width, width, latent) for width in widths)
        self.image = nn.ModuleList(ModulatedConvolution(width, 1, 1, latent, demodulate=False) for width in widths)
        self.level = nn.Parameter(torch.zeros(len(widths)))

    def style(self, noise: Tensor, kind: Tensor) -> Tensor:
        """The style of noise of unit length."""
        given = one_hot(noise, kind, self.arguments["classes"])
        w = given * (given.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            w = math.sqrt(2) * F.leaky_relu(layer(w), SLOPE)
        return w

    def forward(self, noise: Tensor, kind: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """``draw`` gives the noise of the layers; None for none."""
        w = self.style(noise, kind)
        x, made = self.constant.expand(len(noise), -1, -1, -1, -1), 0.0
        for index, (enter, refine, image) in enumerate(zip(self.enter, self.refine, self.image, strict=True)):
            if index:
                x, made = upsampled(x), upsampled(made)
            x = refine(enter(x, w, draw), w, draw)
            made = made + image(x, w) + self.level[index]
        return made.float()


def upsampled(x: Tensor) -> Tensor:
    """Twice the voxels along each axis by the filter [1, 3, 3, 1], which is linear interpolation."""
    return F.interpolate(x, scale_factor=2, mode="trilinear")
