"""Recipe `pix2pix`: a translator of slices from pairs, with a patch discriminator (Isola et al. 2017).

Loss of the translator: ``l1`` times the mean absolute error plus ``adversarial`` times the least-squares loss (Mao et
al. 2017) of a discriminator that sees source and target; 100 and 1 as published. Recipe `regression` is its case
without ``adversarial``, which has no discriminator; `pix2pixhd` is that of several scales with feature matching.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.networks import SliceTranslator
from MedGenLib.training.adversarial import (
    PIX2PIX_ADAM,
    feature_matching,
    least_squares_discriminator,
    least_squares_generator,
    patch_discriminator,
)
from MedGenLib.training.loop import Draw, Log, Objective
from MedGenLib.training.recipes import recipe
from MedGenLib.training.translation import TranslationRecipe


@recipe("pix2pix")
class Pix2Pix(TranslationRecipe):
    """Recipe of the module. The configuration has ``data``, ``patch``, ``network``, ``discriminator`` and ``loss``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        translator = SliceTranslator(**config["network"])
        super().__init__(config, translator, paired=True)
        adversarial = self.loss["adversarial"] > 0
        adam = PIX2PIX_ADAM if adversarial else None
        self.objectives = [Objective("translation", ("translator",), self._translator_loss, adam)]
        if adversarial:
            channels = translator.arguments["channels_in"] + 1
            self.networks["discriminator"] = self.new_discriminator(channels, config["discriminator"])
            self.objectives.append(Objective("discrimination", ("discriminator",), self._discriminator_loss, adam))

    def new_discriminator(self, channels: int, settings: Mapping[str, int]) -> nn.Module:
        return patch_discriminator(channels, **settings)

    def feature_maps(self, discriminator: nn.Module, source: Tensor, image: Tensor) -> list[list[Tensor]]:
        """The feature maps of each scale, of which the last one are logits."""
        return [discriminator(torch.cat([source, image], 1))]

    def _translator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        made = self.translated(batch)
        batch["made"] = made.detach()
        error = F.l1_loss(made, batch["target"])
        loss, figures = self.loss["l1"] * error, {"l1": float(error.detach())}
        if self.loss["adversarial"]:
            judge = self.networks["discriminator"]
            fake = self.feature_maps(judge, batch["source"], made)
            deceived = sum(least_squares_generator(maps[-1].float()) for maps in fake)
            loss = loss + self.loss["adversarial"] * deceived
            figures["adversarial"] = float(deceived.detach())
            if weight := self.loss.get("features"):
                with torch.no_grad():
                    real = self.feature_maps(judge, batch["source"], batch["target"])
                distance = feature_matching(real, fake)
                loss = loss + weight * distance
                figures["features"] = float(distance.detach())
        return loss, figures

    def _discriminator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        judge = self.networks["discriminator"]
        real, fake = (self.feature_maps(judge, batch["source"], batch[key]) for key in ("target", "made"))
        loss = sum(least_squares_discriminator(r[-1].float(), f[-1].float()) for r, f in zip(real, fake, strict=True))
        return loss, {"discriminator": float(loss.detach())}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Error on held-out people; a discriminator that learns people by heart gives their real pairs low logits."""
        batches = self.held_out(networks["translator"])
        made = [self.translated(batch, networks["translator"]) for batch in batches]
        self.picture(batches, made, step, log)
        errors = [F.l1_loss(image, batch["target"]) for image, batch in zip(made, batches, strict=True)]
        figures = {"l1": float(torch.stack(errors).mean())}
        if "discriminator" in networks:
            found = [
                maps[-1].mean()
                for batch in batches
                for maps in self.feature_maps(networks["discriminator"], batch["source"], batch["target"])
            ]
            figures["held_out_logit"] = float(torch.stack(found).mean())
        return figures


@recipe("regression")
class Regression(Pix2Pix):
    """The mean absolute error alone: the case of weight 0."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        super().__init__({**config, "loss": {**config["loss"], "adversarial": 0.0}}, out)
