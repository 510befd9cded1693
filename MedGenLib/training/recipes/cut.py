"""Recipe `cut`: a translator of slices from images without pairs (Park et al. 2020, "CUT").

Loss of the translator: the least-squares loss of a patch discriminator of targets, plus PatchNCE: a place of the
translation resembles the same place of the source more than other places of it. Features come from the translator's own
encoder and a small network (two layers of 256) for each of five layers; 256 places, temperature 0.07. The same term
on translated targets keeps what is a target already; with the weight ``identity`` of 1, the mean of both counts.
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
    least_squares_discriminator,
    least_squares_generator,
    logits,
    patch_discriminator,
    patch_nce,
)
from MedGenLib.training.loop import Draw, Log, Objective
from MedGenLib.training.recipes import recipe
from MedGenLib.training.translation import TranslationRecipe


class Projector(nn.Module):
    """A network of two layers for the features of each layer of an encoder, at given places."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, width)) for n in widths
        )

    def forward(self, maps: list[Tensor], places: list[Tensor]) -> list[Tensor]:
        """Maps (b, c, h, w) and flat indices -> (b, places, width) of unit length, for each layer."""
        found = []
        for layer, values, index in zip(self.layers, maps, places, strict=True):
            chosen = values.flatten(2)[:, :, index].transpose(1, 2)
            found.append(F.normalize(layer(chosen), dim=-1))
        return found


@recipe("cut")
class Cut(TranslationRecipe):
    """Recipe of the module.

    The configuration has ``data``, ``patch``, ``network``, ``discriminator`` and ``loss``, and optionally ``projector``
    with the ``width`` of the small network and the number of ``places``.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        translator = ResidualTranslator(**config["network"])
        super().__init__(config, translator, paired=False)
        projector = {"width": 256, "places": 256} | config.get("projector", {})
        self.places: int = projector["places"]
        self.networks["projector"] = Projector(translator.widths, projector["width"])
        self.networks["discriminator"] = patch_discriminator(1, **config["discriminator"])
        self.objectives = [
            Objective("discrimination", ("discriminator",), self._discriminator_loss, PIX2PIX_ADAM),
            Objective("translation", ("translator", "projector"), self._translator_loss, PIX2PIX_ADAM),
        ]

    def _discriminator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            made = self.translated(batch)
        judge = self.networks["discriminator"]
        loss = least_squares_discriminator(logits(judge, batch["target"]), logits(judge, made))
        return loss, {"discriminator": float(loss.detach())}

    def _translator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        made = self.translated(batch)
        deceived = least_squares_generator(logits(self.networks["discriminator"], made))
        likeness = self._nce(batch["source"], made, batch["plane"], draw.torch)
        figures = {"adversarial": float(deceived.detach()), "nce": float(likeness.detach())}
        if weight := self.loss["identity"]:
            kept = self.networks["translator"](batch["target"], batch["plane"])
            identity = self._nce(batch["target"], kept, batch["plane"], draw.torch)
            figures["identity"] = float(identity.detach())
            likeness = (likeness + weight * identity) / (1 + weight)
        return self.loss["adversarial"] * deceived + self.loss["nce"] * likeness, figures

    def _nce(self, source: Tensor, made: Tensor, plane: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over the layers."""
        translator, projector = self.networks["translator"], self.networks["projector"]
        queries = translator.features(made, plane)
        places = [torch.randperm(x[0, 0].numel(), generator=generator)[: self.places].to(x.device) for x in queries]
        with torch.no_grad():
            keys = projector(translator.features(source, plane), places)
        pairs = zip(projector(queries, places), keys, strict=True)
        return sum(patch_nce(query, key) for query, key in pairs) / len(places)

    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        return self.judged(networks, "discriminator", step, log)
