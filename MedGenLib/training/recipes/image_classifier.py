"""Recipe `image-classifier`: classes of whole images, yes/no, one of several, or several at once.

The recipe `classifier` is another one: its network labels the voxels of noisy latents, to guide a generator.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.classification import scores_of
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import replacing
from MedGenLib.metrics.classification import auc, fitted_temperature
from MedGenLib.networks.image_classifier import ImageClassifier
from MedGenLib.training.data.classified import UNKNOWN, ClassifiedImages, input_shape
from MedGenLib.training.loop import Draw, Log, Objective
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe

ROLE, BEST = "classifier", "best.pt"
TURN, MOVE, SIZE, LEVEL = 0.15, 0.1, 0.1, 0.1
"""Largest changes in training: angle in radians, shift as a share of half the image, size, and gray values."""
BATCH = 16
"""Images at once without training."""


@recipe("image-classifier")
class ImageClassifierRecipe:
    """Recipe of the module. The configuration's sections are ``data`` and ``image-classifier``.

    The weights of the lowest loss on the people for validation are exported, with the temperature that fits them best.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config, self.best = config, out / BEST
        section = config["image-classifier"]
        self.several: bool = section["several"]
        self.shape = input_shape(config["data"])
        try:
            network = ImageClassifier(len(self.shape) - 1, self.shape[0], section["classes"], **section["network"])
        except (TypeError, ValueError) as error:
            raise InputError(f"The network of the classifier cannot be built: {error}; change its settings.") from None
        self.networks: dict[str, nn.Module] = {ROLE: network}
        self.objectives = [Objective("classification", (ROLE,), self._objective)]

    @cached_property
    def data(self) -> ClassifiedImages:
        return ClassifiedImages(self.config["data"])

    def random_batch(self, size: int) -> dict[str, Tensor]:
        """Noise in the form of a batch, to time a step without data."""
        classes = self.config["image-classifier"]["classes"]
        return {"image": torch.randn(size, *self.shape), "target": F.one_hot(torch.arange(size) % classes, classes)}

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        chosen = self.data.sample(draw.numpy, size)
        image = torch.from_numpy(self.data.images[chosen].astype(np.float32))
        return {"image": changed(image, draw.torch), "target": torch.from_numpy(self.data.targets[chosen])}

    def _objective(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        loss = self._losses(self.networks[ROLE](batch["image"]), batch["target"]).mean()
        return loss, {"classification": float(loss.detach())}

    def _losses(self, scores: Tensor, target: Tensor, doubt: float = 0.0) -> Tensor:
        """Cross-entropy of each image; of several classes, over those known. `doubt` is a share of wrong targets."""
        if not self.several:
            return F.cross_entropy(scores, target.argmax(1), label_smoothing=doubt, reduction="none")
        known = (target != UNKNOWN).float()
        wanted = target.clamp(min=0) * (1 - doubt) + doubt / 2
        each = F.binary_cross_entropy_with_logits(scores, wanted.float(), reduction="none")
        return (each * known).sum(1) / known.sum(1).clamp(min=1)

    def _validation(self, network: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        """Scores and targets of the people for validation."""
        chosen = self.data.validation
        parts = [self.data.images[chosen[n : n + BATCH]] for n in range(0, len(chosen), BATCH)]
        return np.concatenate([scores_of(network, part) for part in parts]), self.data.targets[chosen]

    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Loss and mean AUC on the people for validation; the weights of the lowest loss are kept."""
        scores, targets = self._validation(networks[ROLE])
        loss = float(self._losses(torch.from_numpy(scores), torch.from_numpy(targets)).mean())
        if not self.best.is_file() or loss < torch.load(self.best, weights_only=True)["loss"]:
            with replacing(self.best) as temporary:
                torch.save({"loss": loss, "step": step, "weights": networks[ROLE].state_dict()}, temporary)
        areas = [auc(scores[known, n], targets[known, n]) for n, known in enumerate((targets != UNKNOWN).T)]
        found = [area for area in areas if area is not None]
        return {"loss": loss, **({"auc": float(np.mean(found))} if found else {})}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        best = torch.load(self.best, map_location="cpu", weights_only=True)
        network = networks[ROLE]
        network.load_state_dict(best["weights"])
        scores, targets = (torch.from_numpy(values) for values in self._validation(network))
        doubt = 2 / (len(targets) + 2)  # few cases without an error do not prove certainty (Platt 1999)
        temperature = fitted_temperature(lambda t: self._losses(scores / t, targets, doubt).numpy())
        preprocessing = {"temperature": round(temperature, 4)}
        held_out = self.config["data"]["held_out"]
        return export_package(self.config, {ROLE: network}, best["step"], held_out, {}, out, preprocessing)


def changed(image: Tensor, generator: torch.Generator) -> Tensor:
    """Images (b, channels, ...) turned, moved, scaled, and lighter or darker, each at random; never mirrored."""
    count, dims = len(image), image.ndim - 2

    def random(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    turn = random(count, dims, dims) * TURN
    matrix = torch.matrix_exp(turn - turn.transpose(1, 2)) * (1 + SIZE * random(count, 1, 1))
    places = F.affine_grid(
        torch.cat([matrix, MOVE * random(count, dims, 1)], 2), list(image.shape), align_corners=False
    )
    moved = F.grid_sample(image, places, padding_mode="border", align_corners=False)
    gain, level = (LEVEL * random(count, 1, *[1] * dims) for _ in range(2))
    return moved * (1 + gain) + level
