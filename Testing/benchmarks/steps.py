"""Quality of ct-tissue against the number of network evaluations, by sampler and network.

    MEDGEN_DATA=<folder> python Testing/benchmarks/steps.py [--series NAME ...] [--picture P.png]
    MEDGEN_DATA=<folder> python Testing/benchmarks/steps.py --guidance

Blocks of the scans of ct_tissue.py with the same noise in all rows, so that rows differ only in the
integration from noise to data. "to the path" is the RMS difference, within the body (HU), from the
main network's path, computed with the midpoint rule in 48 evaluations: it measures the integration
error; Dice, SD and feature distances measure its effect. Results are stored, so an interrupted run
resumes; they are keyed by the checksum of the weights.
"""

from __future__ import annotations

import argparse
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import OUT, save, table
from ct_tissue import scans
from patch_distance import feature_distance
from scipy import ndimage
from texture import local_sd, seed_sd

from MedGenLib.diffusion import SAMPLERS
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.labels.tissues import resegment
from MedGenLib.metrics import image as metrics
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.flow_sampling import Sampling
from MedGenLib.pipelines.scene import Scene, prepare

MODEL = "ct-tissue"
CPU = torch.device("cpu")
COUNTS = (1, 2, 4, 8, 16, 30)
SERIES = {
    "student": ("draft", "euler"),
    "Euler": ("flow", "euler"),
    "midpoint": ("flow", "midpoint"),
    "Heun": ("flow", "heun"),
    "DDIM": ("flow", "ddim"),
    "DDPM": ("flow", "ddpm"),
}
BLOCKS = {
    "totalseg_abdomen, 3 mm": ((13, 3, 24), (109, 99, 88)),
    "lidc_idri_0314 block, 2 mm": ((52, 40, 0), (148, 136, 40)),
}
MAIN = ("student", "Euler", "midpoint")
"""Series measured on both blocks, with diversity."""
PATCHES = 600
WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0)
SHOWN = (1, 2, 4, 30)
TRAINED_STEPS = 4
"""Largest number of steps that the student is trained for."""


def blocks() -> dict[str, tuple[Volume, LabelMap]]:
    """Name -> (CT, tissue mask): central blocks of the held-out scans."""
    return {name: tuple(crop(item, *BLOCKS[name]) for item in pair) for name, pair in scans().items()}


class Case:
    """One mask with the data that all its rows share."""

    def __init__(self, manifest: Manifest, ct: Volume, mask: LabelMap) -> None:
        self.manifest, self.ct, self.mask = manifest, ct, mask
        self.scene: Scene = prepare(mask, manifest)
        self.real = self._texture(ct.array)
        self.soft = ndimage.binary_erosion(mask.array == 2, iterations=2)

    @cached_property
    def path(self) -> np.ndarray:
        return self.make("flow", "midpoint", 48)[0]

    def make(self, role: str, sampler: str, steps: int, seed: int = 1, guidance: float = 1.0) -> tuple[np.ndarray, int]:
        """Generated image in HU and the number of network evaluations."""
        sampling = Sampling.of(self.manifest, CPU, sampler, steps, self.scene, role=role, guidance=guidance)
        made = self.scene.finish(sampling.decode(sampling.sample(seed), None)).array
        return made, SAMPLERS[sampler].total(steps) * (1 if guidance == 1 else 2)

    def measure(
        self, role: str, sampler: str, steps: int, guidance: float = 1.0, diversity: bool = True
    ) -> dict[str, float]:
        image, evaluated = self.make(role, sampler, steps, guidance=guidance)
        row = {"evaluations": evaluated, **self.figures(image)}
        row["to the path, HU"] = metrics.rmse(self.path, image, self.mask.array > 0)
        if diversity:
            other, _ = self.make(role, sampler, steps, seed=2, guidance=guidance)
            row["seed SD, HU"] = seed_sd([image, other], self.soft, lowpass=1.5)
        return row

    def figures(self, image: np.ndarray) -> dict[str, float]:
        labels = self.mask.array
        body = labels > 0
        found = np.where(body, resegment(image, self.manifest.statistics.resegment), 0)
        row = {"Dice": float(np.mean([metrics.dice(found == v, labels == v) for v in (1, 2, 3, 4)]))}
        for name, high in (("FD", False), ("FD-hp", True)):
            row[name] = feature_distance(self.ct.array, image, body, n_patches=PATCHES, highpass=high)
        made = self._texture(image)
        return row | {f"local SD {name}": made[name] / self.real[name] for name in made}

    def _texture(self, image: np.ndarray) -> dict[str, float]:
        labels = self.mask.array
        return {"soft": local_sd(image, labels == 2), "lung": local_sd(image, labels == 4)}


