"""Quality of hippocampus-segmenter on the 40 cases that were not trained on.

    MEDGEN_DATA=<folder> python Testing/benchmarks/segmenter.py

Real crops as they are and degraded, and crops that mr-hippocampus made of the same masks (preset
normal, seeds from 1 on, no second tries). Masks exchanged between cases show what a crop that does
not follow its mask looks like: the limits of the output check lie between. Worst: the lowest Dice
of a case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from common import data_folder, save, table
from scipy import ndimage

from MedGenLib import generate
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics.image import dice
from MedGenLib.packages.catalogue import find
from MedGenLib.segmentation.segmenters import Segmenter, segmenter

MODEL, SEGMENTER = "mr-hippocampus", "hippocampus-segmenter"
LABELS = (1, 2)


def noisy(volume: Volume) -> Volume:
    """Noise of a quarter of the crop's own spread."""
    noise = np.random.default_rng(0).normal(0, 0.25 * volume.array.std(), volume.shape)
    return volume.with_array((volume.array + noise).astype(np.float32))


def blurred(volume: Volume) -> Volume:
    return volume.with_array(ndimage.gaussian_filter(volume.array.astype(np.float32), 0.8))


def darkened(volume: Volume) -> Volume:
    """A gamma of 1.5."""
    values = volume.array.astype(np.float32) - volume.array.min()
    return volume.with_array(values.max() * (values / values.max()) ** 1.5)


def shaded(volume: Volume) -> Volume:
    """Twice as bright in front as at the back."""
    ramp = np.linspace(0.67, 1.33, volume.shape[1], dtype=np.float32)[None, :, None]
    return volume.with_array(volume.array * ramp)


def coarse(volume: Volume) -> Volume:
    """Voxels of 1 x 1 x 2 mm."""
    return resample(volume.with_array(volume.array.astype(np.float32)), (1, 1, 2))


def turned(volume: Volume) -> Volume:
    """Stored in another orientation: nothing may change."""
    return Volume(volume.array[::-1].transpose(2, 1, 0), _turned(volume), volume.modality)


def _turned(image: Volume | LabelMap) -> np.ndarray:
    """The affine of the array whose first axis was mirrored and exchanged with the last."""
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (image.shape[0] - 1)
    affine[:3, 0] *= -1
    return affine[:, [2, 1, 0, 3]]


DEGRADED: dict[str, Callable[[Volume], Volume]] = {
    "real": lambda volume: volume,
    "real, stored in another orientation": turned,
    "real, noise of 0.25 SD": noisy,
    "real, blurred by 0.8 mm": blurred,
    "real, gamma 1.5": darkened,
    "real, shading 1 to 2": shaded,
    "real, voxels of 1 x 1 x 2 mm": coarse,
}


def dices(find_labels: Segmenter, volumes: Sequence[Volume], masks: Sequence[LabelMap]):
    """Dice (cases, labels)."""
    rows = []
    for volume, mask in zip(volumes, masks, strict=True):
        found = find_labels(volume).array
        wanted = resample_to(mask, volume).array
        rows.append([dice(found == v, wanted == v) for v in LABELS])
    return np.array(rows)


def exchanged(volumes: Sequence[Volume], masks: Sequence[LabelMap]) -> tuple[list[Volume], list[LabelMap]]:
    """Each image with the next case's mask, both cut to the smaller size."""
    images, labels = [], []
    for volume, mask in zip(volumes, [*masks[1:], masks[0]], strict=True):
        shape = tuple(min(a, b) for a, b in zip(volume.shape, mask.shape, strict=True))
        images.append(crop(volume, (0, 0, 0), shape))
        labels.append(crop(mask, (0, 0, 0), shape))
    return images, labels


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder = data_folder() / "mr_hippocampus_msd"
    held = sorted(find(SEGMENTER).training.held_out)
    assert held == sorted(find(MODEL).training.held_out)
    masks = [read_label_map(folder / "labels" / name) for name in held]
    real = [read_volume(folder / "images" / name, modality="T1w") for name in held]
    find_labels = segmenter(SEGMENTER, "cpu")
    scores = {name: dices(find_labels, [change(volume) for volume in real], masks) for name, change in DEGRADED.items()}
    for preset in ("draft", "normal"):
        made = [
            generate(mask, MODEL, seed=seed, preset=preset, retries=0).volume
            for seed, mask in enumerate(masks, start=1)
        ]
        scores[f"{MODEL}, {preset}"] = dices(find_labels, made, masks)
    scores[f"{MODEL}, normal, masks exchanged"] = dices(find_labels, *exchanged(made, masks))
    rows = [[name, *s.mean(0).round(3), *s.min(0).round(3), *s.max(0).round(3)] for name, s in scores.items()]
    heads = ["images", "anterior", "posterior", "worst a.", "worst p.", "best a.", "best p."]
    print(table(heads, rows))
    start = time.perf_counter()
    for volume in real:
        find_labels(volume)
    print(f"{(time.perf_counter() - start) / len(real):.3f} s a crop")
    save("segmenter", {name: s.tolist() for name, s in scores.items()})


if __name__ == "__main__":
    main()
