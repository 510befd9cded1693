"""Losses of adversarial training as published, on logits of a discriminator of patches or of whole volumes.

MONAI's PatchAdversarialLoss is not used: it puts an activation before the least-squares loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.training.loop import AdamSettings

PIX2PIX_ADAM = AdamSettings(betas=(0.5, 0.999), weight_decay=0.0, clip=None)
"""Isola et al. 2017, section 3.3."""
R3GAN_ADAM = AdamSettings(betas=(0.0, 0.99), weight_decay=0.0, clip=None)
"""Huang et al. 2024 (arXiv 2501.05441), appendix; Karras et al. 2020 for StyleGAN2 too."""
WGAN_ADAM = AdamSettings(betas=(0.0, 0.9), weight_decay=0.0, clip=None)
"""Gulrajani et al. 2017 (arXiv 1704.00028), algorithm 1."""


def patch_discriminator(channels_in: int, width: int = 64, layers: int = 3) -> nn.Module:
    """The discriminator of pix2pix for slices: each logit sees 70 x 70 pixels with three layers."""
    from monai.networks.nets import PatchDiscriminator

    return PatchDiscriminator(
        spatial_dims=2, channels=width, in_channels=channels_in, num_layers_d=layers, norm="INSTANCE"
    )


class DiscriminatorPyramid(nn.Module):
    """The discriminators of pix2pixHD (Wang et al. 2018, section 3.2): alike, for an image and its halves.

    Returns the feature maps of each scale, of which the last one are logits.
    """

    def __init__(self, channels_in: int, width: int = 64, layers: int = 3, scales: int = 3) -> None:
        super().__init__()
        self.judges = nn.ModuleList(patch_discriminator(channels_in, width, layers) for _ in range(scales))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        found = []
        for judge in self.judges:
            found.append(judge(x))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return found


class ImagePool(nn.Module):
    """Earlier translations that a discriminator still sees (Zhu et al. 2017, section 4).

    Its images are buffers, so that a run that resumes from its checkpoint has them.
    """

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, 1, side, side))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def exchange(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        """Each image itself or, half of the time once the pool is full, an earlier one whose place it takes."""
        found = []
        for image in images.detach().float():
            if self.filled < len(self.images):
                self.images[self.filled] = image
                self.filled += 1
            elif generator.random() < 0.5:
                place = generator.integers(len(self.images))
                image, self.images[place] = self.images[place].clone(), image
            found.append(image)
        return torch.stack(found)


def logits(discriminator: nn.Module, *images: Tensor) -> Tensor:
    """Logits of images that are judged together."""
    return discriminator(torch.cat(images, 1))[-1].float()


def least_squares_generator(fake: Tensor) -> Tensor:
    """Mean of (D(fake) - 1)^2 (Mao et al. 2017, eq. 9 with c = 1, without the factor 1/2 as in pix2pix)."""
    return (fake - 1).square().mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Half of the mean of (D(real) - 1)^2 plus that of D(fake)^2 (Mao et al. 2017, eq. 9 with b = 1, a = 0)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Distance of the hidden maps of a `DiscriminatorPyramid` (Wang et al. 2018, eq. 3): L1, summed over the layers.

    The mean over the scales is taken, as in the code of its authors; no gradient goes into the real maps.
    """
    distances = [
        F.l1_loss(f.float(), r.detach().float())
        for ours, theirs in zip(fake, real, strict=True)
        for f, r in zip(ours[:-1], theirs[:-1], strict=True)
    ]
    return torch.stack(distances).sum() / len(real)


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy of finding the key of the same place among those of one image (Park et al. 2020, eq. 3).

    Parameters
    ----------
    queries, keys: (b, places, channels) of unit length; no gradient goes into the keys.
    """
    similarity = torch.bmm(queries.float(), keys.detach().float().transpose(1, 2)) / temperature
    places = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
    return F.cross_entropy(similarity.flatten(0, 1), places.flatten())


def relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    """Mean of -log sigmoid(winner - loser) over pairs: the loss of the discriminator with its real logits as winners,
    and that of the generator with its fake ones (arXiv 2501.05441, eq. 2)."""
    return F.softplus(loser - winner).mean()


def saturated_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of -log sigmoid(real) - log(1 - sigmoid(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """Mean of -log sigmoid(fake)."""
    return F.softplus(-fake).mean()


def squared_slope(logits: Tensor, images: Tensor) -> Tensor:
    """Squared length of the gradient of each logit by its image, (b,), which can be differentiated."""
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.float().square().flatten(1).sum(1)


def zero_centered(logits: Tensor, images: Tensor) -> Tensor:
    """Half of the mean squared slope: R1 on real images, R2 on fake ones (Mescheder et al. 2018, eq. 9)."""
    return squared_slope(logits, images).mean() / 2


def one_centered(logits: Tensor, images: Tensor) -> Tensor:
    """Mean of (slope - 1)^2, the gradient penalty of WGAN-GP (arXiv 1704.00028, eq. 3)."""
    return ((squared_slope(logits, images) + 1e-12).sqrt() - 1).square().mean()


def between(real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """A random place on the line from each real image to its fake one."""
    share = torch.rand(len(real), generator=generator).view(-1, *(1,) * (real.ndim - 1)).to(real.device)
    return real + share * (fake - real)
