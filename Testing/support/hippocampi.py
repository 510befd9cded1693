"""The hippocampus training configuration with small data and networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.training import config as training_config

CONFIGS = Path(training_config.__file__).parent / "configs"


def sphere(shape: tuple[int, int, int], center: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) <= radius**2


def write_crops(folder: Path) -> Path:
    """Write six small cases in the layout of the hippocampus data: two spheres brighter than the background."""
    generator = np.random.default_rng(0)
    for number in range(6):
        shape = (16, 20, 16)
        labels = np.zeros(shape, np.uint8)
        labels[sphere(shape, (8, 13, 8), 3)] = 1
        labels[sphere(shape, (8, 6, 8), 3)] = 2
        image = 200 + 60 * (labels > 0) + generator.normal(0, 20, shape)
        for kind, array in (("images", image.astype(np.float32)), ("labels", labels)):
            (folder / kind).mkdir(exist_ok=True)
            item = Volume(array, np.eye(4)) if kind == "images" else LabelMap(array, np.eye(4))
            write_volume(item, folder / kind / f"case_{number}.nii.gz")
    return folder


def small_config(folder: Path, data: Path, **changes) -> Path:
    """Write the hippocampus configuration with small data and networks."""
    config = json.loads((CONFIGS / "mr-hippocampus-first.json").read_text())
    config["data"].update(folder=str(data), hold_out=2)
    config["autoencoder"] = {"patch": [16, 16, 16], "network": {"width": 8, "blocks": 1}}
    config["flow"] = {"patch": [16, 24, 16], "network": {"widths": [8, 16], "blocks": [1, 1], "attention": True}}
    for section in config["optimisation"].values():
        section.update(steps=6, batch=2, checkpoint_every=2, validate_every=100, precision="fp32")
    config["optimisation"].update(changes)
    for name in ("license_file",):
        source = CONFIGS / config["package"][name]
        (folder / source.name).write_text(source.read_text())
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path
