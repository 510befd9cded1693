"""CT volumes with tissue labels: random patches at several spacings."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.training.config import resolve
from MedGenLib.training.data import reader
from MedGenLib.training.data.patches import Scan, ScanPatches

TISSUES = ("fat", "soft tissue", "bone", "lung or gas")
THRESHOLDS_HU = (-250.0, -30.0, 180.0)


def tissue_labels(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Tissue values of a CT: 1 fat, 2 soft tissue, 3 bone, 4 lung or gas, 0 outside ``body``.

    Thresholds -250, -30 and 180 HU on the image after a 3 x 3 x 3 median filter.
    """
    return thresholded(ndimage.median_filter(hu, size=3), body)


def thresholded(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Tissue values of a CT by the thresholds alone, which gives masks with single voxels."""
    tissue = np.array([4, 1, 2, 3], np.uint8)[np.digitize(hu, THRESHOLDS_HU)]
    return np.where(body, tissue, 0).astype(np.uint8)


@reader("tissue-scans")
class TissueScans(ScanPatches):
    """Scans of the configuration, resampled to each training spacing; voxels are weighted by tissue."""

    background = -1000.0

    def __init__(self, config: dict[str, Any], patch: int) -> None:
        data = config["data"]
        scans = [scan for item in data["scans"] for scan in _read_scan(config, item, data["spacings_mm"])]
        super().__init__(config, patch, len(TISSUES), scans)
        self.held_out = [item["held_out"] for item in data["scans"] if "held_out" in item]
        self.tissue_weights = np.array(data.get("importance", [0, 1, 1, 1, 1]), np.float32)

    def vary(
        self, values: np.ndarray, labels: np.ndarray, noise: float, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        flips = tuple(axis for axis in range(3) if generator.random() < 0.5)
        values, labels = np.flip(values, flips), np.flip(labels, flips)
        if generator.random() < 0.4:
            values, noise = _blur(values, labels, noise, generator.uniform(0.3, 0.9))
        return values, labels, noise

    def importance(self, labels: np.ndarray) -> np.ndarray:
        return self.tissue_weights[labels]

    def statistics(self) -> dict[str, dict[str, Any]]:
        """HU statistics of each tissue over the scans nearest 2 mm, for the output check."""
        nearest = min({s.spacing for s in self.scans}, key=lambda s: abs(s - 2.0))
        tissues = {}
        for value, name in enumerate(TISSUES, start=1):
            means = [
                float(s.values[s.labels == value].mean())
                for s in self.scans
                if s.spacing == nearest and (s.labels == value).any()
            ]
            voxels = np.concatenate([s.values[s.labels == value] for s in self.scans if s.spacing == nearest])
            tissues[str(value)] = {
                "name": name,
                "mean": round(float(np.mean(means)), 1),
                "sd": round(float(voxels.std()), 1),
                "means": [round(m, 1) for m in means],
            }
        return tissues


def _read_scan(config: dict, item: dict, spacings: list[float]) -> list[Scan]:
    volume = read_volume(resolve(config, item["image"]), modality="CT")
    label_map = read_label_map(resolve(config, item["label"]))
    if "slices" in item:
        start, stop = item["slices"]
        volume, label_map = (crop(v, (0, 0, start), (*v.shape[:2], stop)) for v in (volume, label_map))
    return [_at_spacing(item["subject"], volume, label_map, s) for s in spacings]


def _at_spacing(subject: str, volume: Volume, label_map: LabelMap, spacing: float) -> Scan:
    body = LabelMap((label_map.array > 0).astype(np.uint8), label_map.affine, {1: "body"})
    hu = resample(volume, (spacing,) * 3, order=1).array
    body = resample(body, (spacing,) * 3, order=0).array > 0
    hu = np.clip(hu, -1024, 3071).astype(np.float32)
    labels = tissue_labels(hu, body)
    return Scan(subject, spacing, hu, labels, noise_level(hu, labels == 2) or 8.0)


def _blur(hu: np.ndarray, labels: np.ndarray, noise: float, sigma: float) -> tuple[np.ndarray, float]:
    """A smoother reconstruction of a patch, and its noise level."""
    smooth = ndimage.gaussian_filter(hu, sigma)
    before, after = noise_level(hu, labels == 2), noise_level(smooth, labels == 2)
    ratio = after / before if before and after else np.exp(-1.2 * sigma)
    return smooth, noise * ratio
