"""CT volumes with tissue labels: random patches at several spacings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.pipelines.conditioning import label_channels, noise_level, noise_scalar, spacing_scalar
from MedGenLib.training.config import resolve
from MedGenLib.training.data.ablation import Ablation

TISSUES = ("fat", "soft tissue", "bone", "lung or gas")
THRESHOLDS_HU = (-250.0, -30.0, 180.0)


def tissue_labels(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Tissue values of a CT: 1 fat, 2 soft tissue, 3 bone, 4 lung or gas, 0 outside ``body``.

    Thresholds -250, -30 and 180 HU on the image after a 3 x 3 x 3 median filter.
    """
    from scipy import ndimage

    smooth = ndimage.median_filter(hu, size=3)
    tissue = np.array([4, 1, 2, 3], np.uint8)[np.digitize(smooth, THRESHOLDS_HU)]
    return np.where(body, tissue, 0).astype(np.uint8)


@dataclass(frozen=True)
class Scan:
    """One scan at one isotropic spacing."""

    subject: str
    spacing: float
    hu: np.ndarray
    labels: np.ndarray
    noise: float


class TissueScans:
    """Scans of the configuration, resampled to each training spacing, and patches of them."""

    maps = len(TISSUES) + 1
    scalars = 2

    def __init__(self, config: dict[str, Any], patch: int) -> None:
        self.patch = patch
        self.importance = np.array(config["data"].get("importance", [0, 1, 1, 1, 1]), np.float32)
        self.codec = TissueStandard(**config["data"]["codec"])
        self.ablation = Ablation.of(config, len(TISSUES))
        self.scans = [
            scan for item in config["data"]["scans"] for scan in _read_scan(config, item, config["data"]["spacings_mm"])
        ]
        if not self.scans:
            raise InputError("The configuration lists no scans; add some under data.scans.")
        self.held_out = [i["held_out"] for i in config["data"]["scans"] if "held_out" in i]
        self.weights = np.array([np.count_nonzero(s.labels) * s.spacing**1.5 for s in self.scans])
        self.weights /= self.weights.sum()

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """``x`` (b, 1, ...), ``maps`` (b, maps, ...), ``scalars`` (b, 2), ``valid`` (b, 1, ...).

        ``valid`` is the weight of each voxel in the loss, by tissue.
        """
        items = [self._patch(generator) for _ in range(batch)]
        return {key: torch.from_numpy(np.stack([i[key] for i in items])) for key in items[0]}

    def _patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        scan = self.scans[generator.choice(len(self.scans), p=self.weights)]
        box = self._box(scan.labels, generator)
        hu, labels = (_cut(a, box, fill) for a, fill in ((scan.hu, -1000.0), (scan.labels, 0)))
        flips = tuple(axis for axis in range(3) if generator.random() < 0.5)
        hu, labels = np.flip(hu, flips), np.flip(labels, flips)
        noise = scan.noise
        if generator.random() < 0.4:
            hu, noise = _blur(hu, labels, noise, generator.uniform(0.3, 0.9))
        if self.ablation:
            labels = self.ablation.apply(labels, generator)
        body = labels > 0
        x = np.where(body, self.codec.encode(hu, labels), 0)
        return {
            "x": x[None].astype(np.float32),
            "maps": label_channels(labels, self.maps - 1),
            "scalars": np.array([spacing_scalar(scan.spacing), noise_scalar(noise)], np.float32),
            "valid": self.importance[labels][None],
        }

    def _box(self, labels: np.ndarray, generator: np.random.Generator) -> list[tuple[int, int]]:
        """A patch about a random voxel: of the body, or of one tissue so that rare ones appear."""
        wanted = labels > 0
        if generator.random() < 0.5:
            tissue = labels == generator.integers(1, self.maps)
            wanted = tissue if tissue.any() else wanted
        flat = np.flatnonzero(wanted)
        centre = np.unravel_index(flat[generator.integers(flat.size)], labels.shape)
        starts = [
            min(max(c - self.patch // 2, 0), max(0, n - self.patch)) for c, n in zip(centre, labels.shape, strict=True)
        ]
        return [(start, start + self.patch) for start in starts]

    def statistics(self) -> dict[str, dict[str, Any]]:
        """HU of every tissue over the scans nearest 2 mm, for the output check."""
        nearest = min({s.spacing for s in self.scans}, key=lambda s: abs(s - 2.0))
        tissues = {}
        for value, name in enumerate(TISSUES, start=1):
            means = [
                float(s.hu[s.labels == value].mean())
                for s in self.scans
                if s.spacing == nearest and (s.labels == value).any()
            ]
            voxels = np.concatenate([s.hu[s.labels == value] for s in self.scans if s.spacing == nearest])
            tissues[str(value)] = {
                "name": name,
                "mean": round(float(np.mean(means)), 1),
                "sd": round(float(voxels.std()), 1),
                "means": [round(m, 1) for m in means],
            }
        return tissues

    def preprocessing(self) -> dict[str, Any]:
        """The codec, and the median noise (HU) of the training scans at each spacing (mm)."""
        spacings = sorted({s.spacing for s in self.scans})
        noise = [[s, round(float(np.median([c.noise for c in self.scans if c.spacing == s])), 2)] for s in spacings]
        return {"centres": list(self.codec.centres), "scales": list(self.codec.scales), "noise_hu": noise}


def _read_scan(config: dict, item: dict, spacings: list[float]) -> list[Scan]:
    volume = read_volume(resolve(config, item["image"]), modality="CT")
    label_map = read_label_map(resolve(config, item["label"]))
    if "slices" in item:
        start, stop = item["slices"]
        volume = _slab(volume, start, stop)
        label_map = _slab(label_map, start, stop)
    return [_at_spacing(item["subject"], volume, label_map, s) for s in spacings]


def _slab(volume: Any, start: int, stop: int) -> Any:
    i, j, _ = volume.shape
    return crop(volume, (0, 0, start), (i, j, stop))


def _at_spacing(subject: str, volume: Volume, label_map: LabelMap, spacing: float) -> Scan:
    body = LabelMap((label_map.array > 0).astype(np.uint8), label_map.affine, {1: "body"})
    hu = resample(volume, (spacing,) * 3, order=1).array
    body = resample(body, (spacing,) * 3, order=0).array > 0
    hu = np.clip(hu, -1024, 3071).astype(np.float32)
    labels = tissue_labels(hu, body)
    return Scan(subject, spacing, hu, labels, noise_level(hu, labels == 2) or 8.0)


def _cut(array: np.ndarray, box: list[tuple[int, int]], fill: float) -> np.ndarray:
    """Cut a box; where it reaches beyond the array it is filled."""
    part = array[tuple(slice(a, min(b, n)) for (a, b), n in zip(box, array.shape, strict=True))]
    missing = [(0, b - a - n) for (a, b), n in zip(box, part.shape, strict=True)]
    return np.pad(part, missing, constant_values=fill)


def _blur(hu: np.ndarray, labels: np.ndarray, noise: float, sigma: float) -> tuple[np.ndarray, float]:
    """A smoother reconstruction of the same patch and its noise level."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(hu, sigma)
    before, after = noise_level(hu, labels == 2), noise_level(smooth, labels == 2)
    ratio = after / before if before and after else np.exp(-1.2 * sigma)
    return smooth, noise * ratio
