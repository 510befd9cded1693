"""Conditioning and guidance on the held-out hippocampus cases.

    MEDGEN_DATA=<folder> python Testing/benchmarks/conditioning.py [--cases 40] [--pixel PACKAGE]

Rows: mr-hippocampus unguided, with classifier-free guidance and with classifier guidance, and the
pixel-space package that `medgen train pixel-diffusion` exported to PACKAGE. Dice compares the labels
of the embedded hippocampus-segmenter with the mask. The feature distance (patches, see
hippocampus.py) is to the real held-out crops; that of real training crops is its floor.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import OUT, data_folder, save, table
from hippocampus import features, standard
from patch_distance import standardized_frechet
from texture import highpass_sd

from MedGenLib import generate
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics import image as metrics
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import find
from MedGenLib.segmentation.segmenters import segmenter
from MedGenLib.visual import preview

MODEL = "mr-hippocampus"
VARIANTS: dict[str, dict[str, Any]] = {
    "unguided": {},
    "guidance 1.5": {"guidance": 1.5},
    "guidance 3": {"guidance": 3.0},
    "classifier guidance 0.03": {"classifier_guidance": 0.03},
    "classifier guidance 0.1": {"classifier_guidance": 0.1},
    "classifier guidance 0.3": {"classifier_guidance": 0.3},
    "classifier guidance 1": {"classifier_guidance": 1.0},
}


def dices(images: list[Volume], masks: list[LabelMap]) -> list[float]:
    """Mean Dice of the two labels."""
    find_labels = segmenter("hippocampus-segmenter", "cpu")
    rows = []
    for image, mask in zip(images, masks, strict=True):
        found = find_labels(image).array
        rows.append([metrics.dice(found == v, mask.array == v) for v in (1, 2)])
    return [float(v) for v in np.nanmean(rows, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--pixel", type=Path)
    arguments = parser.parse_args()
    folder = data_folder() / "mr_hippocampus_msd"
    held = sorted(find(MODEL).training.held_out)
    chosen = held[: arguments.cases]
    known = sorted(p.name for p in (folder / "images").glob("*.nii.gz") if p.name not in held)
    real, training = (
        [read_volume(folder / "images" / n, modality="T1w") for n in names]
        for names in (chosen, known[: arguments.cases])
    )
    masks = [read_label_map(folder / "labels" / n) for n in chosen]
    pooled = np.concatenate([standard(i.array).ravel() for i in real])
    scale = (float(pooled.mean()), float(1 / pooled.std()))
    target = features([standard(i.array) for i in real], scale)

    def row(name: str, images: list[Volume], labels: list[LabelMap]) -> list:
        own = features([standard(i.array) for i in images], scale)
        sd = np.mean([standard(i.array).std() for i in images])
        detail = np.mean([highpass_sd(standard(i.array), np.ones(i.shape, bool)) for i in images])
        distance = standardized_frechet(target, own)
        return [name, *dices(images, labels), distance, detail / sd]

    labels = [read_label_map(folder / "labels" / n) for n in known[: arguments.cases]]
    rows = [row("real, held out", real, masks), row("real, training", training, labels)]
    for name, options in VARIANTS.items():
        rows.append(row(name, [_made(MODEL, m, n, options) for n, m in enumerate(masks)], masks))
    if arguments.pixel is not None:
        with tempfile.TemporaryDirectory() as home:
            os.environ["MEDGEN_HOME"] = home
            pixel = store.add(arguments.pixel).name
            for preset in ("draft", "normal"):
                options = {"preset": preset}
                made = [_made(pixel, m, n, options) for n, m in enumerate(masks)]
                steps = find(pixel).preset(preset).steps
                rows.append(row(f"pixel space, DDIM {steps} steps", made, masks))
            OUT.mkdir(parents=True, exist_ok=True)
            for n in range(2):
                preview.preview(masks[n], made[n], OUT / f"pixel_{n}.png")
    columns = ["images", "Dice anterior", "Dice posterior", "feature distance", "high-pass SD / SD"]
    print(table(columns, rows))
    save("conditioning", {"columns": columns, "rows": rows})


def _made(model: str, mask: LabelMap, seed: int, options: dict[str, Any]) -> Volume:
    return generate(mask, model, seed=seed, retries=0, device="cpu", **options).volume


if __name__ == "__main__":
    main()
