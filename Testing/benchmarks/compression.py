"""Embedded weights in 8 and 4 bits against the same weights in half precision, on held-out data.

    MEDGEN_DATA=<folder> python Testing/benchmarks/compression.py --half <folder of packages in half precision>

The commit 6287d93 has the packages in half precision, in Resources/Models. Both forms get the same inputs, seeds and
noise. The RMS difference is voxelwise, between the two forms. Intervals are of the paired change, by bootstrap over
cases; the two torso scans are too few for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import heads
import numpy as np
import steps
from common import data_folder, save, table
from segmenter import SEGMENTER, dices

from MedGenLib import generate
from MedGenLib.evaluation.feature_networks import extractor
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages import catalogue
from MedGenLib.packages.catalogue import find
from MedGenLib.segmentation.segmenters import segmenter
from MedGenLib.training.data.slices import read_pairs

Figures = list[dict[str, float]]
"""For each case, its figures by name; arrays of voxels are kept apart."""


class Forms:
    """The packages in half precision and as they are shipped."""

    def __init__(self, half: Path) -> None:
        self.folders = {"half": half, "shipped": catalogue.embedded_dir()}

    def run(self, job: Callable[[], tuple[Figures, list[np.ndarray]]]) -> list[list]:
        """Rows of the table: figure, half precision, shipped, change with interval, RMS difference."""
        made = {}
        for form, folder in self.folders.items():
            catalogue.embedded_dir = lambda folder=folder: folder
            made[form] = job()
        (half, before), (shipped, after) = made["half"], made["shipped"]
        squares = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(before, after, strict=True)]
        rms = float(np.sqrt(np.mean(squares))) if squares else ""
        rows = []
        for name in half[0]:
            old, new = (np.array([case[name] for case in cases]) for cases in (half, shipped))
            rows.append([name, float(old.mean()), float(new.mean()), change(new - old), len(old), rms])
        return rows


def change(differences: np.ndarray) -> str:
    """Mean difference and its 95 % interval."""
    text = f"{differences.mean():+.3g}"
    if len(differences) < 5:
        return text
    draws = np.random.default_rng(0).integers(len(differences), size=(2000, len(differences)))
    low, high = np.percentile(differences[draws].mean(1), (2.5, 97.5))
    return f"{text} ({low:+.2g} to {high:+.2g})"


def torso(role: str, evaluations: int) -> tuple[Figures, list[np.ndarray]]:
    figures, images = [], []
    for ct, mask in steps.blocks().values():
        case = steps.Case(find("ct-tissue"), ct, mask)
        row = case.measure(role, "euler", evaluations, diversity=False)
        figures.append({name: row[name] for name in ("Dice", "FD", "FD-hp", "local SD soft", "local SD lung")})
        images.append(case.make(role, "euler", evaluations)[0][mask.array > 0])
    return figures, images


def crops(names: list[str]) -> tuple[Figures, list[np.ndarray]]:
    """Generated hippocampi, and the Dice of the segmenter in the same form on them."""
    masks = [read_label_map(data_folder() / "mr_hippocampus_msd" / "labels" / name) for name in names]
    images = [generate(m, "mr-hippocampus", seed=seed, retries=0).volume for seed, m in enumerate(masks, start=1)]
    found = dices(segmenter(SEGMENTER, "cpu"), images, masks).mean(1)
    return [{"Dice": value} for value in found], [image.array for image in images]


def real_crops(names: list[str]) -> tuple[Figures, list[np.ndarray]]:
    folder = data_folder() / "mr_hippocampus_msd"
    masks = [read_label_map(folder / "labels" / name) for name in names]
    images = [read_volume(folder / "images" / name, modality="T1w") for name in names]
    return [{"Dice": value} for value in dices(segmenter(SEGMENTER, "cpu"), images, masks).mean(1)], []


def head_slices(model: str) -> tuple[Figures, list[np.ndarray]]:
    held = find(model).training.held_out
    pairs = read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices")
    figures, images = [], []
    for pair in (p for p in pairs if p.subject in held):
        measure = heads.mr_to_ct if model == "head-mr-to-ct" else heads.ct_to_mr
        row = measure([pair], model, mirror=False)["all"]
        figures.append({name: row[name] for name in ("MAE in mask", "SSIM")})
        images.append(heads.predict(model, pair, mirror=False)[pair.mask])
    return figures, images


def features(names: list[str]) -> tuple[Figures, list[np.ndarray]]:
    """Features of the middle slice of each crop; the figure is their norm."""
    encode = extractor("medgen-features", "cpu")
    folder = data_folder() / "mr_hippocampus_msd" / "images"
    images = [read_volume(folder / name, modality="T1w").array.astype(np.float32) for name in names]
    found = [encode(np.stack([image[:, :, image.shape[2] // 2]]) / image.max())[0] for image in images]
    return [{"norm of the features": float(np.linalg.norm(f))} for f in found], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", type=Path, required=True, help="folder of packages in half precision")
    forms = Forms(parser.parse_args().half)
    names = sorted(find("mr-hippocampus").training.held_out)
    jobs = {
        "ct-tissue, draft (4 bits)": lambda: torso("draft", 2),
        "ct-tissue, normal": lambda: torso("flow", 12),
        "mr-hippocampus": lambda: crops(names),
        "hippocampus-segmenter, real crops": lambda: real_crops(names),
        "head-mr-to-ct, slices, HU": lambda: head_slices("head-mr-to-ct"),
        "head-ct-to-mr, slices": lambda: head_slices("head-ct-to-mr"),
        "medgen-features": lambda: features(names),
    }
    rows = []
    for title, job in jobs.items():
        rows += [[title, *row] for row in forms.run(job)]
        print(*rows[-1], sep=" | ", flush=True)
    heading = ["model", "figure", "half precision", "shipped", "change (95 %)", "cases", "RMS difference"]
    print(table(heading, rows))
    save("compression", {"rows": rows})


if __name__ == "__main__":
    main()
