"""Recipes of generators with a discriminator, for volumes without a mask; they differ in their losses.

- `gan`: the modern minimum of a GAN (R3GAN: Huang et al. 2024, arXiv 2501.05441). The discriminator tells which of a
  real and a fake volume is the real one; its gradient is penalized on both (R1 and R2) by the weight ``r1``.
- `wgan-gp`: a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1). The critic
  estimates the distance between the distributions in ``critic_steps`` steps for each one of the generator; its slope on
  lines from real to fake volumes is drawn to 1 by the weight ``penalty``.
- `style-gan`: a style-modulated generator (Karras et al. 2020, arXiv 1912.04958) with the non-saturating loss and R1
  by the weight ``r1`` in each ``lazy``-th step; the discriminator sees how its batch differs. The regularization of the
  path length is left out, as the paper allows.
"""

from __future__ import annotations

from torch import Tensor

from MedGenLib.networks import StyleGenerator
from MedGenLib.training.adversarial import (
    WGAN_ADAM,
    between,
    non_saturating_generator,
    one_centered,
    relativistic,
    saturated_discriminator,
    zero_centered,
)
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes import recipe
from MedGenLib.training.unconditional import UnconditionalRecipe

Judged = tuple[Tensor, Tensor]
"""Logits and their images."""


@recipe("gan")
class Gan(UnconditionalRecipe):
    """R3GAN."""

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return relativistic(real, fake)

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return relativistic(fake, real)

    def penalty(self, real: Judged, fake: Judged, kind: Tensor, draw: Draw) -> Tensor:
        return self.loss["r1"] * (zero_centered(*real) + zero_centered(*fake))


@recipe("wgan-gp")
class WganGp(UnconditionalRecipe):
    """WGAN-GP."""

    adam = WGAN_ADAM

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def penalty(self, real: Judged, fake: Judged, kind: Tensor, draw: Draw) -> Tensor:
        points = between(real[1], fake[1], draw.torch).detach().requires_grad_()
        return self.loss["penalty"] * one_centered(self.networks["discriminator"](points, kind), points)


@recipe("style-gan")
class StyleGan(UnconditionalRecipe):
    """StyleGAN2 in 3-D."""

    spread = True
    generator = StyleGenerator

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return saturated_discriminator(real, fake)

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return non_saturating_generator(fake)

    def penalty(self, real: Judged, fake: Judged, kind: Tensor, draw: Draw) -> Tensor:
        return self.loss["r1"] * zero_centered(*real)
