"""Small MR crops with labels, all of similar size (Medical Segmentation Decathlon layout)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import Affine
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.conditioning import coordinate_channels, label_channels
from MedGenLib.training.config import resolve
from MedGenLib.training.data import reader
from MedGenLib.training.data.ablation import Ablation
from MedGenLib.training.data.patches import PatchReader, random_window
from MedGenLib.training.splits import hold_out


@reader("labelled-crops")
class LabeledCrops(PatchReader):
    """Image and label pairs of ``<folder>/images`` and ``<folder>/labels`` (same file names)."""

    scalars = 0

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
        self.crops = [_read(folder, n, self.codec) for n in names if n not in self.held_out]

    def patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        x, labels, spacing = self.crops[generator.integers(len(self.crops))]
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
        }

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Statistics of each label over the training crops, in the units of generated images."""
        tissues = {}
        for value, name in self.names.items():
            means = [
                self.codec.mean + self.codec.sd * float(x[labels == value].mean())
                for x, labels, _ in self.crops
                if (labels == value).any()
            ]
            mean, sd = float(np.mean(means)), float(np.std(means))
            numbers = {"mean": mean, "sd": sd, "low": mean - 3 * sd, "high": mean + 3 * sd}
            tissues[str(value)] = {"name": name, **{k: round(v, 1) for k, v in numbers.items()}}
        return tissues

    def preprocessing(self) -> dict[str, Any]:
        """Mean and standard deviation for generated images."""
        return {"mean": self.codec.mean, "sd": self.codec.sd}


def _read(folder: Path, name: str, codec: Affine) -> tuple[np.ndarray, np.ndarray, tuple]:
    volume = read_volume(folder / "images" / name, modality="T1w")
    labels = read_label_map(folder / "labels" / name)
    x = np.clip(codec.encode(volume.array), -3, 5)
    return x.astype(np.float32), labels.array.astype(np.uint8), volume.spacing
