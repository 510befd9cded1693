"""Losses of adversarial training as published, on logits of a patch discriminator.

MONAI's PatchAdversarialLoss is not used: it puts an activation before the least-squares loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.training.loop import AdamSettings

PIX2PIX_ADAM = AdamSettings(betas=(0.5, 0.999), weight_decay=0.0, clip=None)
"""Isola et al. 2017, section 3.3."""


def patch_discriminator(channels_in: int, width: int = 64, layers: int = 3) -> nn.Module:
    """The discriminator of pix2pix for slices: each logit sees 70 x 70 pixels with three layers."""
    from monai.networks.nets import PatchDiscriminator

    return PatchDiscriminator(
        spatial_dims=2, channels=width, in_channels=channels_in, num_layers_d=layers, norm="INSTANCE"
    )


def logits(discriminator: nn.Module, *images: Tensor) -> Tensor:
    """Logits of images that are judged together."""
    return discriminator(torch.cat(images, 1))[-1].float()


def least_squares_generator(fake: Tensor) -> Tensor:
    """Mean of (D(fake) - 1)^2 (Mao et al. 2017, eq. 9 with c = 1, without the factor 1/2 as in pix2pix)."""
    return (fake - 1).square().mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Half of the mean of (D(real) - 1)^2 plus that of D(fake)^2 (Mao et al. 2017, eq. 9 with b = 1, a = 0)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy of finding the key of the same place among those of one image (Park et al. 2020, eq. 3).

    Parameters
    ----------
    queries, keys: (b, places, channels) of unit length; no gradient goes into the keys.
    """
    similarity = torch.bmm(queries.float(), keys.detach().float().transpose(1, 2)) / temperature
    places = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
    return F.cross_entropy(similarity.flatten(0, 1), places.flatten())
