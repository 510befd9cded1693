"""What the recipes of generators without a mask share: data, pictures and export, and the losses of those with a
discriminator."""

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

from MedGenLib.networks.volume_gan import VolumeDiscriminator, VolumeGenerator
from MedGenLib.training.adversarial import R3GAN_ADAM
from MedGenLib.training.data.images import Images
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, to_device_of
from MedGenLib.training.package import export_package

SHOWN = 6
"""Volumes of a picture."""
CHECKED = 32
"""Images whose logits are compared in a validation."""


class ImageRecipe(DataRecipe):
    """Base of the recipes: a generator, and the images of a configuration on its grid."""

    def __init__(self, config: dict[str, Any], networks: dict[str, nn.Module]) -> None:
        self.config, self.networks = config, networks

    @cached_property
    def data(self) -> Images:
        return Images(self.config, "cases")

    @cached_property
    def held(self) -> Images:
        return Images(self.config, "held_cases")

    def random_batch(self, size: int) -> dict[str, Tensor]:
        """Noise in the form of a batch, to time a step without data."""
        return {"image": torch.randn(size, 1, *self.config["network"]["grid"]), "kind": torch.zeros(size).long()}

    def made(self, kind: Tensor, draw: torch.Generator, network: nn.Module | None = None) -> Tensor:
        """A volume for each class."""
        network = network or self.networks["generator"]
        noise = torch.randn(len(kind), network.latent, generator=draw).to(kind.device)
        return network(noise, kind, draw)

    def checked(self, networks: dict[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Fixed images of the training and of people kept out, and volumes of the classes of the former."""
        generator, device = torch.Generator().manual_seed(7), networks["generator"]
        known, unknown = (
            to_device_of(device, reader.sample(np.random.default_rng(7), CHECKED)) for reader in (self.data, self.held)
        )
        made = [self.made(kind, generator, networks["generator"]) for kind in known["kind"].split(4)]
        return known, unknown, torch.cat(made)

    def samples(self, networks: dict[str, nn.Module]) -> tuple[np.ndarray, np.ndarray] | None:
        """As many volumes as images of the people who choose the weights, and these; None without such people."""
        if not self.config.get("data", {}).get("validation_cases"):
            return None
        images, draw = Images(self.config, "validation_cases"), torch.Generator().manual_seed(8)
        kinds = torch.tensor(images.kinds, device=next(networks["generator"].parameters()).device)
        with torch.no_grad():
            made = [self.made(kind, draw, networks["generator"])[:, 0].cpu() for kind in kinds.split(4)]
        return torch.cat(made).numpy(), np.stack(images.values)

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(
            self.config,
            {"generator": networks["generator"]},
            step=step,
            held_out=self.config["data"]["held_out"],
            statistics={"tissues": {"0": self.data.statistics()}},
            out=out,
        )


class UnconditionalRecipe(ImageRecipe, ABC):
    """Base of those with a discriminator, which learns in each step, the generator in each ``critic_steps``-th one.

    The penalty of the discriminator is lazy: it is added in each ``loss.lazy``-th step, times that number, within the
    step of the other losses, so that its mean is the same and Adam needs no other settings.
    """

    spread = False
    generator: type[nn.Module] = VolumeGenerator
    adam = R3GAN_ADAM

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        generator = self.generator(**config["network"], classes=len(config["classes"]))
        judge = VolumeDiscriminator(
            config["network"]["grid"], **config["discriminator"], classes=len(config["classes"]), spread=self.spread
        )
        super().__init__(config, {"discriminator": judge, "generator": generator})
        self.loss = config["loss"]
        every = int(self.loss.get("critic_steps", 1))
        self.objectives = [
            Objective("discrimination", ("discriminator",), self._discriminator_loss, self.adam),
            Objective("generation", ("generator",), self._generator_loss, self.adam, every),
        ]
        self.period = max(every, int(self.loss["lazy"]))

    @abstractmethod
    def judged(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator on logits."""

    @abstractmethod
    def deceived(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the generator on logits."""

    @abstractmethod
    def penalty(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], kind: Tensor, draw: Draw) -> Tensor:
        """Penalty of the discriminator on logits and images."""

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
        judge, (known, unknown, made) = networks["discriminator"], self.checked(networks)
        show(log, step, made, unknown["image"])
        return {
            "logit": _logits(judge, known["image"], known["kind"]),
            "held_out_logit": _logits(judge, unknown["image"], unknown["kind"]),
            "made_logit": _logits(judge, made, known["kind"]),
        }


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


def show(log: Log, step: int, *rows: Tensor) -> None:
    """A picture with a row for each set of images."""
    log.picture("validation/made_real", np.concatenate([_slices(images[:SHOWN]) for images in rows]), step)


def _slices(images: Tensor) -> np.ndarray:
    """The middle axial slices in a row, seen as radiologists do, from black to white."""
    parts = [image[0, :, :, image.shape[3] // 2].float().cpu().numpy().T[::-1, ::-1] for image in images]
    low, high = np.percentile(np.stack(parts), (0.5, 99.5))
    return (np.concatenate(parts, 1) - low) / max(high - low, 1e-6)
