"""Intensity codecs: stored values to network values and back.

A package names its codec and the codec's numbers; training and inference use the same objects.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

KEPT_TEXTURE = 0.3
"""Share of the difference between a voxel and the middle of its tissue that the largest shift leaves."""


@dataclass(frozen=True)
class TissueStandard:
    """HU standardized by tissue: ``x = asinh((HU - center[label]) / scale[label])``.

    Every tissue has about unit spread, so that a flow spends the same care on soft tissue
    (spread 30 HU) as on bone (spread 250 HU). ``centers`` and ``scales`` are in HU, indexed by
    label value; the asinh tames tails such as cortical bone. `decode` limits |x| to ``limit``,
    so that no voxel can run away.
    """

    centers: tuple[float, ...]
    scales: tuple[float, ...]
    limit: float = 3.0

    def encode(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(i, j, k) values and integer labels -> float32 of the same shape."""
        center, scale = self._maps(labels)
        return np.arcsinh((values.astype(np.float32) - center) / scale)

    def decode(self, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Inverse of `encode` within the limit."""
        center, scale = self._maps(labels)
        return np.sinh(np.clip(x, -self.limit, self.limit)) * scale + center

    def _maps(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (np.asarray(self.centers, np.float32)[labels], np.asarray(self.scales, np.float32)[labels])


@dataclass(frozen=True)
class TissueRange:
    """The range of HU around a voxel of each tissue.

    Masks of tissues come from thresholds on a median-filtered image. A sample of the flow may
    leave its tissue's range at thin structures; `enforce` moves it back by what the local median
    (3 voxels along each axis) lacks, which keeps the noise and texture round that median.
    ``low`` and ``high`` are in HU, indexed by label value.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    passes: int

    def enforce(self, hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(i, j, k) HU and labels -> HU; voxels of label 0 are unchanged."""
        start = hu
        for _ in range(self.passes):
            outside = np.nonzero(self._outside(hu, labels))
            if not len(outside[0]):
                break
            median = _local_median(hu, outside)
            low, high = (np.asarray(v, hu.dtype)[labels[outside]] for v in (self.low, self.high))
            furthest = _furthest(start[outside], low, high)
            hu = hu.copy()
            hu[outside] = _moved(hu[outside], np.clip(median, low, high) - median, furthest)
        return hu

    def _outside(self, hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Voxels whose local median is outside of the range of their label.

        The median of n values is below a limit where more than half of them are: counting takes a
        fraction of the time of sorting, and few medians have to be known.
        """
        outside = np.zeros(hu.shape, bool)
        size = 3 ** sum(n > 1 for n in hu.shape)
        for value in np.unique(labels[labels > 0]):
            below = _count_near(hu < np.asarray(self.low[value], hu.dtype)) > size // 2
            above = _count_near(hu > np.asarray(self.high[value], hu.dtype)) > size // 2
            outside |= (below | above) & (labels == value)
        return outside


def _furthest(hu: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Limits of the shift of a voxel: around the middle of the range of its tissue.

    What is thinner than the median (a corner, a spike, a nodule of a few voxels) has a median that
    belongs to its surroundings however far it is shifted. A part of its texture is kept.
    """
    middle = (low + high) / 2
    return np.clip(middle + KEPT_TEXTURE * (hu - middle), low, high)


def _moved(hu: np.ndarray, shift: np.ndarray, furthest: np.ndarray) -> np.ndarray:
    """HU and shift -> HU; no shift takes a voxel beyond `furthest`."""
    up, down = np.maximum(hu, furthest), np.minimum(hu, furthest)
    return np.where(shift > 0, np.minimum(hu + shift, up), np.maximum(hu + shift, down))


def _count_near(marked: np.ndarray) -> np.ndarray:
    """Number of marked voxels among the 3 x 3 x 3 neighbors; the border is repeated."""
    count = marked.view(np.uint8)
    for axis, n in enumerate(count.shape):
        if n > 1:
            line = np.moveaxis(count, axis, 0)
            count = count.copy()
            total = np.moveaxis(count, axis, 0)
            total[:-1] += line[1:]
            total[1:] += line[:-1]
            total[0] += line[0]
            total[-1] += line[-1]
    return count


def _local_median(values: np.ndarray, places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Median of 3 voxels along each axis longer than one, at these places."""
    steps = [(-1, 0, 1) if n > 1 else (0,) for n in values.shape]
    near = [
        values[
            tuple((index + step).clip(0, n - 1) for index, step, n in zip(places, offset, values.shape, strict=True))
        ]
        for offset in itertools.product(*steps)
    ]
    return np.median(near, axis=0)


@dataclass(frozen=True)
class Affine:
    """One mean and one standard deviation for all voxels: ``x = (value - mean) / sd``.

    In training mean and sd are each image's own; ``mean`` and ``sd`` kept here are typical ones
    and give the level of generated images, in arbitrary units.
    """

    mean: float
    sd: float

    def encode(self, values: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        values = values.astype(np.float32)
        return (values - values.mean()) / max(float(values.std()), 1e-6)

    def decode(self, x: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        return np.clip(x * self.sd + self.mean, 0, None)


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and standard deviation 1 of each image, clipped to ``low``..``high``."""

    low: float = -3.0
    high: float = 5.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values in any unit -> float32; a constant image becomes 0."""
        values = values.astype(np.float32)
        spread = max(float(values.std()), 1e-6)
        return np.clip((values - values.mean()) / spread, self.low, self.high)


@dataclass(frozen=True)
class BrainLevel:
    """T1w of a brain without skull, on 0: white matter at 0.5, clipped to ``low``..``high``.

    ``white`` is the percentile of the brain at which white matter lies: 74 to 82 in 47 people of ds002748.
    """

    low: float = 0.0
    high: float = 1.0
    white: float = 78.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values in any unit -> float32; an image without values above 0 becomes 0."""
        inside = values[values > 0]
        level = float(np.percentile(inside, self.white)) if inside.size else 1.0
        return np.clip(values.astype(np.float32) / (2 * level), self.low, self.high)


@dataclass(frozen=True)
class HounsfieldWindow:
    """HU within ``low``..``high`` as 0..2; air is 0, as the padding of networks is."""

    low: float
    high: float

    def encode(self, values: np.ndarray) -> np.ndarray:
        """HU -> float32."""
        return (np.clip(values.astype(np.float32), self.low, self.high) - self.low) * (2 / (self.high - self.low))


@dataclass(frozen=True)
class HeadCT:
    """CT of the head. As input two channels: the whole range and a brain window.

    ``whole`` is HU / 1000 within ``low`` and ``high``, ``brain`` maps -20..90 HU to -1..1, clipped.
    """

    channels = 2
    low: float = -1024.0
    high: float = 2000.0

    def as_input(self, hu: np.ndarray) -> np.ndarray:
        """(h, w) or (n, h, w) HU -> channels first, float32."""
        whole = self.as_target(hu)
        brain = np.clip((hu.astype(np.float32) - 35.0) / 55.0, -1, 1)
        return np.stack([whole, brain], axis=-3)

    def as_target(self, hu: np.ndarray) -> np.ndarray:
        return np.clip(hu.astype(np.float32), self.low, self.high) / 1000.0

    def from_target(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x * 1000.0, self.low, self.high)


@dataclass(frozen=True)
class HeadMR:
    """MR of the head, divided by its 99.5th percentile inside the head (`reference`)."""

    channels = 1

    @staticmethod
    def reference(values: np.ndarray, mask: np.ndarray) -> float:
        inside = values[mask > 0]
        if inside.size == 0:
            inside = values
        return max(float(np.percentile(inside, 99.5)), 1e-6)

    def as_input(self, relative: np.ndarray) -> np.ndarray:
        return (np.clip(relative.astype(np.float32), 0, 1.5) * 2 - 1)[..., None, :, :]

    def as_target(self, relative: np.ndarray) -> np.ndarray:
        return np.clip(relative.astype(np.float32), 0, 1.5) * 2 - 1

    def from_target(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x + 1) / 2, 0, 1.5)


CODECS = {"tissue-standard": TissueStandard, "affine": Affine}
HEAD_CODECS = {"CT": HeadCT, "T1w": HeadMR}


def slice_codec(modality: str) -> HeadCT | HeadMR:
    """The codec of slices: HU of CT, and values of MR relative to their bright end (`bright_end`)."""
    return HeadCT() if modality == "CT" else HeadMR()


def bright_end(values: np.ndarray) -> float:
    """The 99.5th percentile of the voxels above the mean: it hardly depends on how much air an MR image shows."""
    return HeadMR.reference(values, values > values.mean())
