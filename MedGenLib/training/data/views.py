"""Degraded slices of scans, for self-supervised training of the feature network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import crop
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.slices import encode, informative
from MedGenLib.training.config import resolve

DEGRADATIONS = ("blur", "noise", "stripes", "resolution", "flattening", "contrast")
_SQUARE_PIXELS = 2.0
"""Planes with a pixel aspect ratio above this are not used."""


@dataclass(frozen=True)
class ScanSlices:
    """One scan in RAS orientation, encoded.

    Attributes
    ----------
    planes: planes with nearly square pixels.
    weight: relative sampling frequency.
    """

    encoded: np.ndarray
    planes: tuple[int, ...]
    weight: float


class SliceViews:
    """Pairs of views of one slice with the same degradation; several degradations per slice.

    The two views of a pair share slice *and* degradation, unlike all others, so a network that matches pairs by
    features must encode both.
    """

    def __init__(self, config: dict[str, Any], patch: int, faults: int = 4) -> None:
        self.patch, self.faults = patch, faults
        self.scans = [_read_scan(config, item) for item in config["data"]["scans"]]
        if not self.scans:
            raise InputError("The configuration lists no scans; add some under data.scans.")
        weights = np.array([scan.weight for scan in self.scans])
        self.shares = weights / weights.sum()
        self.held_out = list(config["data"]["held_out"])

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """`batch` pairs of views, the partner of row n being row batch + n.

        ``image`` (2b, 1, patch, patch); ``fault`` (2b, 6), the severity 0..1 of each of DEGRADATIONS; ``scan`` and
        ``plane`` (2b,), their origin; ``position`` (2b,), its position 0..1 along the normal axis.
        """
        first, second = [], []
        while len(first) < batch:
            scan, plane, position, image = self._slice(generator)
            for number in range(min(self.faults, batch - len(first))):
                kind = int(generator.integers(len(DEGRADATIONS)))
                severity = np.float32(0.1 + 0.9 * generator.random() ** 2 if number else 0)
                fault = np.zeros(len(DEGRADATIONS), np.float32)
                fault[kind] = severity
                for views in (first, second):
                    view = self._view(image, generator)
                    view = degrade(view, DEGRADATIONS[kind], float(severity), generator)
                    views.append((view[None], fault, scan, plane, np.float32(position)))
        columns = zip(*first, *second, strict=True)
        names = ("image", "fault", "scan", "plane", "position")
        return {name: torch.from_numpy(np.stack(column)) for name, column in zip(names, columns, strict=True)}

    def clean(self, generator: np.random.Generator, batch: int) -> Tensor:
        """Views (b, 1, patch, patch) without degradation."""
        views = [self._view(self._slice(generator)[3], generator) for _ in range(batch)]
        return torch.from_numpy(np.stack(views))[:, None]

    def _slice(self, generator: np.random.Generator) -> tuple[int, int, float, np.ndarray]:
        """Scan, plane, position 0..1 and an informative slice at a random scale."""
        while True:
            number = int(generator.choice(len(self.scans), p=self.shares))
            scan = self.scans[number]
            plane = int(generator.choice(scan.planes))
            position = float(generator.random())
            slice_index = int(position * scan.encoded.shape[plane])
            image = np.take(scan.encoded, slice_index, axis=plane)
            if informative(image):
                break
        # Only reduction, as enlarging would blur slices labeled as not degraded.
        scale = generator.uniform(0.5, 1) if generator.random() < 0.5 else 1.0
        if scale < 1:
            image = ndimage.zoom(ndimage.gaussian_filter(image, 0.42 * np.sqrt(scale**-2 - 1)), scale, order=1)
        if generator.random() < 0.5:
            image = image[::-1]
        # Views are taken from a region 1.5 times their size, so that they overlap.
        size = self.patch + self.patch // 2
        return number, plane, position, _window(_at_least(image, size), size, generator)

    def _view(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return np.ascontiguousarray(_window(image, self.patch, generator))


def degrade(image: np.ndarray, kind: str, severity: float, generator: np.random.Generator) -> np.ndarray:
    """Degrade a slice (h, w) with a severity from 0 (none) to 1; units of `encode`.

    blur: Gaussian of sigma up to 2.5 pixels. noise: white, SD up to 0.5. stripes: a cosine of period 2, 4 or 8 pixels
    along one axis, amplitude up to 0.5. resolution: pixels up to 4 times as long along one axis or both. flattening:
    median over up to 7 x 7 pixels, as in painted labels. contrast: up to twice or half about the mean.
    """
    if severity <= 0:
        return image
    if kind == "blur":
        degraded = ndimage.gaussian_filter(image, 2.5 * severity)
    elif kind == "noise":
        degraded = image + 0.5 * severity * generator.standard_normal(image.shape)
    elif kind == "stripes":
        degraded = image + 0.5 * severity * _stripes(image.shape, generator)
    elif kind == "resolution":
        axes = ((0,), (1,), (0, 1))[int(generator.integers(3))]
        degraded = _coarse(image, 1 + 3 * severity, axes)
    elif kind == "flattening":
        median = ndimage.median_filter(image, 2 * int(np.ceil(3 * severity)) + 1)
        degraded = image + min(1, 2 * severity) * (median - image)
    else:
        factor = 2 ** (severity if generator.random() < 0.5 else -severity)
        degraded = image.mean() + factor * (image - image.mean())
    return degraded.astype(np.float32)


def _stripes(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    axis = int(generator.integers(2))
    period = int(generator.choice((2, 4, 8)))
    # A cosine of period 2 vanishes at a phase of a quarter, so it starts at whole pixels.
    wave = np.cos(2 * np.pi * (np.arange(shape[axis]) + generator.integers(period)) / period)
    return wave[:, None] if axis == 0 else wave[None]


def _coarse(image: np.ndarray, factor: float, axes: tuple[int, ...]) -> np.ndarray:
    """Downsample and upsample by linear interpolation."""
    small = [max(2, round(n / factor)) if axis in axes else n for axis, n in enumerate(image.shape)]
    sigma = [0.4 * factor if axis in axes else 0 for axis in range(2)]
    there = ndimage.zoom(ndimage.gaussian_filter(image, sigma), np.divide(small, image.shape), order=1)
    return ndimage.zoom(there, np.divide(image.shape, there.shape), order=1)


def _window(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random square of the slice, preferably with content."""
    for _ in range(8):
        start = [int(generator.integers(n - size + 1)) for n in image.shape]
        window = image[tuple(slice(s, s + size) for s in start)]
        if informative(window):
            break
    return window


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    missing = [max(0, size - n) for n in image.shape]
    margins = [(m // 2, m - m // 2) for m in missing]
    return np.pad(image, margins, constant_values=image.min())


def _read_scan(config: dict[str, Any], item: dict[str, Any]) -> ScanSlices:
    volume = read_volume(resolve(config, item["image"]), modality=item["modality"])
    if "slices" in item:
        start, stop = item["slices"]
        volume = crop(volume, (0, 0, start), (*volume.shape[:2], stop))
    reorientation = Reorientation.to(volume.geometry, "RAS")
    spacing = reorientation.axes(volume.spacing)
    sides = [np.delete(spacing, plane) for plane in range(3)]
    planes = [plane for plane, mm in enumerate(sides) if mm.max() <= _SQUARE_PIXELS * mm.min()]
    encoded = encode(reorientation.apply(volume.array), item["modality"] == "CT")
    if not informative(encoded):
        raise InputError(f"The scan {item['image']} is constant; remove it from data.scans.")
    return ScanSlices(encoded, tuple(planes), item.get("weight", 1.0))
