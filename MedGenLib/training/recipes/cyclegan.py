"""Recipe `cyclegan`: two translators of slices, there and back, from images without pairs (Zhu et al. 2017).

Loss of the translators: the least-squares losses of two patch discriminators, ``cycle`` times the mean absolute error
of an image that is translated there and back, and ``identity`` times that of an image that is translated to its own
kind; 1, 10 and 5 as published. Each discriminator sees a pool of the last translations (50 as published). The package
holds the translator of the sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks import ResidualTranslator
from MedGenLib.training.adversarial import (
    PIX2PIX_ADAM,
    ImagePool,
    least_squares_discriminator,
    least_squares_generator,
    logits,
    patch_discriminator,
)
from MedGenLib.training.data.pairs import SIDES
from MedGenLib.training.loop import Draw, Log, Objective
from MedGenLib.training.recipes import recipe
from MedGenLib.training.translation import TranslationRecipe


@recipe("cyclegan")
class CycleGAN(TranslationRecipe):
    """Recipe of the module.

    The configuration has ``data``, ``patch``, ``network``, ``discriminator`` and ``loss``, and optionally ``pool``, the
    images of a pool. The pools are of one process, so several cannot share out a training.
    """

    alone = True

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        super().__init__(config, ResidualTranslator(**config["network"]), paired=False)
        self.networks["back"] = ResidualTranslator(**config["network"]).to(memory_format=torch.channels_last)
        for side in SIDES:
            self.networks[f"{side}_discriminator"] = patch_discriminator(1, **config["discriminator"])
            self.networks[f"{side}_pool"] = ImagePool(config.get("pool", 50), config["patch"])
        judges = tuple(f"{side}_discriminator" for side in SIDES)
        self.objectives = [
            Objective("translation", ("translator", "back"), self._translators_loss, PIX2PIX_ADAM),
            Objective("discrimination", judges, self._discriminators_loss, PIX2PIX_ADAM),
        ]

    def _translators_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        there, back = self.networks["translator"], self.networks["back"]
        source, target, plane = batch["source"], batch["target"], batch["plane"]
        made = {"target": there(source, plane), "source": back(target, plane)}
        terms = {
            "adversarial": sum(
                least_squares_generator(logits(self.networks[f"{side}_discriminator"], image))
                for side, image in made.items()
            ),
            "cycle": F.l1_loss(back(made["target"], plane), source) + F.l1_loss(there(made["source"], plane), target),
        }
        if self.loss["identity"]:
            terms["identity"] = F.l1_loss(there(target, plane), target) + F.l1_loss(back(source, plane), source)
        batch |= {f"made_{side}": image.detach() for side, image in made.items()}
        loss = sum(self.loss[name] * term for name, term in terms.items())
        return loss, {name: float(term.detach()) for name, term in terms.items()}

    def _discriminators_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        loss = torch.zeros((), device=batch["source"].device)
        for side in SIDES:
            judge = self.networks[f"{side}_discriminator"]
            fake = self.networks[f"{side}_pool"].exchange(batch[f"made_{side}"], draw.numpy)
            loss = loss + least_squares_discriminator(logits(judge, batch[side]), logits(judge, fake))
        return loss, {"discriminators": float(loss.detach())}

    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        return self.judged(networks, "target_discriminator", step, log)
