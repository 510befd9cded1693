"""Do inserted lesions teach a detector? Three detectors of sarcomas in CT: real lesions, inserted ones, both.

    MEDGEN_DATA=<folder> python Testing/benchmarks/detect.py [--out runs/detect] [--threads 1] [--steps 500]

Data: sts_sarcoma (41 people, CT, label 6 is the tumor). Every fifth person by name is kept out and measured once, at
the end; of the others every fifth is for choices (validation), the rest is for the training. Their volumes were cut
50 mm around the tumor by the source, so that its place gives it away: here each side loses a random part of that.
Inserted lesions: by `medgen cohort run` into soft tissue and fat of parts of the training people's CTs without a tumor,
and of open CTs of the torso. The detectors differ in their data only: same recipe, settings and number of steps. A
stopped run goes on when it is repeated. Masks of nodules are not at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import ROOT, data_folder, save, table
from scipy.ndimage import center_of_mass

from MedGenLib.cohort.manifest import write_cohort
from MedGenLib.imaging.volume import LabelMap, as_stored
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.metrics.froc import Hits, difference, sensitivity_at, with_interval

SOFT, TUMOR = 2, 6
ARMS = {"real": ("real",), "inserted": ("inserted",), "both": ("real", "inserted")}
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
MARGIN = 20
"""Most voxels that a side loses: 40 mm of 50 mm in the plane."""
TORSO_CROPS = 5
CONFIG = ROOT / "MedGenLib" / "training" / "configs" / "lesion-detector.json"


def people() -> tuple[list[Path], list[Path], list[Path]]:
    """Folders for training, validation and measurement."""
    everyone = sorted((data_folder() / "pairs_ct_mr" / "sts_sarcoma").glob("STS_*"))
    held, rest = everyone[4::5], [p for n, p in enumerate(everyone) if n % 5 != 4]
    return [p for n, p in enumerate(rest) if n % 5 != 4], rest[4::5], held


def cut(image, low, high):
    """The part from voxel `low` up to `high`."""
    low, high = (np.clip(end, 0, image.shape).astype(int) for end in (low, high))
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [*low, 1.0])[:3]
    array = np.ascontiguousarray(image.array[tuple(map(slice, low, high))])
    made = type(image)(array, affine)
    return made if isinstance(image, LabelMap) else as_stored(made.with_array(array, modality="CT", unit="HU"))


def read(folder: Path, labels: str):
    return as_stored(read_volume(folder / "ct.nii.gz", modality="CT")), read_label_map(folder / labels)


def write_pair(image, labels, folder: Path, name: str) -> None:
    for kind, part, end in (("imagesTr", image, "_0000.nii.gz"), ("labelsTr", labels, ".nii.gz")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_volume(part, folder / kind / f"{name}{end}")


def real(folder: Path, target: Path) -> None:
    """The case of a person, without a random part of the margins."""
    image, labels = read(folder, "labels.nii.gz")
    rng = np.random.default_rng(int(folder.name[4:]))
    inside = np.argwhere(labels.array == TUMOR)
    first, last = inside.min(axis=0), inside.max(axis=0) + 1
    most = np.round(MARGIN * 2 / np.array(image.spacing))
    low = np.minimum(np.round(rng.random(3) * most), first)
    high = image.shape - np.minimum(np.round(rng.random(3) * most), image.shape - last)
    tumor = labels.with_array((labels.array == TUMOR).astype(np.uint8))
    write_pair(cut(image, low, high), cut(tumor, low, high), target, folder.name)


def tumor_free(folder: Path):
    """The larger slab below or above the tumor."""
    image, labels = read(folder, "labels.nii.gz")
    slices = np.flatnonzero((labels.array == TUMOR).any(axis=(0, 1)))
    low, high = [0, 0, 0], list(image.shape)
    if slices[0] > image.shape[2] - 1 - slices[-1]:
        high[2] = slices[0] - 1
    else:
        low[2] = slices[-1] + 2
    return cut(image, low, high), cut(labels, low, high)


def sources(training: list[Path], home: Path) -> None:
    """Images without a lesion, their tissues, and the manifest of the cohort that inserts one into each."""
    rng, cases = np.random.default_rng(0), []
    parts = [(folder.name, *tumor_free(folder), rng.uniform(20, 45)) for folder in training]
    for folder in sorted((data_folder() / "ct_torso_open").iterdir()):
        image, labels = read(folder, "tissue.nii.gz")
        parts += [
            (f"{folder.name}_{n}", image, labels, np.exp(rng.uniform(*np.log((30, 110))))) for n in range(TORSO_CROPS)
        ]
    for name, image, labels, size in parts:
        places = np.argwhere((labels.array == SOFT) | (labels.array == 1))
        voxel = places[rng.integers(len(places))]
        if not name.startswith("STS"):
            around = [np.round((size / 2 + rng.uniform(10, 50, 3)) / image.spacing) for _ in range(2)]
            low = np.maximum(voxel - around[0], 0)
            image, labels = (cut(part, low, voxel + around[1]) for part in (image, labels))
            voxel = voxel - low
        labels = labels.with_array(np.where(labels.array == 5, 4, labels.array).astype(np.uint8))
        write_volume(image, home / f"{name}.nii.gz")
        write_volume(labels, home / f"{name}_tissue.nii.gz")
        cases.append(
            {
                "id": name,
                "inputs": {"image": f"{name}.nii.gz", "labels": f"{name}_tissue.nii.gz"},
                "seed": int(rng.integers(2**31)),
                "parameters": {
                    "at": [round(float(x), 2) for x in (image.affine @ [*voxel, 1.0])[:3]],
                    "size_mm": round(float(size), 1),
                    "shape": str(rng.choice(["lobulated", "ellipsoid"])),
                    "contrast": round(float(rng.uniform(-40, -4)), 1),
                    "texture": str(rng.choice(["solid", "mixed", "necrotic"])),
                    "mass_effect": round(float(rng.uniform(0, 0.6)), 2),
                },
            }
        )
    shared = {"label": "soft tissue", "model": "ct-tissue", "preset": "draft", "device": "cpu", "modality": "CT"}
    data = {"cohort": "sarcomas", "verb": "insert-lesion", "dataset": True, "parameters": shared, "cases": cases}
    write_cohort(home / "lesions.yaml", data)


def medgen(*words: object, threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "MedGenLib", *map(str, words)], check=True, env=environment)


def prepare(out: Path, threads: int) -> None:
    """Data sets of all arms, in nnU-Net's layout."""
    if (out / "ready").exists():
        return
    training, validation, _ = people()
    for folder in training:
        real(folder, out / "real")
    for folder in validation:
        real(folder, out / "validation")
    home = out / "sources"
    if not (home / "lesions.yaml").exists():
        home.mkdir(parents=True, exist_ok=True)
        sources(training, home)
    medgen("cohort", "run", home / "lesions.yaml", "-o", out / "cohort", threads=threads)
    for arm, parts in ARMS.items():
        for part in (*parts, "validation"):
            origin = out / "cohort" / "dataset" if part == "inserted" else out / part
            for kind in ("imagesTr", "labelsTr"):
                for path in (origin / kind).iterdir():
                    target = out / "data" / arm / kind / f"{part}_{path.name}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
    (out / "ready").touch()


