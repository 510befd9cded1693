"""Recipe `segmenter`: segmentation of images (soft Dice and cross-entropy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.detection import heat_of, hits, peaks
from MedGenLib.errors import InputError
from MedGenLib.metrics.froc import summary
from MedGenLib.metrics.image import dice
from MedGenLib.networks import SegmentationUNet
from MedGenLib.packages.settings import DetectionSettings, SegmentationSettings
from MedGenLib.packages.typed import read
from MedGenLib.segmentation.package import codec_of, label_array, probabilities
from MedGenLib.training.config import resolve
from MedGenLib.training.data.cases import Patches, TrainingCase, case_names, read_case
from MedGenLib.training.loop import Draw, Log, Objective, to_device_of
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe
from MedGenLib.training.splits import hold_out


class Segmentation:
    """Training task for cases in memory.

    Parameters
    ----------
    patches: source of the batches.
    labels: label values from 1 on.
    network: arguments of the network without the number of labels.
    held: cases for `validate`.
    """

    def __init__(
        self, patches: Patches, labels: int, network: Mapping[str, Any], held: Sequence[TrainingCase] = ()
    ) -> None:
        from monai.losses import DiceCELoss

        self.patches, self.labels, self.held = patches, labels, held
        segmenter = SegmentationUNet(labels, **network).to(memory_format=torch.channels_last_3d)
        self.networks: dict[str, nn.Module] = {"segmenter": segmenter}
        self.objectives = [Objective("segmentation", ("segmenter",), self._loss)]
        self.distance = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        batch = self.patches.sample(draw.numpy, size)
        return {key: torch.from_numpy(value) for key, value in batch.items()}

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        image = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        scores = self.networks["segmenter"](image)
        loss = self.distance(scores, batch["labels"][:, None])
        return loss, {"segmentation": float(loss.detach())}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Mean Dice of each label over the held-out cases; the loss if there are none."""
        network = networks["segmenter"]
        if not self.held:
            draw = Draw.of(7, 0)
            return self._loss(to_device_of(network, self.batch(draw, 2)), draw)[1]
        found = [label_array(network, case.image) for case in self.held]
        return {
            f"dice_{value}": float(
                np.nanmean(
                    [dice(image == value, case.labels == value) for image, case in zip(found, self.held, strict=True)]
                )
            )
            for value in range(1, self.labels + 1)
        }

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        """Writes nothing; the caller uses the networks."""
        return out


@recipe("segmenter")
class SegmenterRecipe(Segmentation):
    """Recipe of the module. The configuration's sections are ``data`` and ``segmenter``.

    Labels are those of the package's output, numbered 1, 2, ... without a gap. A package of task "detect" is validated
    by its candidates.
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        data = config["data"]
        folder = resolve(config, data["folder"])
        names = case_names(folder)
        chosen = data["hold_out"]
        self.held_out = chosen if isinstance(chosen, list) else hold_out(names, chosen, data["seed"])
        medgen = config["package"]["medgen"]
        self.detects = medgen["task"] == "detect"
        kind = DetectionSettings if self.detects else SegmentationSettings
        standard = codec_of(read(kind, medgen["preprocessing"], "preprocessing"))
        spacing = (medgen["spacing_mm"]["native"],) * 3
        cases = {name: read_case(folder, name, standard, spacing) for name in names}
        labels = len(medgen["output"]["labels"])
        for case in cases.values():
            if case.labels.max() > labels:
                raise InputError(
                    f"The case {case.name} has the label {case.labels.max()}, but the "
                    f"configuration names {labels} labels; name them all."
                )
        patches = Patches(
            [case for name, case in cases.items() if name not in self.held_out],
            config["segmenter"]["patch"],
            data.get("flip", ()),
            data.get("exchange", ()),
            data.get("labeled", 0.0),
            data.get("strength", 1.0),
        )
        held = [cases[name] for name in self.held_out]
        super().__init__(patches, labels, config["segmenter"]["network"], held)

    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Of a detector the sensitivity at one false positive a volume, with its interval over the cases."""
        if not self.detects or not self.held:
            return super().validate(networks, step, log)
        maps = [heat_of(probabilities(networks["segmenter"], case.image)) for case in self.held]
        return summary([hits(peaks(heat), case.labels) for heat, case in zip(maps, self.held, strict=True)])

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(self.config, networks, step, self.held_out, {}, out)
