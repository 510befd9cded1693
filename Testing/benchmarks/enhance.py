"""Enhancement on held-out people: slices four times as thick, noise, time; against filters of 3D Slicer and ITK.

    MEDGEN_DATA=DATA python Testing/benchmarks/enhance.py

Held out are every fifth T1w brain, T1w head and CT, by sorted name. Slices: one stack, or three orthogonal ones, each
four voxels thick (Gaussian profile); of a CT across its first axis, whose resolution is that of the scanner. Noise: CT
at a quarter of the dose (17 HU added), T1w with 6 % of the foreground's median (Rician). PSNR is relative to the range
of 99.8 % of the values, in the foreground. The error of gradients is the mean absolute difference of their magnitudes,
relative to the mean magnitude. Dice is that of tissues by thresholds. Intervals are of the mean, by bootstrap over
people.
"""

from __future__ import annotations

import glob
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import SimpleITK
from common import data_folder, in_process, save, table
from scipy import ndimage

from MedGenLib import devices, enhance
from MedGenLib.degradation.noise import ct_noise, rician
from MedGenLib.degradation.slices import Acquisition, grid_of_thick
from MedGenLib.enhancement.fusion import fuse
from MedGenLib.enhancement.stacks import fitted
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Volume, to_sitk
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.image import dice

FACTOR = 4
MR = ("mr_t1_brain/*_t1.nii.gz", "mr_t1_head/*_t1.nii.gz")
CT = ("pairs_ct_mr/sts_sarcoma/*/ct.nii.gz", "ct_torso_open/*/ct.nii.gz")
THRESHOLDS = {"CT": (-200, -30, 180), "MR": (0.45, 0.78)}
"""Borders of tissues: HU of air, fat, soft tissue, bone; of the foreground's median in T1w: fluid, gray, white."""
Figures = dict[str, float]


def held_out(patterns: tuple[str, ...], modality: str) -> list[Volume]:
    """Every fifth image of each kind."""
    paths = [path for pattern in patterns for path in sorted(glob.glob(f"{data_folder()}/{pattern}"))[4::5]]
    volumes = [read_volume(path, modality="CT" if modality == "CT" else "T1w") for path in paths]
    return [volume.with_array(volume.array.astype(np.float32)) for volume in volumes]


def foreground(volume: Volume) -> np.ndarray:
    values = volume.array
    return values > (-300 if volume.modality == "CT" else 0.1 * np.percentile(values, 99.9))


def compared(truth: Volume, made: np.ndarray, soft: np.ndarray | None = None) -> Figures:
    """Figures of an image on the grid of the truth."""
    inside, values = foreground(truth), truth.array
    if soft is not None:
        inside &= soft
    low, high = np.percentile(values, [0.1, 99.9])
    error = (made - values)[inside]
    edges = [np.sqrt(sum(g**2 for g in np.gradient(image))) for image in (values, made)]
    borders = np.array(THRESHOLDS["CT" if truth.modality == "CT" else "MR"])
    if truth.modality != "CT":
        borders = borders * np.median(values[inside])
    tissues = [np.digitize(image, borders) for image in (values, made)]
    dices = [dice((tissues[0] == n) & inside, (tissues[1] == n) & inside) for n in range(1, len(borders) + 1)]
    return {
        "PSNR dB": float(20 * np.log10((high - low) / np.sqrt(np.square(error).mean()))),
        "gradient error": float(np.abs(edges[1] - edges[0])[inside].mean() / edges[0][inside].mean()),
        "Dice of tissues": float(np.nanmean(dices)),
        "bias": float(error.mean()),
    }


def thick(truth: Volume, axis: int) -> Volume:
    grid = grid_of_thick(truth.geometry, axis, factor=FACTOR)
    return Volume(Acquisition(truth.geometry, grid).degrade(truth.array), grid.affine, truth.modality, truth.unit)


def superres(truth: Volume) -> dict[str, Figures]:
    """Method -> figures, where a stack across the first (CT) or last (MR) axis shows the truth."""
    first = 0 if truth.modality == "CT" else 2
    stacks = [thick(truth, axis) for axis in (first, *(axis for axis in (0, 1, 2) if axis != first))]
    shown = resample_to(stacks[0].with_array(np.ones(stacks[0].shape, np.float32)), truth, 1, 0.0).array > 0.99

    def ours(*given: Volume) -> np.ndarray:
        further = dict(zip(("second", "third"), given[1:], strict=False))
        made = enhance(given[0], spacing=float(np.mean(truth.spacing)) if _is_cubic(truth) else None, **further)
        consistent.append(max(made.report.parameters["consistency"]))
        return resample_to(made.volume, truth, 1).array.astype(np.float32)

    def fused(*given: Volume) -> np.ndarray:
        values, fits = zip(*(fitted(stack, truth.geometry, None) for stack in given), strict=True)
        return fuse(values, fits)

    consistent: list[float] = []
    made = {
        "linear": resample_to(stacks[0], truth, 1).array,
        "B-spline": resample_to(stacks[0], truth, 3).array,
        "fit, no network": fused(stacks[0]),
        "medgen": ours(stacks[0]),
        "three stacks, mean of B-splines": np.mean([resample_to(stack, truth, 3).array for stack in stacks], 0),
        "three stacks, fit": fused(*stacks),
        "three stacks, medgen": ours(*stacks),
    }
    figures = {name: compared(truth, image, shown) for name, image in made.items()}
    for name, share in zip(("medgen", "three stacks, medgen"), consistent, strict=True):
        figures[name]["consistency"] = share
    return figures


