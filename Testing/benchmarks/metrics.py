"""Time and memory of all 3-D metrics of a pair and of a plain baseline; uncertainty against error.

    python Testing/benchmarks/metrics.py [--threads 2]
    MEDGEN_DATA=<folder> python Testing/benchmarks/metrics.py --uncertainty

Speed: 256 x 256 x 128 voxels with a mask and 10 labels; MAE, RMSE, bias, PSNR, SSIM, MS-SSIM and
NCC of the whole, and the errors, Dice, HD95 and volume of each label. The baseline computes the
same from whole float64 arrays with scikit-image and MONAI. Each runs in a separate process.

Uncertainty: correlation of the uncertainty of the embedded models with their error on held-out
cases, for head-mr-to-ct by its half-widths, inside the translated head (above -900 HU, which excludes the
frame), and for mr-hippocampus by eight seeds, in the whole crop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator

import numpy as np
from common import in_process, save, table

from MedGenLib.imaging.volume import LabelMap, Volume

SHAPE, SPACING, LABELS = (256, 256, 128), (1.5, 1.5, 2.0), 10
HU = np.array([-1000, -80, 40, 60, -700, 400, 20, 90, 130, 200, 50], np.float32)
SEEDS = 8


def body() -> tuple[Volume, Volume, LabelMap, LabelMap, LabelMap]:
    """Image, reference, mask, expected labels and found labels: an ellipse with nine balls."""
    generator = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE), indexing="ij", sparse=True)
    inside = np.broadcast_to(np.hypot(x, 1.3 * y) < 0.92, SHAPE)
    labels = inside.astype(np.uint8)
    for n in range(2, LABELS + 1):
        angle = 2 * np.pi * n / (LABELS - 1)
        distance = (x - 0.5 * np.cos(angle)) ** 2 + (y - 0.4 * np.sin(angle)) ** 2
        labels[distance + (0.8 * z) ** 2 < 0.03] = n
    affine = np.diag([*SPACING, 1.0])
    reference = HU[labels] + generator.normal(0, 20, SHAPE).astype(np.float32)
    image = reference + generator.normal(0, 30, SHAPE).astype(np.float32)
    found = np.roll(labels, (1, 1), (0, 1))
    return (
        Volume(image, affine, "CT", "HU"),
        Volume(reference, affine, "CT", "HU"),
        LabelMap(inside, affine),
        LabelMap(labels, affine),
        LabelMap(found, affine),
    )


def nothing(image, reference, mask, labels, found) -> dict[str, float]:
    """No metrics: memory of the images and the interpreter."""
    return {}


def ours(image, reference, mask, labels, found) -> dict[str, float]:
    from MedGenLib.metrics.compare import compare
    from MedGenLib.metrics.labels import compare_labels

    comparison = compare(image, reference, mask, labels)
    rows = compare_labels(labels, found)
    return {
        **{row.name: row.value for row in comparison.rows if not row.label},
        "Dice": float(np.mean([row.dice for row in rows])),
        "HD95": float(np.mean([row.hd95_mm for row in rows])),
    }


def baseline(image, reference, mask, labels, found) -> dict[str, float]:
    """The same metrics on whole arrays; SSIM and MS-SSIM are averaged over the whole image."""
    import torch
    from monai.metrics import MultiScaleSSIMMetric, compute_dice, compute_hausdorff_distance
    from skimage.metrics import structural_similarity

    inside = mask.array > 0
    x, y = (volume.array.astype(np.float64) for volume in (reference, image))
    step = (y - x)[inside]
    low, high = -1024.0, 3000.0
    p, q = (np.where(inside, np.clip(v, low, high), low) - low for v in (x, y))
    squares = np.square((p - q)[inside]).mean()
    figures = {
        "MAE": np.abs(step).mean(),
        "RMSE": np.sqrt(np.square(step).mean()),
        "Bias": step.mean(),
        "PSNR": 10 * np.log10((high - low) ** 2 / squares),
        "SSIM": structural_similarity(p, q, win_size=7, data_range=high - low),
        "NCC": np.corrcoef(x[inside], y[inside])[0, 1],
    }
    scales = MultiScaleSSIMMetric(3, high - low, "uniform", kernel_size=7)
    figures["MS-SSIM"] = scales(*(torch.from_numpy(v)[None, None] for v in (q, p))).item()
    dice, far = [], []
    for value in labels.values():
        part = labels.array == value
        for v in (x[part], y[part]):
            v.mean()
        np.abs((y - x)[part]).mean(), np.sqrt(np.square((y - x)[part]).mean())
        pair = [torch.from_numpy(m.array == value)[None, None] for m in (found, labels)]
        dice.append(compute_dice(*pair).item())
        far.append(
            compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(SPACING)).item()
        )
    return {**figures, "Dice": np.mean(dice), "HD95": np.mean(far)}


JOBS: dict[str, Callable[..., dict]] = {"images alone": nothing, "ours": ours, "baseline": baseline}


def child(name: str, threads: int) -> None:
    """Run one job and print its results as JSON."""
    from MedGenLib.devices import peak_memory_mib

    if name == "baseline":
        import torch

        torch.set_num_threads(threads)
    images = body()
    start, busy = time.perf_counter(), time.process_time()
    figures = JOBS[name](*images)
    figures = {
        **figures,
        "seconds": time.perf_counter() - start,
        "CPU seconds": time.process_time() - busy,
        "peak MiB": peak_memory_mib(),
    }
    print(json.dumps(figures, default=float))


def speed(threads: int) -> None:
    figures = {name: in_process(__file__, name, threads) for name in JOBS}
    heads = list(figures["ours"])
    print(table(["", *heads], [[n, *(f.get(h, "") for h in heads)] for n, f in figures.items()]))
    mine, theirs = figures["ours"], figures["baseline"]
    print(
        f"ours: {mine['seconds']:.1f} s of 6, {mine['peak MiB']:.0f} MiB of 1536; "
        f"{mine['seconds'] / theirs['seconds']:.3f} of the baseline's time, "
        f"{mine['peak MiB'] / theirs['peak MiB']:.2f} of its memory"
    )
    save("metrics", figures)


def heads() -> Iterator[tuple[Volume, Volume, Volume, LabelMap]]:
    """Slices translated by head-mr-to-ct: image, uncertainty, real image, head mask."""
    from embedded import head_slices

    from MedGenLib import translate

    for case in head_slices("head-mr-to-ct"):
        made = translate(case.source, "CT", accept_license=True, uncertainty=True)
        shown = case.mask.with_array((made.volume.array > -900) & (case.mask.array > 0))
        yield made.volume, made.uncertainty, case.real, shown


def hippocampi() -> Iterator[tuple[Volume, Volume, Volume, LabelMap]]:
    """Crops of mr-hippocampus; the real image is scaled to the mean and SD of the synthetic one."""
    from embedded import hippocampi as cases

    from MedGenLib import generate

    for case in cases("mr-hippocampus"):
        made = generate(case.source, "mr-hippocampus", seed=0, samples=SEEDS, uncertainty=True, accept_license=True)
        mean = np.mean([volume.array for volume in made.volumes], axis=0, dtype=np.float32)
        real = case.real.array
        real = (real - real.mean()) / real.std() * mean.std() + mean.mean()
        whole = LabelMap(np.ones(mean.shape, np.uint8), case.real.affine)
        image = Volume(mean, case.real.affine, "T1w")
        yield image, made.uncertainty, image.with_array(real), whole


def uncertainties() -> None:
    from tqdm import tqdm

    from MedGenLib.metrics.compare import compare
    from MedGenLib.metrics.uncertainty import error_correlation

    models = {"head-mr-to-ct, half-widths": heads, f"mr-hippocampus, {SEEDS} seeds": hippocampi}
    figures, rows = {}, []
    for model, cases in models.items():
        found = []
        for image, uncertainty, real, mask in tqdm(cases(), model):
            found.append(error_correlation(uncertainty, compare(image, real, mask)).to_dict())
        figures[model] = found
        values = np.array([[row["value"] for row in case["rows"]] for case in found])
        parts = np.mean([[b["error"] for b in case["bins"]] for case in found], axis=0)
        rows.append(
            [
                model,
                len(found),
                *(f"{m:.2f} +- {s:.2f}" for m, s in zip(values.mean(0), values.std(0), strict=True)),
                float(parts[0]),
                float(parts[-1]),
            ]
        )
    names = [row["name"] for row in figures[model][0]["rows"]]
    print(table(["model", "cases", *names, "MAE, most certain tenth", "least certain"], rows))
    save("uncertainty", figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--uncertainty", action="store_true", help="needs MEDGEN_DATA")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads)
    elif arguments.uncertainty:
        uncertainties()
    else:
        speed(arguments.threads)


if __name__ == "__main__":
    main()
