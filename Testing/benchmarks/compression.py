"""Embedded weights against other weights of the same networks, such as those before a compression, on held-out data.

    MEDGEN_DATA=<folder> python Testing/benchmarks/compression.py --reference <packages> [--cases N] [WORD ...]

The commit 6287d93 has packages in half precision, 80feed0 those in 8 bits, in Resources/Models. Both forms get the same
inputs, seeds and noise; with words, only the models that have one are measured. The RMS difference is voxelwise,
between the two forms. For generators, the table also has the change that another seed makes in the reference. Intervals
are of the paired change, by bootstrap over cases; the two torso scans are too few for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import body
import brain
import heads
import numpy as np
import steps
from checks import brains
from common import data_folder, save, table
from segmenter import SEGMENTER, dices
from texture import local_sd

from MedGenLib import generate, translate
from MedGenLib.evaluation.feature_networks import extractor
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.volume import crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages import catalogue
from MedGenLib.packages.catalogue import find
from MedGenLib.segmentation.segmenters import segmenter
from MedGenLib.training.data.alignment import field_of_view
from MedGenLib.training.data.slices import read_pairs

BLOCK = 64
"""Side of the blocks of mr-brain in voxels."""
Figures = list[dict[str, float]]
"""For each case, its figures by name; arrays of voxels are kept apart."""
Job = Callable[..., tuple[Figures, list[np.ndarray]]]
"""Generators take a seed."""


class Forms:
    """The packages of the reference and those that are shipped."""

    def __init__(self, reference: Path) -> None:
        self.folders = {"reference": reference, "shipped": catalogue.embedded_dir()}

    def run(self, job: Job, seeded: bool) -> list[list]:
        """Rows of the table: figure, both forms, change, RMS difference, and change and RMS of another seed."""
        before, after = self._make("reference", job), self._make("shipped", job)
        other = self._make("reference", partial(job, seed=2)) if seeded else None
        rows = []
        for name in before[0][0]:
            old, new = (np.array([case[name] for case in figures]) for figures, _ in (before, after))
            row = [name, float(old.mean()), float(new.mean()), change(new - old), len(old), rms(before[1], after[1])]
            if other:
                row += [change(np.array([case[name] for case in other[0]]) - old), rms(before[1], other[1])]
            rows.append(row + [""] * (8 - len(row)))
        return rows

    def _make(self, form: str, job: Job) -> tuple[Figures, list[np.ndarray]]:
        catalogue.embedded_dir = lambda: self.folders[form]
        return job()


def rms(before: list[np.ndarray], after: list[np.ndarray]) -> float | str:
    squares = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(before, after, strict=True)]
    return float(np.sqrt(np.mean(squares))) if squares else ""


def change(differences: np.ndarray) -> str:
    """Mean difference and its 95 % interval."""
    text = f"{differences.mean():+.3g}"
    if len(differences) < 5:
        return text
    draws = np.random.default_rng(0).integers(len(differences), size=(2000, len(differences)))
    low, high = np.percentile(differences[draws].mean(1), (2.5, 97.5))
    return f"{text} ({low:+.2g} to {high:+.2g})"


def torso(role: str, evaluations: int, cases: int, seed: int = 1) -> tuple[Figures, list[np.ndarray]]:
    figures, images = [], []
    for ct, mask in [*steps.blocks().values()][:cases]:
        case = steps.Case(find("ct-tissue"), ct, mask)
        image, _ = case.make(role, "euler", evaluations, seed=seed)
        figures.append(case.figures(image))
        images.append(image[mask.array > 0])
    return figures, images


def brain_images(cases: int, side: int = 0, seed: int = 1) -> tuple[Figures, list[np.ndarray]]:
    """Dice and means of tissues by thresholds, and local SD, in blocks of `side` voxels around the middle of the brain.

    Whole brains (0) have the mean Dice of the structures by brain-segmenter too; one takes a minute.
    """
    held = [name.split(",")[0] for name in find("mr-brain").training.held_out if name.endswith(", held out")]
    figures, images = [], []
    for real in [real for real in brains() if real.name in held][:cases]:
        middle = [n // 2 - side // 2 for n in real.given.shape]
        mask = crop(real.given, middle, [n + side for n in middle]) if side else real.given
        result = generate(mask, "mr-brain", seed=seed, retries=0, device="cpu")
        image, labels = result.volume.array, mask.array
        row = {k: v for k, v in brain.tissues(image, labels).items() if k.startswith(("Dice", "mean"))}
        for value in (brain.CORTEX, brain.WHITE):
            row[f"local SD {brain.TISSUES[value]}"] = local_sd(image, labels == value)
        if not side:
            found = result.report.output_checks[0].figures["segmented"]
            row["Dice of brain-segmenter"] = float(np.mean(list(found.values())))
        figures.append(row)
        images.append(image[labels > 0])
    return figures, images


def crops(names: list[str], seed: int = 1) -> tuple[Figures, list[np.ndarray]]:
    """Generated hippocampi, the Dice of the segmenter in the same form on them, and their local SD in the labels."""
    masks = [read_label_map(data_folder() / "mr_hippocampus_msd" / "labels" / name) for name in names]
    images = [generate(m, "mr-hippocampus", seed=1000 * seed + n, retries=0).volume for n, m in enumerate(masks)]
    found = dices(segmenter(SEGMENTER, "cpu"), images, masks).mean(1)
    texture = [local_sd(image.array, mask.array > 0) for image, mask in zip(images, masks, strict=True)]
    rows = [{"Dice": dice, "local SD": sd} for dice, sd in zip(found, texture, strict=True)]
    return rows, [image.array for image in images]


def real_crops(names: list[str]) -> tuple[Figures, list[np.ndarray]]:
    folder = data_folder() / "mr_hippocampus_msd"
    masks = [read_label_map(folder / "labels" / name) for name in names]
    images = [read_volume(folder / "images" / name, modality="T1w") for name in names]
    return [{"Dice": value} for value in dices(segmenter(SEGMENTER, "cpu"), images, masks).mean(1)], []


def head_slices(model: str, cases: int) -> tuple[Figures, list[np.ndarray]]:
    held = find(model).training.held_out
    pairs = read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices")
    figures, images = [], []
    for pair in [p for p in pairs if p.subject in held][:cases]:
        measure = heads.mr_to_ct if model == "head-mr-to-ct" else heads.ct_to_mr
        row = measure([pair], model, mirror=False)["all"]
        figures.append({name: row[name] for name in ("MAE in mask", "SSIM")})
        images.append(heads.predict(model, pair, mirror=False)[pair.mask])
    return figures, images


def limbs(model: str, cases: int) -> tuple[Figures, list[np.ndarray]]:
    is_ct = model == "body-mr-to-ct"
    figures, images = [], []
    for _, mr, ct in body.people()[:cases]:
        real, inside = ct.array if is_ct else 1000 * mr.array / bright_end(mr.array), field_of_view(mr.array)
        made = translate(mr if is_ct else ct, to="CT" if is_ct else "T1w", model=model, device="cpu").volume.array
        row = body.compared(made, real, inside, is_ct)
        figures.append({name: row[name] for name in ("MAE", "MAE, 1 voxel", "correlation")})
        images.append(made[inside])
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
    parser.add_argument("--reference", type=Path, required=True, help="folder of packages to compare with")
    parser.add_argument("--cases", type=int, default=1000, help="most held-out cases of a row")
    parser.add_argument("words", nargs="*")
    chosen = parser.parse_args()
    forms, most = Forms(chosen.reference), chosen.cases
    names = sorted(find("mr-hippocampus").training.held_out)[:most]
    generators: dict[str, Job] = {
        "ct-tissue, draft (4 bits)": partial(torso, "draft", 2, most),
        "ct-tissue, normal": partial(torso, "flow", 12, most),
        "mr-brain, blocks": partial(brain_images, most, BLOCK),
        "mr-brain, whole": partial(brain_images, most),
        "mr-hippocampus": partial(crops, names),
    }
    jobs: dict[str, Job] = generators | {
        "hippocampus-segmenter, real crops": partial(real_crops, names),
        "head-mr-to-ct, slices, HU": partial(head_slices, "head-mr-to-ct", most),
        "head-ct-to-mr, slices": partial(head_slices, "head-ct-to-mr", most),
        "body-mr-to-ct, HU": partial(limbs, "body-mr-to-ct", most),
        "body-ct-to-mr": partial(limbs, "body-ct-to-mr", most),
        "medgen-features": partial(features, names),
    }
    rows = []
    heading = ["model", "figure", "reference", "shipped", "change (95 %)", "cases", "RMS difference"]
    heading += ["change by another seed", "RMS of another seed"]
    for title, job in jobs.items():
        if not chosen.words or any(word in title for word in chosen.words):
            rows += [[title, *row] for row in forms.run(job, seeded=title in generators)]
            print(table(heading, rows), flush=True)
    save("compression", {"rows": rows})


if __name__ == "__main__":
    main()