def _is_cubic(volume: Volume) -> bool:
    return max(volume.spacing) < 1.01 * min(volume.spacing)


def filtered(given: Volume, function: Callable[[SimpleITK.Image], SimpleITK.Image]) -> np.ndarray:
    image = SimpleITK.Cast(to_sitk(given), SimpleITK.sitkFloat32)
    return SimpleITK.GetArrayFromImage(function(image)).transpose(2, 1, 0)


def denoise(truth: Volume) -> dict[str, Figures]:
    rng = np.random.default_rng(0)
    if truth.modality == "CT":
        noisy = ct_noise(truth.array, truth.spacing, rng, dose=0.25)
        sd = float(np.std(noisy - truth.array))
    else:
        sd = 0.06 * float(np.median(truth.array[foreground(truth)]))
        noisy = rician(truth.array, sd, rng)
    given = truth.with_array(noisy)

    step = 0.9 * min(truth.spacing) / 16
    made = {
        "noisy": noisy,
        "median 3": filtered(given, lambda image: SimpleITK.Median(image, [1, 1, 1])),
        "Gaussian 1 voxel": ndimage.gaussian_filter(noisy, 1),
        "curvature anisotropic diffusion": filtered(
            given, lambda image: SimpleITK.CurvatureAnisotropicDiffusion(image, step, 1.0, 1, 5)
        ),
        "medgen": enhance(given, task="denoise", noise=sd).volume.array.astype(np.float32),
        "medgen, noise measured": enhance(given, task="denoise").volume.array.astype(np.float32),
    }
    soft = ndimage.binary_erosion(
        (truth.array > 0) & (truth.array < 120) if truth.modality == "CT" else foreground(truth), iterations=2
    )
    figures = {name: compared(truth, image) for name, image in made.items()}
    added = float((noisy - truth.array)[soft].std())
    for name, image in made.items():
        figures[name]["noise left"] = float((image - truth.array)[soft].std()) / added
    return figures


def rows(people: list[dict[str, Figures]]) -> list[list]:
    """A row a method: mean with interval of each figure, and the PSNR less that of the B-spline or the noisy image."""
    rng, found = np.random.default_rng(0), []
    base = "B-spline" if "B-spline" in people[0] else "noisy"
    for method in people[0]:
        line = [method, len(people)]
        for name in people[0][method]:
            line.append(f"{name} {interval([person[method][name] for person in people], rng)}")
        gains = [person[method]["PSNR dB"] - person[base]["PSNR dB"] for person in people]
        found.append([*line, f"gain dB {interval(gains, rng)}"])
    return found


def interval(values: list[float], rng: np.random.Generator) -> str:
    values = np.array(values)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(1)
    return f"{values.mean():.3g} ({np.percentile(means, 2.5):.3g} to {np.percentile(means, 97.5):.3g})"


def speed() -> dict[str, float]:
    """Seconds and peak memory of 256 x 256 x 128 voxels from 32 slices, in a process of its own."""
    values = ndimage.zoom(np.random.default_rng(0).random((32, 32, 8), np.float32), (8, 8, 4), order=1)
    volume = Volume(1000 * values, np.diag([1.0, 1.0, 4.0, 1.0]), "T1w")
    start = time.perf_counter()
    enhance(volume, spacing=1.0)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    grid = volume.geometry.with_spacing((1.0, 1.0, 1.0))
    image = SimpleITK.Cast(to_sitk(resample_to(volume, grid, 3)), SimpleITK.sitkFloat32)
    SimpleITK.CurvatureAnisotropicDiffusion(image, 0.05, 1.0, 1, 5)
    peer = time.perf_counter() - start
    return {"seconds": seconds, "B-spline and diffusion, s": peer, "MiB": devices.peak_memory_mib()}


def main() -> None:
    if "--child" in sys.argv:
        print(json.dumps(speed()))
        return
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    figures = {}
    for modality, patterns in (("MR", MR), ("CT", CT)):
        truths = held_out(patterns, modality)
        for task, run in (("superres", superres), ("denoise", denoise)):
            people = [run(truth) for truth in truths]
            figures[f"{task} {modality}"] = people
            print(f"\n{task}, {modality}, {len(people)} people\n")
            for line in rows(people):
                print("| " + " | ".join(map(str, line)) + " |", flush=True)
    figures["speed"] = in_process(__file__, "speed", 2)
    print(table(list(figures["speed"]), [list(figures["speed"].values())]))
    save("enhance", figures)


if __name__ == "__main__":
    main()
