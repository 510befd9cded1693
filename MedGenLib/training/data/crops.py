"""Small MR crops with labels, all of similar size (Medical Segmentation Decathlon layout)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import Affine
from MedGenLib.imaging.texture import texture
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages.settings import TEXTURE, Distribution
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.conditioning import coordinate_channels, label_channels
from MedGenLib.pipelines.contrast import distribution, standard_scores
from MedGenLib.training.config import resolve
from MedGenLib.training.data import reader
from MedGenLib.training.data.ablation import Ablation
from MedGenLib.training.data.patches import PatchReader, random_window
from MedGenLib.training.splits import hold_out


@reader("labelled-crops")
class LabeledCrops(PatchReader):
    """Image and label pairs of ``<folder>/images`` and ``<folder>/labels`` (same file names).

    With ``data.texture`` true, the texture of each crop is a condition.
    """

    def __init__(self, config: dict[str, Any], patch: int | list[int]) -> None:
        data = config["data"]
        folder = resolve(config, data["folder"])
        self.codec = read(Affine, data["codec"], "data.codec")
        self.labels = int(data["labels"])
        self.ablation = Ablation.of(config, self.labels)
        self.names = {
            int(value): entry["name"] for value, entry in config["package"]["medgen"]["input"]["labels"].items()
        }
        self.maps = self.labels + 1 + 3
        self.size = tuple(patch) if isinstance(patch, list) else (patch,) * 3
        names = sorted(p.name for p in (folder / "images").glob("*.nii.gz"))
        if not names:
            raise InputError(f"The folder {folder}/images holds no .nii.gz files.")
        self.held_out = hold_out(names, data["hold_out"], data["seed"])
        crops = [_read(folder, n) for n in names if n not in self.held_out]
        self.crops = [(np.clip(self.codec.encode(values), -3, 5), labels, spacing) for values, labels, spacing in crops]
        measures = np.array([texture(values) for values, _, _ in crops])
        self.texture = distribution(measures) if data.get("texture") else {}
        self.scalars = len(TEXTURE) if self.texture else 0
        self.conditions = [self._condition(row) for row in measures]
        contrast = self.codec.mean * measures[:, TEXTURE.index("contrast")]
        self.spreads = contrast.tolist() if self.texture else [self.codec.sd] * len(crops)

    def patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        number = generator.integers(len(self.crops))
        x, labels, spacing = self.crops[number]
        given = self.ablation.apply(labels, generator) if self.ablation else labels
        # Without any label left, the coordinates still need an origin.
        anchor = given if given.any() else labels
        maps = np.concatenate([label_channels(given, self.labels), coordinate_channels(anchor, spacing)])
        stack = np.concatenate([x[None], np.ones_like(x)[None], maps])
        box, margins = random_window(x.shape, self.size, generator)
        stack = np.pad(stack, [(0, 0), *margins])[(slice(None), *box)]
        return {
            "x": stack[:1].astype(np.float32),
            "valid": stack[1:2].astype(np.float32),
            "maps": stack[2:].astype(np.float32),
            **self.conditions[number],
        }

    def _condition(self, measures: np.ndarray) -> dict[str, np.ndarray]:
        if not self.texture:
            return {}
        scores = standard_scores(read(Distribution, self.texture, "texture"), measures)
        return {"scalars": scores.astype(np.float32)}

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Statistics of each label over the training crops, in the units of generated images."""
        tissues = {}
        for value, name in self.names.items():
            means = [
                self.codec.mean + sd * float(x[labels == value].mean())
                for (x, labels, _), sd in zip(self.crops, self.spreads, strict=True)
                if (labels == value).any()
            ]
            mean, sd = float(np.mean(means)), float(np.std(means))
            numbers = {"mean": mean, "sd": sd, "low": mean - 3 * sd, "high": mean + 3 * sd}
            tissues[str(value)] = {"name": name, **{k: round(v, 1) for k, v in numbers.items()}}
        return tissues

    def preprocessing(self) -> dict[str, Any]:
        """Mean and standard deviation for generated images."""
        more = {"texture": self.texture} if self.texture else {}
        return {"mean": self.codec.mean, "sd": self.codec.sd, **more}


def _read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, tuple]:
    volume = read_volume(folder / "images" / name, modality="T1w")
    labels = read_label_map(folder / "labels" / name)
    return volume.array, labels.array.astype(np.uint8), volume.spacing
