"""Artifacts of k-space in held-out T1w heads and brains, before and after `medgen enhance --task deghost`.

    MEDGEN_DATA=DATA python Testing/benchmarks/deghost.py [PEOPLE]

Held out are every fifth T1w head and brain, by sorted name; PEOPLE of each kind, all by default. Brains are stripped
after the artifact, as a user would do. Motion is that of `kspace.motion`, another one for each person. PSNR, error of
gradients and intervals are those of `enhance.py`, in the foreground; SSIM is of the whole image, relative to the
99.5th percentile. The change is the root mean square difference from the input, as a share of its range.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import SimpleITK
from common import in_process, save, table
from enhance import MR, compared, filtered, held_out, interval
from scipy import ndimage
from skimage.metrics import structural_similarity

from MedGenLib import devices, enhance
from MedGenLib.degradation.kspace import along, ghosts, ifft, motion, spectrum, spikes
from MedGenLib.degradation.noise import rician
from MedGenLib.enhancement.measures import share_of_range
from MedGenLib.imaging.volume import Volume

Spoil = Callable[[Volume, np.random.Generator], np.ndarray]


def turned(truth: Volume, _rng: np.random.Generator) -> np.ndarray:
    """Odd lines turned by 0.4 radians, as in echo-planar imaging."""
    values = truth.array
    lines = np.round(np.fft.fftfreq(values.shape[1]) * values.shape[1]).astype(int) % 2
    return np.abs(ifft(spectrum(values, 1) * along(np.exp(0.4j * lines), 1), 1)).astype(np.float32)


def moved(size: float, moves: int, truth: Volume, rng: np.random.Generator) -> np.ndarray:
    """Moves of this SD in mm and degrees."""
    axis = int(rng.integers(3))
    return motion(truth.array, truth.spacing, rng, axis, moves, size, size)


def noisy(truth: Volume, rng: np.random.Generator) -> np.ndarray:
    return rician(truth.array, 0.06 * float(np.median(truth.array[truth.array > 0])), rng)


CASES: dict[str, Spoil] = {
    "clean": lambda truth, _: truth.array,
    "noise": noisy,
    "every 2nd line, 0.3 lost": lambda truth, _: ghosts(truth.array, 1, 2, 0.3),
    "odd lines turned": turned,
    "spike": lambda truth, rng: spikes(truth.array, rng, 0.1),
    "motion, mild (2 moves, 1 mm, 1 degree)": partial(moved, 1.0, 2),
    "motion, moderate (2 moves, 2 mm, 2 degrees)": partial(moved, 2.0, 2),
    "motion, severe (4 moves, 4 mm, 4 degrees)": partial(moved, 4.0, 4),
}


def figures(truth: Volume, given: Volume, made: np.ndarray) -> dict[str, float]:
    top = float(np.percentile(truth.array, 99.5))
    known = {name: value for name, value in compared(truth, made).items() if name in ("PSNR dB", "gradient error")}
    ssim = float(structural_similarity(made, truth.array, data_range=top))
    return {**known, "SSIM": ssim, "change": share_of_range(made, given.array, given.array)}


def person(truth: Volume, name: str, seed: int, is_stripped: bool) -> dict[str, dict[str, float]]:
    """Method -> figures."""
    spoiled = CASES[name](truth, np.random.default_rng(seed))
    given = truth.with_array(np.where(truth.array > 0, spoiled, 0) if is_stripped else spoiled)
    result = enhance(given, task="deghost")
    made = {"before": given.array, "medgen": result.volume.array}
    if "motion" in name:
        step = 0.9 * min(truth.spacing) / 16
        made["median 3"] = ndimage.median_filter(given.array, 3)
        made["curvature anisotropic diffusion"] = filtered(
            given, lambda image: SimpleITK.CurvatureAnisotropicDiffusion(image, step, 1.0, 1, 5)
        )
    found = {method: figures(truth, given, image) for method, image in made.items()}
    found["medgen"]["changed"] = result.report.parameters["ghosts"] is not None
    return found


def rows(name: str, people: list[dict[str, dict[str, float]]]) -> list[list]:
    """A row a method: means with intervals, and how many images were changed."""
    rng, lines = np.random.default_rng(0), []
    for method in people[0]:
        shown = [interval([one[method][key] for one in people], rng) for key in ("PSNR dB", "SSIM", "gradient error")]
        pairs = [(one[method], one["before"]) for one in people]
        gains = [made["PSNR dB"] - before["PSNR dB"] if made["change"] else 0.0 for made, before in pairs]
        change = interval([one[method]["change"] for one in people], rng)
        changed = sum(one[method]["changed"] for one in people) if method == "medgen" else ""
        lines.append([name, method, shown[0], interval(gains, rng), *shown[1:], change, changed])
    return lines


def speed() -> dict[str, float]:
    """Seconds and peak memory of 256 x 256 x 128 voxels."""
    i, j, k = np.indices((256, 256, 128), np.float32) - np.array([128, 128, 64], np.float32)[:, None, None, None]
    folds = ndimage.zoom(np.random.default_rng(0).random((64, 64, 32), np.float32), 4, order=1)
    head = 400 * ((i / 90) ** 2 + (j / 110) ** 2 + (k / 60) ** 2 < 1) * (0.5 + folds)
    volume = Volume(motion(head, (1, 1, 1), np.random.default_rng(0)), np.eye(4), "T1w")
    start = time.perf_counter()
    enhance(volume, task="deghost")
    return {"seconds": time.perf_counter() - start, "MiB": devices.peak_memory_mib()}


def main() -> None:
    if "--child" in sys.argv:
        import json

        print(json.dumps(speed()))
        return
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    most = int(sys.argv[1]) if len(sys.argv) > 1 else None
    people = [(truth, kind is MR[0]) for kind in reversed(MR) for truth in held_out((kind,), "MR")[:most]]
    found = {}
    for name in CASES:
        found[name] = [person(truth, name, seed, stripped) for seed, (truth, stripped) in enumerate(people)]
        heads = ["Artifact", "image", "PSNR dB", "gain dB", "SSIM", "gradient error", "change", "changed"]
        print(table(heads, rows(name, found[name])), flush=True)
    found["speed"] = in_process(__file__, "speed", 2)
    print(found["speed"])
    save("deghost", found)


if __name__ == "__main__":
    main()
