"""Batches of images with classes, prepared once and read from the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.classification.grid import CHANNELS, PICTURE, network_input, on_grid
from MedGenLib.io.atomic import replacing
from MedGenLib.io.pictures import read_image

UNKNOWN = -1
"""Target of a class of which nothing is known."""


class ClassifiedImages:
    """The images of the configuration's section ``data``.

    Its ``cases`` are [name, person, image, targets]. Images of people of ``validation`` are kept apart.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        cases = data["cases"]
        self.images = _prepared(data, Path(data["cache"]) / "images.npy")
        self.targets = np.array([[UNKNOWN if t is None else t for t in targets] for *_, targets in cases], np.int64)
        people = np.array([person for _, person, *_ in cases])
        apart = np.isin(people, data["validation"])
        self.validation = np.flatnonzero(apart)
        self.people = [np.flatnonzero(people == person) for person in np.unique(people[~apart])]

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Numbers of images: of people at random, so that classes are as frequent as among the people."""
        return np.array([rng.choice(self.people[n]) for n in rng.integers(len(self.people), size=size)])


def input_shape(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels and sides of the images."""
    return CHANNELS[data["codec"]], *(n for n in data["shape"] if n > 1)


def _prepared(data: Mapping[str, Any], path: Path) -> np.ndarray:
    """All images (n, channels, ...) in a file on the disk, written by the first call."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            shape = (len(data["cases"]), *input_shape(data))
            images = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            modality = None if data["modality"] == PICTURE else data["modality"]
            for number, (_, _, file, _) in enumerate(data["cases"]):
                image = read_image(file, modality)
                placed = on_grid(image, data["shape"], data["spacing_mm"], data["whole"])
                images[number] = network_input(image, placed, data["codec"])
            images.flush()
            del images
    return np.load(path, mmap_mode="r")