def train(arm: str, out: Path, steps: int, threads: int) -> str:
    """Train and install the detector of an arm; its name."""
    name = f"sarcoma-{arm}"
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    folder = out / "data" / arm
    config["data"] |= {
        "folder": str(folder.resolve()),
        "hold_out": sorted(p.name for p in (folder / "imagesTr").glob("validation_*")),
    }
    config["optimisation"]["segmenter"]["steps"] = steps
    config["package"]["metadata"]["name"] = name
    config["package"] |= {"license_text": "CC-BY-3.0"}
    (out / f"{arm}.json").write_text(json.dumps(config, indent=2))
    medgen(
        "train",
        "segmenter",
        "--data",
        out / f"{arm}.json",
        "--out",
        out / "trained" / arm,
        "--device",
        "cpu",
        threads=threads,
    )
    if not (out / "home" / "models" / name).exists():
        medgen("models", "add", out / "trained" / arm / "package" / name, threads=threads)
    return name


def found(name: str, folder: Path, case: str) -> Hits:
    """What a detector finds in an image, and what it hits."""
    from MedGenLib.detection import LEAST_SCORE, Peak, detect, hits

    image = read_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", modality="CT")
    labels = read_label_map(folder / "labelsTr" / f"{case}.nii.gz")
    made = detect(image, model=name, threshold=LEAST_SCORE, device="cpu")
    inverse, ones = np.linalg.inv(labels.affine), []
    for one in made.candidates:
        left, posterior, superior = one.position_lps
        index = np.round((inverse @ [-left, -posterior, superior, 1])[:3]).astype(int)
        ones.append(Peak(one.score, tuple(np.clip(index, 0, np.array(labels.shape) - 1)), made.labels.array > 0))
    return hits(ones, labels.array)


def measured(cases: dict[str, list[Hits]]) -> list[list[object]]:
    """Sensitivities of each detector at several rates, with the interval at one false positive a volume."""
    rows = []
    for arm, one in cases.items():
        value, limits = with_interval(one)
        rows.append([arm, *(sensitivity_at(one, rate) for rate in RATES), "{:.2f} to {:.2f}".format(*limits)])
    return rows


def baselines(folder: Path) -> tuple[float, float]:
    """Share of cases whose tumor holds the center of the volume, and mean share of tumor in soft tissue and fat."""
    center, share = [], []
    for path in sorted((folder / "labelsTr").iterdir()):
        tumor = read_label_map(path).array > 0
        image = read_volume(folder / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"), modality="CT").array
        center.append(bool(tumor[tuple(n // 2 for n in tumor.shape)]))
        share.append(tumor.sum() / ((image > -200) & (image < 150)).sum())
        print(path.name, "tumor at", np.round(np.divide(center_of_mass(tumor), tumor.shape), 2), f"{share[-1]:.3f}")
    return float(np.mean(center)), float(np.mean(share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "detect")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--validation", action="store_true", help="measure on the people for choices, not the kept-out")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ["MEDGEN_HOME"] = str(out / "home")
    prepare(out, arguments.threads)
    names = {arm: train(arm, out, arguments.steps, arguments.threads) for arm in ARMS}
    _, validation, held = people()
    chosen, folder = (validation, out / "validation") if arguments.validation else (held, out / "held")
    for person in chosen if not folder.exists() else ():
        real(person, folder)
    cases = {arm: [found(name, folder, person.name) for person in chosen] for arm, name in names.items()}
    heads = ["trained on", *(f"sensitivity at {rate:g} false positives a volume" for rate in RATES), "95 % at 1"]
    rows = measured(cases)
    print(table(heads, rows))
    gains = {f"{arm} - real": difference(cases["real"], cases[arm]) for arm in ("both", "inserted")}
    for name, (value, (low, high)) in gains.items():
        print(f"{name} at 1 false positive a volume: {value:+.2f} (95 % interval {low:+.2f} to {high:+.2f})")
    center, share = baselines(folder)
    print(
        f"without a detector: the center of the volume hits {center:.2f} of the tumors, a random point of soft tissue "
        f"or fat {share:.3f}"
    )
    save("detect", {"rows": rows, "gains": gains, "center": center, "share": share, "cases": len(chosen)})


if __name__ == "__main__":
    main()
