"""T1-weighted brains with FreeSurfer labels: random patches at several spacings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.mapping import Vocabulary, map_labels
from MedGenLib.pipelines.conditioning import label_channels, noise_level, noise_scalar, spacing_scalar
from MedGenLib.training.config import resolve
from MedGenLib.training.data.ablation import Ablation

SHELL_MM = 2.5
"""FreeSurfer does not label the fluid around the brain: what lies so near to it and is dark."""
SHELL_ABOVE, SHELL_BELOW = 1.0, 75.0
"""Its values: below, the skull was stripped away; above is fat, marrow or a large vein."""
FLIPS = (0.5, 0.2, 0.2)
"""Chance of mirroring along right-left, back-front and down-up: heads are rarely upside down."""
WITHOUT_SHELL = 0.35
"""Share of patches whose mask ends at the cortex, as FreeSurfer's own masks do."""


@dataclass(frozen=True)
class Landmarks:
    """Where fluid, cortex and white matter lie on the common scale (Nyul & Udupa 1999).

    A scan is mapped piecewise linearly so that the medians of these labels meet the ``values``.
    """

    labels: tuple[int, ...]
    values: tuple[float, ...]

    def standardise(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(i, j, k) values in any unit and labels -> float32 on the common scale, 0 stays 0."""
        medians = [float(np.median(values[labels == label])) for label in self.labels]
        known, wanted = [0.0, *medians], [0.0, *self.values]
        if not all(a < b for a, b in zip(known, known[1:], strict=False)):
            raise InputError(
                "The landmarks of a scan are not in rising order (medians "
                f"{', '.join(f'{m:.0f}' for m in medians)}); is it T1-weighted, and its mask right?"
            )
        slope = (wanted[-1] - wanted[-2]) / (known[-1] - known[-2])
        above = np.maximum(values - known[-1], 0) * slope
        return (np.interp(values, known, wanted) + above).astype(np.float32)


@dataclass(frozen=True)
class BrainScan:
    """A part of a scan at one isotropic spacing, turned to RAS, on the common scale."""

    subject: str
    spacing: float
    values: np.ndarray
    labels: np.ndarray
    noise: float


class BrainScans:
    """Scans of the configuration, resampled to each training spacing, and patches of them."""

    scalars = 2

    def __init__(self, config: dict[str, Any], patch: int) -> None:
        data = config["data"]
        self.patch = patch
        entries = config["package"]["medgen"]["input"]["labels"]
        self.vocabulary = Vocabulary.from_dict(entries)
        self.count = max(label.value for label in self.vocabulary.labels)
        self.maps = self.count + 1
        self.codec = TissueStandard(**data["codec"])
        self.fluid = int(self.vocabulary.value_of(data["fluid"]))
        self.white = int(data["landmarks"]["labels"][-1])
        self.ablation = Ablation.of(config, self.count)
        self.scans = [scan for item in data["scans"] for scan in self._read(config, item)]
        if not self.scans:
            raise InputError("The configuration lists no scans; add some under data.scans.")
        self.held_out = [
            f"{i['subject']}, slices {i['held_out'][0]} to {i['held_out'][1] - 1}"
            for i in data["scans"]
            if "held_out" in i
        ]
        self.weights = np.array([np.count_nonzero(s.labels) * s.spacing**1.5 for s in self.scans])
        self.weights /= self.weights.sum()

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """``x`` (b, 1, ...), ``maps`` (b, maps, ...), ``scalars`` (b, 2), ``valid`` (b, 1, ...)."""
        items = [self._patch(generator) for _ in range(batch)]
        return {key: torch.from_numpy(np.stack([i[key] for i in items])) for key in items[0]}

    def _patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        scan = self.scans[generator.choice(len(self.scans), p=self.weights)]
        box = self._box(scan.labels, generator)
        values, labels = _cut(scan.values, box), _cut(scan.labels, box)
        flips = tuple(axis for axis in range(3) if generator.random() < FLIPS[axis])
        values, labels = np.flip(values, flips), np.flip(labels, flips)
        values, noise = _vary(values, labels == self.white, scan.noise, generator)
        if generator.random() < WITHOUT_SHELL:
            labels = np.where(labels == self.fluid, 0, labels)
        if self.ablation:
            labels = self.ablation.apply(labels, generator)
        # The codec must see the labels that the network sees, as it will in generation.
        x = np.where(labels > 0, self.codec.encode(values, labels), 0)
        return {
            "x": x[None].astype(np.float32),
            "maps": label_channels(labels, self.count),
            "scalars": np.array([spacing_scalar(scan.spacing), noise_scalar(noise)], np.float32),
            "valid": (labels > 0)[None].astype(np.float32),
        }

    def _box(self, labels: np.ndarray, generator: np.random.Generator) -> tuple[slice, ...]:
        """A patch about a random voxel: of the brain, or of one label so that small ones appear."""
        wanted = labels > 0
        if generator.random() < 0.5:
            one = labels == generator.integers(1, self.maps)
            wanted = one if one.any() else wanted
        flat = np.flatnonzero(wanted)
        centre = np.unravel_index(flat[generator.integers(flat.size)], labels.shape)
        shift = generator.integers(-self.patch // 4, self.patch // 4 + 1, 3)
        starts = [
            min(max(int(c + d) - self.patch // 2, 0), max(0, n - self.patch))
            for c, d, n in zip(centre, shift, labels.shape, strict=True)
        ]
        return tuple(slice(start, start + self.patch) for start in starts)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Values of every label over the scans at the finest spacing, for the output check."""
        finest = min(s.spacing for s in self.scans)
        tissues = {}
        for label in self.vocabulary.labels:
            parts = [s.values[s.labels == label.value] for s in self.scans if s.spacing == finest]
            parts = [p for p in parts if p.size >= 50]
            if parts:
                voxels = np.concatenate(parts)
                tissues[str(label.value)] = {
                    "name": label.name,
                    "mean": round(float(voxels.mean()), 1),
                    "sd": round(float(voxels.std()), 1),
                    "means": [round(float(p.mean()), 1) for p in parts],
                }
        return tissues

    def preprocessing(self) -> dict[str, Any]:
        """The codec, and the median noise of the training scans at each spacing (mm)."""
        spacings = sorted({s.spacing for s in self.scans})
        noise = [[s, round(float(np.median([c.noise for c in self.scans if c.spacing == s])), 2)] for s in spacings]
        codec = {key: list(getattr(self.codec, key)) for key in ("centres", "scales")}
        return {**codec, "limit": self.codec.limit, "noise_hu": noise}

    def _read(self, config: dict, item: dict) -> Iterator[BrainScan]:
        data = config["data"]
        volume = read_volume(resolve(config, item["image"]), modality="T1w")
        label_map = read_label_map(resolve(config, item["label"]))
        label_map, _ = map_labels(label_map, self.vocabulary, data["table"], strict=False)
        marks = Landmarks(**{k: tuple(v) for k, v in data["landmarks"].items()})
        values = marks.standardise(volume.array.astype(np.float32), label_map.array)
        labels = with_shell(values, label_map.array, label_map.spacing, self.fluid)
        volume, label_map = volume.with_array(values), label_map.with_array(labels)
        for part in _parts(item.get("held_out"), volume.shape[2]):
            for spacing in data["spacings_mm"]:
                yield self._at_spacing(item["subject"], volume, label_map, part, spacing)

    def _at_spacing(self, subject: str, volume: Volume, label_map: LabelMap, part: slice, spacing: float) -> BrainScan:
        low = (0, 0, part.start)
        high = (*volume.shape[:2], part.stop)
        volume = resample(crop(volume, low, high), (spacing,) * 3, order=1)
        label_map = resample(crop(label_map, low, high), (spacing,) * 3)
        reorientation = Reorientation.to(volume.geometry, "RAS")
        values, labels = reorientation.apply(volume.array), reorientation.apply(label_map.array).astype(np.uint8)
        box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(labels))
        values, labels = values[box], labels[box]
        noise = noise_level(values, labels == self.white)
        if noise is None:
            raise InputError(f"The scan {subject} shows too little white matter to measure noise.")
        return BrainScan(subject, spacing, values, labels, noise)


