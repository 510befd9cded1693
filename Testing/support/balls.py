"""Synthetic images of two balls and their labels, for segmenters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume


def phantom(seed: int, shape=(20, 24, 18)) -> tuple[Volume, LabelMap]:
    """A dark and a bright ball in noise, at positions that vary between cases."""
    generator = np.random.default_rng(seed)
    grid = np.indices(shape).astype(float)
    labels = np.zeros(shape, np.uint8)
    for value, center in ((1, (9, 7, 9)), (2, (10, 16, 9))):
        middle = np.array(center) + generator.integers(-2, 3, 3)
        labels[np.linalg.norm(grid - middle[:, None, None, None], axis=0) < 4.5] = value
    image = np.select([labels == 1, labels == 2], [60.0, 160.0], 110.0)
    image = (image + generator.normal(0, 6, shape)).astype(np.float32)
    return Volume(image, np.eye(4), "T1w"), LabelMap(labels, np.eye(4))


def write_cases(folder: Path, seeds, change=lambda image, labels: (image, labels)) -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        image, labels = change(*phantom(seed))
        write_volume(image, folder / "images" / f"case_{seed:02}.nii.gz")
        write_volume(labels, folder / "labels" / f"case_{seed:02}.nii.gz")
    return folder