def measure_all(names: list[str]) -> dict[str, Any]:
    """Rows of the table by block, series and steps; stored after every row."""
    manifest = find(MODEL)
    kept = OUT / "steps.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for title, (ct, mask) in blocks().items():
        case = None
        for name, steps in _measured(title, names):
            role, sampler = SERIES[name]
            weights = manifest.checksums[manifest.networks[role].weights][:12]
            key = f"{title} | {name} | {steps} | {weights}"
            if key in figures:
                continue
            case = case or Case(manifest, ct, mask)
            figures[key] = case.measure(role, sampler, steps, diversity=name in MAIN)
            print(key, {k: round(v, 3) for k, v in figures[key].items()}, flush=True)
            save("steps", figures)
    return {
        tuple(key.split(" | ")[:3]): row
        for key, row in figures.items()
        if key.split(" | ")[3] in {checksum[:12] for checksum in manifest.checksums.values()}
    }


def _measured(title: str, names: list[str]) -> list[tuple[str, int]]:
    """Series and steps of a block: all on the first, the series of `MAIN` on the second."""
    first = title == next(iter(BLOCKS))
    counts = COUNTS if first else SHOWN
    return [(name, steps) for name in names if first or name in MAIN for steps in counts]


def guidance() -> None:
    """Classifier-free guidance with the preset normal on both masks."""
    manifest, everything = find(MODEL), {}
    steps = manifest.preset("normal").steps
    for title, (ct, mask) in blocks().items():
        case = Case(manifest, ct, mask)
        rows = {weight: case.measure("flow", "euler", steps, weight) for weight in WEIGHTS}
        everything[title] = rows
        print(f"\n### {title}\n")
        cells = [[weight, *row.values()] for weight, row in rows.items()]
        print(table(["guidance", *rows[1.0]], cells), flush=True)
    save("guidance", everything)


def show(figures: dict[tuple[str, str, str], dict[str, float]], names: list[str]) -> None:
    for title in BLOCKS:
        heads = max(figures.values(), key=len)
        rows = [
            [name, *(figures[title, name, str(steps)].get(head, "") for head in heads)]
            for name, steps in _measured(title, names)
        ]
        print(f"\n### {title}\n\n{table(['sampler', *heads], rows)}")


def picture(figures: dict, names: list[str], path: Path) -> None:
    """Plot the metrics against evaluations, with slices of the abdomen below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    title = next(iter(BLOCKS))
    figure = plt.figure(figsize=(12, 11), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    for axes, key in zip(top.subplots(1, 4), ("Dice", "FD", "FD-hp", "local SD soft"), strict=True):
        for name in names:
            best = name == "student"
            counts = [n for n in COUNTS if n <= TRAINED_STEPS] if best else COUNTS
            rows = [figures[title, name, str(steps)] for steps in counts]
            axes.plot(
                [r["evaluations"] for r in rows],
                [r[key] for r in rows],
                marker="o",
                ms=3,
                lw=2.5 if best else 1.2,
                label=f"{name} (few-step network)" if best else name,
            )
        axes.set(xscale="log", title=key, xlabel="network evaluations")
        axes.set_xticks(COUNTS, COUNTS, minor=False)
        axes.minorticks_off()
        if key.startswith("FD"):
            axes.set_yscale("log")
            axes.set_yticks((0.5, 1, 1.5) if key == "FD" else (2, 4, 8, 16))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    handles, words = top.axes[0].get_legend_handles_labels()
    top.legend(handles, words, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    _slices(bottom, title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _slices(figure: Any, title: str) -> None:
    """One row per series, one column per number of steps; the student's row ends with the real scan."""
    ct, mask = blocks()[title]
    case = Case(find(MODEL), ct, mask)
    networks = case.manifest.networks
    rows = [name for name in ("student", "midpoint", "Euler") if SERIES[name][0] in networks]
    grid = figure.subplots(len(rows), len(SHOWN))
    level = mask.shape[2] // 2
    for axes_row, name in zip(grid, rows, strict=True):
        counts = [n for n in SHOWN if n <= TRAINED_STEPS or name != "student"]
        images = [(f"{name}, {n}", case.make(*SERIES[name], n)[0]) for n in counts]
        images += [("real", ct.array)] * (len(SHOWN) - len(counts))
        for axes, (text, image) in zip(axes_row, images, strict=True):
            axes.imshow(image[:, ::-1, level].T, cmap="gray", vmin=-200, vmax=300)
            axes.set_title(text, fontsize=9)
            axes.axis("off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [n for n, (role, _) in SERIES.items() if role in find(MODEL).networks]
    parser.add_argument("--series", nargs="+", default=known, choices=known)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--guidance", action="store_true")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.guidance:
        guidance()
        return
    figures = measure_all(arguments.series)
    show(figures, arguments.series)
    if arguments.picture:
        picture(figures, arguments.series, arguments.picture)


if __name__ == "__main__":
    main()
