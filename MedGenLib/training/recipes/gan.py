"""Recipe `gan`: volumes without a mask by the modern minimum of a GAN (R3GAN: Huang et al. 2024, arXiv 2501.05441).

The discriminator tells which of a real and a fake volume is the real one; its gradient is penalized on both (R1 and R2)
by the weight ``r1``. No network has a normalization.
"""

from __future__ import annotations

from torch import Tensor

from MedGenLib.training.adversarial import relativistic, zero_centered
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes import recipe
from MedGenLib.training.unconditional import UnconditionalRecipe


@recipe("gan")
class Gan(UnconditionalRecipe):
    """Recipe of the module."""

    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        return relativistic(real, fake)

    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        return relativistic(fake, real)

    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], kind: Tensor, draw: Draw) -> Tensor:
        return self.loss["r1"] * (zero_centered(*real) + zero_centered(*fake))
