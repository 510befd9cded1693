"""Utility of synthetic hippocampi for training a segmenter: real, synthetic, and both, tested on real.

    MEDGEN_DATA=<folder> python Testing/benchmarks/utility.py [--steps 300] [--repeats 3]

Real: the training cases of mr-hippocampus. Synthetic: one image for each of their masks, with the
preset "normal" and no retries, so no image is selected. Test: the held-out cases. Existing images are
not generated again. The metrics are computed by `medgen evaluate utility`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from common import OUT, data_folder
from tqdm import tqdm

from MedGenLib import cli, generate
from MedGenLib.io.files import write_volume
from MedGenLib.packages.catalogue import find

MODEL = "mr-hippocampus"
FIRST_SEED = 20_000
"""First seed; the metrics of the model cards use seeds from 1 on."""


def prepare(folder: Path) -> None:
    """Write the folders real, synthetic and test, each with `images` and `labels`."""
    source = data_folder() / "mr_hippocampus_msd"
    names = sorted(path.name for path in (source / "images").glob("*.nii.gz"))
    held_out = set(find(MODEL).training.held_out)
    for name in names:
        _copy(source, folder / ("test" if name in held_out else "real"), name)
    training = [name for name in names if name not in held_out]
    (folder / "synthetic" / "images").mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(tqdm(training, "generating"), FIRST_SEED):
        target = folder / "synthetic" / "images" / name
        if target.exists():
            continue
        mask = source / "labels" / name
        write_volume(generate(mask, MODEL, seed=seed, retries=0).volume, target)
        _copy(source, folder / "synthetic", name, ("labels",))


def _copy(source: Path, target: Path, name: str, parts: tuple[str, ...] = ("images", "labels")) -> None:
    for part in parts:
        (target / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part / name, target / part / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prepare", action="store_true", help="generate the images only")
    arguments = parser.parse_args()
    folder = OUT / "utility"
    prepare(folder)
    if arguments.prepare:
        return
    words = ["evaluate", "utility", "--overwrite", "--report", str(folder / "report")]
    for part in ("real", "synthetic", "test"):
        words += [f"--{part}", str(folder / part)]
    words += ["--steps", str(arguments.steps), "--repeats", str(arguments.repeats)]
    sys.exit(cli.main(words))


if __name__ == "__main__":
    main()