def with_shell(values: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...], fluid: int) -> np.ndarray:
    """Labels with the dark unlabelled voxels within `SHELL_MM` of the brain called ``fluid``."""
    from scipy import ndimage

    near = ndimage.distance_transform_edt(labels == 0, spacing) <= SHELL_MM
    dark = (values > SHELL_ABOVE) & (values < SHELL_BELOW)
    return np.where((labels == 0) & near & dark, fluid, labels).astype(np.uint8)


def _parts(held_out: list[int] | None, length: int) -> list[slice]:
    """Slices before and after those held out."""
    first, last = held_out or (length, length)
    return [part for part in (slice(0, first), slice(last, length)) if part.stop > part.start]


def _cut(array: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Cut a box; beyond the array it is 0."""
    part = array[box]
    missing = [(0, s.stop - s.start - n) for s, n in zip(box, part.shape, strict=True)]
    return np.pad(part, missing)


def _vary(
    values: np.ndarray, white: np.ndarray, noise: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A smoother or a noisier scan of the same patch, and its noise level."""
    from scipy import ndimage

    chance = generator.random()
    if chance < 0.3:
        sigma = generator.uniform(0.3, 0.8)
        varied, guess = ndimage.gaussian_filter(values, sigma), noise * np.exp(-1.2 * sigma)
    elif chance < 0.5:
        added = generator.uniform(1.0, 6.0)
        # Beyond the brain the scan may be 0; noise is what the network is to make inside.
        varied = values + added * generator.standard_normal(values.shape, np.float32)
        guess = float(np.hypot(noise, 0.9 * added))
    else:
        return values, noise
    before, after = noise_level(values, white), noise_level(varied, white)
    return varied, noise * after / before if before and after else guess
