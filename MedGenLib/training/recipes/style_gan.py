"""Recipe `style-gan`: volumes without a mask by a style-modulated generator (Karras et al. 2020, arXiv 1912.04958).

Non-saturating loss; R1 by the weight ``r1`` in each ``lazy``-th step; the discriminator sees how its batch differs.
The regularization of the path length is left out, as the paper allows.
"""

from __future__ import annotations

from torch import Tensor

from MedGenLib.networks import StyleGenerator
from MedGenLib.training.adversarial import non_saturating_generator, saturated_discriminator, zero_centered
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes import recipe
from MedGenLib.training.unconditional import UnconditionalRecipe


@recipe("style-gan")
class StyleGan(UnconditionalRecipe):
    """Recipe of the module."""

    spread = True
    generator = StyleGenerator

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return saturated_discriminator(real, fake)

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return non_saturating_generator(fake)

    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], kind: Tensor, draw: Draw) -> Tensor:
        return self.loss["r1"] * zero_centered(*real)
