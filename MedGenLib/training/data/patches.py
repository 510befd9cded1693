"""Random patches of labeled images, in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.conditioning import coordinates_about, label_channels, noise_scalar, spacing_scalar
from MedGenLib.training.data.ablation import Ablation


class PatchReader(ABC):
    """A data reader that draws one patch after the other."""

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """See `MedGenLib.training.data.DataReader`."""
        items = [self.patch(generator) for _ in range(batch)]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    @abstractmethod
    def patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """One patch: the arrays of `sample` without their first axis."""


def random_window(
    shape: Sequence[int], patch: Sequence[int], generator: np.random.Generator
) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """A random window of long axes and random padding of short ones."""
    box, margins = [], []
    for n, size in zip(shape, patch, strict=True):
        start = int(generator.integers(abs(n - size) + 1))
        box.append(slice(start, start + size) if n > size else slice(None))
        margins.append((0, 0) if n > size else (start, size - n - start))
    return tuple(box), margins


def moved_window(
    box: Sequence[slice], starts: Sequence[int], shape: Sequence[int], patch: Sequence[int]
) -> tuple[slice, ...]:
    """The window with other starts, kept inside the image, along the axes that are longer than it."""
    inside = np.clip(starts, 0, np.maximum(0, np.subtract(shape, patch))).tolist()
    sides = zip(box, inside, shape, patch, strict=True)
    return tuple(slice(start, start + size) if n > size else part for part, start, n, size in sides)


@dataclass(frozen=True)
class Scan:
    """A scan, or a part of it, at one isotropic spacing (mm), with the noise (SD) of its values.

    ``codec`` is that with the levels of its contrast, if the model has one.
    """

    subject: str
    spacing: float
    values: np.ndarray
    labels: np.ndarray
    noise: float
    codec: TissueStandard | None = None


class ScanPatches(PatchReader):
    """Patches of scans at several spacings, coded by their labels, with spacing and noise as conditions.

    A patch lies about a random voxel: of the body, or of one label, so that rare ones appear. A reader that derives
    from this class reads the scans, and may vary the patches and weigh their voxels.

    Attributes
    ----------
    scalars: spacing and noise.
    background: value outside of a scan.
    shift: largest distance between the chosen voxel and the middle of the patch, as a share of the patch.
    """

    scalars = 2
    background = 0.0
    shift = 0.0

    def __init__(self, config: dict[str, Any], side: int, labels: int, scans: Sequence[Scan]) -> None:
        """``labels`` is their highest number.

        Raises InputError if there are no scans, or the section ``data.ablation`` is wrong.
        """
        if not scans:
            raise InputError("The configuration lists no scans; add some under data.scans.")
        self.side, self.labels, self.scans = side, labels, scans
        self.coordinates = bool(config["data"].get("coordinates"))
        self.maps = labels + 1 + 3 * self.coordinates
        self.codec = read(TissueStandard, config["data"]["codec"], "data.codec")
        self.ablation = Ablation.of(config, labels)
        self.centers = [np.array([index.mean() for index in np.nonzero(s.labels)]) for s in scans]
        self.weights = np.array([np.count_nonzero(s.labels) * s.spacing**1.5 for s in scans])
        self.weights /= self.weights.sum()

    def patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        number = generator.choice(len(self.scans), p=self.weights)
        scan = self.scans[number]
        box = self.box(scan.labels, generator)
        values, labels = cut(scan.values, box, self.background), cut(scan.labels, box, 0)
        maps = []
        if self.coordinates:
            center = self.centers[number] - [part.start for part in box]
            maps.append(coordinates_about(center, labels.shape, (scan.spacing,) * 3))
        if flips := self.flips(generator):
            # The position of a voxel is that before the flip, as it determines the coil's sensitivity.
            values, labels, *maps = (np.flip(a, [axis - 3 for axis in flips]) for a in (values, labels, *maps))
        values, labels, noise = self.vary(values, labels, scan.noise, generator)
        if self.ablation:
            labels = self.ablation.apply(labels, generator)
        # The codec gets the labels that the network gets, as in generation.
        x = np.where(labels > 0, (scan.codec or self.codec).encode(values, labels), 0)
        return {
            "x": x[None].astype(np.float32),
            "maps": np.concatenate([label_channels(labels, self.labels), *maps]),
            "scalars": np.array([spacing_scalar(scan.spacing), noise_scalar(noise)], np.float32),
            "valid": self.importance(labels)[None],
        }

    def flips(self, generator: np.random.Generator) -> tuple[int, ...]:
        """Axes along which a patch is mirrored."""
        return ()

    def vary(
        self, values: np.ndarray, labels: np.ndarray, noise: float, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Augment a patch; the noise is that of the values."""
        return values, labels, noise

    def importance(self, labels: np.ndarray) -> np.ndarray:
        """Weight of each voxel in the loss."""
        return (labels > 0).astype(np.float32)

    def preprocessing(self) -> dict[str, Any]:
        """The codec, and the median noise of the training scans at each spacing (mm)."""
        spacings = sorted({scan.spacing for scan in self.scans})
        noise = [[s, round(float(np.median([c.noise for c in self.scans if c.spacing == s])), 2)] for s in spacings]
        made = {"centers": list(self.codec.centers), "scales": list(self.codec.scales), "noise_hu": noise}
        return {**made, "coordinates": True} if self.coordinates else made

    def box(self, labels: np.ndarray, generator: np.random.Generator) -> tuple[slice, ...]:
        """A patch about a random voxel of the body or of one label; it may end beyond the labels."""
        candidates = labels > 0
        if generator.random() < 0.5:
            one = labels == generator.integers(1, self.labels + 1)
            candidates = one if one.any() else candidates
        flat = np.flatnonzero(candidates)
        center = np.array(np.unravel_index(flat[generator.integers(flat.size)], labels.shape))
        if reach := int(self.side * self.shift):
            center += generator.integers(-reach, reach + 1, 3)
        starts = np.clip(center - self.side // 2, 0, np.maximum(0, np.array(labels.shape) - self.side))
        return tuple(slice(start, start + self.side) for start in starts)


def cut(array: np.ndarray, box: tuple[slice, ...], fill: float) -> np.ndarray:
    """Cut a box; outside of the array it is filled."""
    part = array[box]
    missing = [(0, s.stop - s.start - n) for s, n in zip(box, part.shape, strict=True)]
    return np.pad(part, missing, constant_values=fill)
