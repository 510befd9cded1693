"""What the recipes of slice translators share: data, pictures and export."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.training.adversarial import logits
from MedGenLib.training.data.pairs import Pairs, tissue_thresholds
from MedGenLib.training.loop import DataRecipe, Log, Objective, to_device_of
from MedGenLib.training.package import export_package

SHOWN = 4
"""Slices of a picture."""
CHECKED = 16
"""Slices of a validation."""


class TranslationRecipe(DataRecipe):
    """Base of the recipes: batches of `Pairs`, and a package of the network "translator".

    Validation takes slices of the held-out people, on which nothing of the training depends.
    """

    def __init__(self, config: dict[str, Any], translator: nn.Module, paired: bool) -> None:
        self.config, self.paired = config, paired
        self.channels: int = translator.arguments["channels_in"]
        self.loss: dict[str, float] = config["loss"]
        self.networks: dict[str, nn.Module] = {"translator": translator.to(memory_format=torch.channels_last)}
        self.objectives: list[Objective] = []

    @cached_property
    def data(self) -> Pairs:
        return Pairs(self.config, self.config["patch"], self.channels, self.paired)

    @cached_property
    def held(self) -> Pairs:
        return Pairs(self.config, self.config["patch"], self.channels, self.paired, "held_cases")

    def random_batch(self, size: int) -> dict[str, Tensor]:
        """Noise in the form of a batch, to time a step without data."""
        side = (self.config["patch"],) * 2
        images = {"source": torch.randn(size, self.channels, *side), "target": torch.randn(size, 1, *side)}
        return {**images, "plane": torch.zeros(size, dtype=torch.int64)}

    def translated(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> Tensor:
        """The translation of the sources of a batch."""
        source = batch["source"].contiguous(memory_format=torch.channels_last)
        return (network or self.networks["translator"])(source, batch["plane"])

    def held_out(self, network: nn.Module) -> list[dict[str, Tensor]]:
        """The same slices of held-out people at each validation."""
        reader = self.held if self.held.axes else self.data
        return [to_device_of(network, reader.sample(np.random.default_rng([7, index]), 1)) for index in range(CHECKED)]

    def picture(self, batches: list[dict[str, Tensor]], made: list[Tensor], step: int, log: Log) -> None:
        """Rows of source, translation and, if paired, the real target."""
        rows = []
        for batch, image in list(zip(batches, made, strict=True))[:SHOWN]:
            shown = [batch["source"][0, 0], image[0, 0], *([batch["target"][0, 0]] if self.paired else [])]
            # Rows of slices go from right to left or from front to back: turned as radiologists look at them.
            rows.append(np.concatenate([part.float().cpu().numpy().T for part in shown], 1))
        log.picture("validation/source_made_real", (np.concatenate(rows) + 1) / 2, step)

    @torch.no_grad()
    def judged(self, networks: dict[str, nn.Module], judge: str, step: int, log: Log) -> dict[str, float]:
        """Logits of held-out targets and of translations: both are 1 where the discriminator is deceived."""
        batches = self.held_out(networks["translator"])
        made = [self.translated(batch, networks["translator"]) for batch in batches]
        self.picture(batches, made, step, log)
        figures = {"held_out_logit": [batch["target"] for batch in batches], "translated_logit": made}
        return {
            name: float(torch.stack([logits(networks[judge], x).mean() for x in images]).mean())
            for name, images in figures.items()
        }

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(
            self.config,
            {"translator": networks["translator"]},
            step=step,
            held_out=self.config["data"]["held_out"],
            statistics={"tissues": self.data.statistics(tissue_thresholds(self.config["data"]))},
            preprocessing={"outline": self.data.outline()},
            out=out,
        )
