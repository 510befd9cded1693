"""Translation of limbs and trunk between CT and T1w MR, on the held-out people of the soft-tissue sarcoma pairs.

    MEDGEN_DATA=DATA python Testing/benchmarks/body.py [MR-TO-CT CT-TO-MR]

Held out is every fifth of the 41 people, by sorted name. The whole product at its defaults translates the image; where
the MR has signal, the result is compared with the real image, voxel by voxel and with a tolerance of one voxel, because
a limb lies differently in both scans: the error is the least one among the 27 voxels around, and bone counts as found
where the other image has bone within one voxel. The baseline paints a CT by two thresholds of the MR (air below 0.1 of
its bright end, fat above 0.45, soft tissue between), and an MR by those of the CT. Intervals are of the mean, by
bootstrap over people. Arguments are the names of other models.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from common import OUT, data_folder, save, table
from scipy import ndimage

from MedGenLib import translate
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.image import dice
from MedGenLib.training.data.alignment import field_of_view
from MedGenLib.visual.planes import translation_planes

BONE_HU = 200
AROUND = np.ones((3, 3, 3), bool)
Figures = dict[str, float]


def people() -> list[tuple[str, Volume, Volume]]:
    """Name, MR and CT of each held-out person."""
    folders = sorted((data_folder() / "pairs_ct_mr" / "sts_sarcoma").glob("STS_*"))[4::5]
    return [
        (f.name, read_volume(f / "mr_t1.nii.gz", modality="T1w"), read_volume(f / "ct.nii.gz", modality="CT"))
        for f in folders
    ]


def least_error(made: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Smallest difference to the real values within one voxel."""
    least = np.full(made.shape, np.inf)
    for shift in np.ndindex(3, 3, 3):
        moved = np.roll(real, np.array(shift) - 1, axis=(0, 1, 2))
        least = np.minimum(least, np.abs(made - moved))
    return least


def found(a: np.ndarray, b: np.ndarray) -> float:
    """Dice where a voxel counts if the other mask has one within one voxel."""
    near_a, near_b = (ndimage.binary_dilation(mask, AROUND) for mask in (a, b))
    return float(((a & near_b).sum() + (b & near_a).sum()) / max(1, a.sum() + b.sum()))


def compared(made: np.ndarray, real: np.ndarray, inside: np.ndarray, is_ct: bool) -> Figures:
    """Figures within the field of view of the MR."""
    made, real = made.astype(np.float64), real.astype(np.float64)
    figures = {
        "MAE": float(np.abs(made - real)[inside].mean()),
        "MAE, 1 voxel": float(least_error(made, real)[inside].mean()),
        "correlation": float(np.corrcoef(made[inside], real[inside])[0, 1]),
    }
    if not is_ct:
        return figures
    bones = [(image > BONE_HU) & inside for image in (made, real)]
    if bones[1].sum() < 200:
        return figures
    return {**figures, "Dice of bone": float(dice(*bones)), "Dice of bone, 1 voxel": found(*bones)}


def painted(image: Volume, is_ct: bool) -> np.ndarray:
    """The baseline: one value for each tissue."""
    if not is_ct:
        return np.array([0.0, 850.0, 300.0, 100.0])[np.digitize(image.array, (-300, -30, 180))]
    level = image.array / bright_end(image.array)
    return np.array([-1000.0, 50.0, -100.0])[np.digitize(level, (0.1, 0.45))]


def measure(model: str, is_ct: bool) -> dict[str, list[Figures]]:
    rows: dict[str, list[Figures]] = {model: [], "painted": []}
    for name, mr, ct in people():
        source = mr if is_ct else ct
        real = ct.array if is_ct else 1000 * mr.array / bright_end(mr.array)
        inside = field_of_view(mr.array)
        start = time.perf_counter()
        result = translate(source, to="CT" if is_ct else "T1w", model=model, device="cpu")
        seconds = time.perf_counter() - start
        made = compared(result.volume.array, real, inside, is_ct)
        rows[model].append({**made, "passed": float(result.report.passed), "seconds": seconds})
        rows["painted"].append(compared(painted(source, is_ct), real, inside, is_ct))
        target = ct if is_ct else mr
        images = {"Source": source, "Translation": result.volume, "Real image": target}
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{model}-{name}.png").write_bytes(translation_planes(images))
    return rows


def interval(values: list[float]) -> str:
    """Mean and its 95 % interval, by bootstrap over people; empty for a figure that a method lacks."""
    if not values:
        return ""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{np.mean(values):.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    models = sys.argv[1:3] or ["body-mr-to-ct", "body-ct-to-mr"]
    figures = {}
    for model, is_ct in zip(models, (True, False), strict=True):
        figures[model] = measure(model, is_ct)
        names = list(dict.fromkeys(name for row in figures[model][model] for name in row))
        rows = [
            [kind, *(interval([row[name] for row in cases if name in row]) for name in names)]
            for kind, cases in figures[model].items()
        ]
        print(f"\n### {model}\n\n{table(['', *names], rows)}")
    save("body", figures)


if __name__ == "__main__":
    main()
