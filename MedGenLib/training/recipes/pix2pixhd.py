"""Recipe `pix2pixhd`: a translator of slices from pairs, judged at several scales (Wang et al. 2018, "pix2pixHD").

Loss of the translator: the least-squares losses of discriminators of the image, of its half and of its quarter, plus
``features`` (10 as published) times the distance of their hidden maps from those of the real target. It has no mean
absolute error (``l1`` of 0). The network is that of `pix2pix` in place of the published pair of networks for images of
2,048 pixels, and there is no distance of VGG features, whose weights are not those of medical images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from MedGenLib.training.adversarial import DiscriminatorPyramid
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.pix2pix import Pix2Pix


@recipe("pix2pixhd")
class Pix2PixHD(Pix2Pix):
    """Recipe of the module: as `Pix2Pix`; ``discriminator`` has ``scales``, and ``loss`` has ``features``."""

    def new_discriminator(self, channels: int, settings: Mapping[str, int]) -> nn.Module:
        return DiscriminatorPyramid(channels, **settings)

    def feature_maps(self, discriminator: nn.Module, source: Tensor, image: Tensor) -> list[list[Tensor]]:
        return discriminator(torch.cat([source, image], 1))
