"""What the recipes of generators without a mask share: data, the alternating losses, pictures and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.networks.volume_gan import VolumeDiscriminator
from MedGenLib.training.data.images import Images
from MedGenLib.training.loop import AdamSettings, Draw, Log, Objective, to_device_of

SHOWN = 6
"""Volumes of a picture."""
CHECKED = 32
"""Images whose logits are compared in a validation."""


class UnconditionalRecipe(ABC):
    """Base of the recipes: a discriminator that learns in each step, and a generator in each ``critic_steps``-th one.

    The penalty of the discriminator is lazy: it is added in each ``loss.lazy``-th step, times that number, within the
    step of the other losses, so that its mean is the same and Adam needs no other settings.
    """

    spread = False

    def __init__(self, config: dict[str, Any], generator: nn.Module, adam: AdamSettings) -> None:
        self.config, self.loss = config, config["loss"]
        judge = VolumeDiscriminator(
            config["network"]["grid"], **config["discriminator"], classes=len(config["classes"]), spread=self.spread
        )
        self.networks: dict[str, nn.Module] = {"discriminator": judge, "generator": generator}
        every = int(self.loss.get("critic_steps", 1))
        self.objectives = [
            Objective("discrimination", ("discriminator",), self._discriminator_loss, adam),
            Objective("generation", ("generator",), self._generator_loss, adam, every),
        ]
        self.period = max(every, int(self.loss["lazy"]))

    @cached_property
    def data(self) -> Images:
        return Images(self.config, "cases")

    @cached_property
    def held(self) -> Images:
        return Images(self.config, "held_cases")

    @abstractmethod
    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator on logits."""

    @abstractmethod
    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the generator on logits."""

    @abstractmethod
    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], kind: Tensor, draw: Draw) -> Tensor:
        """Penalty of the discriminator on logits and images."""

    def random_batch(self, size: int) -> dict[str, Tensor]:
        """Noise in the form of a batch, to time a step without data."""
        return {"image": torch.randn(size, 1, *self.config["network"]["grid"]), "kind": torch.zeros(size).long()}

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        return self.data.sample(draw.numpy, size)

    def made(self, kind: Tensor, draw: torch.Generator, network: nn.Module | None = None) -> Tensor:
        """A volume for each class."""
        network = network or self.networks["generator"]
        noise = torch.randn(len(kind), network.latent, generator=draw).to(kind.device)
        return network(noise, kind, draw)

    def _discriminator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        real, kind, lazy = batch["image"], batch["kind"], int(self.loss["lazy"])
        with torch.no_grad():
            fake = self.made(kind, draw.torch)
        now = draw.step % lazy == 0
        real, fake = (x.detach().requires_grad_(now) for x in (real, fake))
        judge = self.networks["discriminator"]
        logits = judge(real, kind), judge(fake, kind)
        loss = self.judged(*logits)
        figures = {"discriminator": float(loss.detach())}
        if now:
            penalty = self.penalty((logits[0], real), (logits[1], fake), kind, draw)
            figures["penalty"] = float(penalty.detach())
            loss = loss + lazy * penalty
        return loss, figures

    def _generator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        judge, kind = self.networks["discriminator"], batch["kind"]
        with frozen(judge):
            loss = self.deceived(judge(batch["image"], kind), judge(self.made(kind, draw.torch), kind))
        return loss, {"generator": float(loss.detach())}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Mean logits; a discriminator that learns people by heart gives lower ones to those that it never saw."""
        judge, generator = networks["discriminator"], torch.Generator().manual_seed(7)
        known, unknown = (
            to_device_of(judge, reader.sample(np.random.default_rng(7), CHECKED)) for reader in (self.data, self.held)
        )
        made = torch.cat([self.made(kind, generator, networks["generator"]) for kind in known["kind"].split(4)])
        figures = {
            "logit": _logits(judge, known["image"], known["kind"]),
            "held_out_logit": _logits(judge, unknown["image"], unknown["kind"]),
            "made_logit": _logits(judge, made, known["kind"]),
        }
        rows = [_slices(images[:SHOWN]) for images in (made, unknown["image"])]
        log.picture("validation/made_real", np.concatenate(rows), step)
        return figures

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        from MedGenLib.training.package import export_package

        return export_package(
            self.config,
            {"generator": networks["generator"]},
            step=step,
            held_out=self.config["data"]["held_out"],
            statistics={"tissues": {"0": self.data.statistics()}},
            out=out,
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network, but are not computed for its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _logits(judge: nn.Module, images: Tensor, kind: Tensor) -> float:
    """Mean over all images, a few at a time."""
    parts = zip(images.split(4), kind.split(4), strict=True)
    return float(torch.cat([judge(*part) for part in parts]).mean())


def _slices(images: Tensor) -> np.ndarray:
    """The middle axial slices in a row, seen as radiologists do, from black to white."""
    parts = [image[0, :, :, image.shape[3] // 2].float().cpu().numpy().T[::-1, ::-1] for image in images]
    low, high = np.percentile(np.stack(parts), (0.5, 99.5))
    return (np.concatenate(parts, 1) - low) / max(high - low, 1e-6)
