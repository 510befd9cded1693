"""Artifacts of k-space in held-out T1w heads and brains, before and after `medgen enhance --task deghost`.

    MEDGEN_DATA=DATA python Testing/benchmarks/deghost.py [PEOPLE]

Held out are every fifth T1w head and brain, by sorted name; PEOPLE of each kind, all by default. PSNR, SSIM and error
are of the whole image, relative to the 99.5th percentile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from common import save, table
from enhance import MR, held_out
from skimage.metrics import structural_similarity

from MedGenLib import enhance
from MedGenLib.degradation.kspace import along, ghosts, ifft, motion, spectrum
from MedGenLib.enhancement.measures import noise_of


def turned(values: np.ndarray) -> np.ndarray:
    """Odd lines turned by 0.4 radians, as in echo-planar imaging."""
    lines = np.round(np.fft.fftfreq(values.shape[1]) * values.shape[1]).astype(int) % 2
    return np.abs(ifft(spectrum(values, 1) * along(np.exp(0.4j * lines), 1), 1)).astype(np.float32)


CASES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda values: values,
    "every 2nd line, 0.3 lost": lambda values: ghosts(values, 1, 2, 0.3),
    "every 4th line, 0.5 lost": lambda values: ghosts(values, 0, 4, 0.5),
    "odd lines turned": turned,
    "motion": lambda values: motion(values, (1.3, 1.3, 1.3), np.random.default_rng(1)),
}


def measured(truth: np.ndarray, made: np.ndarray) -> tuple[float, float, float]:
    """PSNR in dB, SSIM, and error."""
    top = float(np.percentile(truth, 99.5))
    error = float(np.sqrt(np.square(made - truth).mean())) / top
    psnr = float(-20 * np.log10(error)) if error else np.inf
    return psnr, float(structural_similarity(made, truth, data_range=top)), error


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else None
    people = [person for kind in reversed(MR) for person in held_out((kind,), "MR")[:most]]
    rows = []
    for name, spoil in CASES.items():
        for truth in people:
            given = spoil(truth.array)
            made = enhance(truth.with_array(given), task="deghost")
            before, after = (measured(truth.array, image) for image in (given, made.volume.array))
            noise = noise_of(truth.array) / float(np.percentile(truth.array, 99.5))
            found = (made.report.parameters["ghosts"] or {}).get("every_line", "none")
            pairs = (f"{a:.3g} -> {b:.3g}" for a, b in zip(before, after, strict=True))
            rows.append([name, *pairs, noise, found])
            print(rows[-1], flush=True)
    print(table(["Artifact", "PSNR dB", "SSIM", "error", "noise", "every line found"], rows))
    save("deghost", {"rows": rows})


if __name__ == "__main__":
    main()
