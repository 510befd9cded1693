"""Recipe `wgan-gp`: volumes without a mask by a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017).

The critic estimates the distance between the distributions in ``critic_steps`` steps for each one of the generator; its
slope on lines from real to fake volumes is drawn to 1 by the weight ``penalty`` (arXiv 1704.00028, algorithm 1).
"""

from __future__ import annotations

from torch import Tensor

from MedGenLib.training.adversarial import WGAN_ADAM, between, one_centered
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes import recipe
from MedGenLib.training.unconditional import UnconditionalRecipe


@recipe("wgan-gp")
class WganGp(UnconditionalRecipe):
    """Recipe of the module."""

    adam = WGAN_ADAM

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], kind: Tensor, draw: Draw) -> Tensor:
        points = between(real[1], fake[1], draw.torch).detach().requires_grad_()
        return self.loss["penalty"] * one_centered(self.networks["discriminator"](points, kind), points)
