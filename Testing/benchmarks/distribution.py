"""Sensitivity, confidence intervals and speed of the distribution metrics.

    MEDGEN_DATA=<folder> python Testing/benchmarks/distribution.py [--features medgen-features]
        [--only faults|interval|copies|speed|hippocampus ...]

- faults: FID between two halves of a real cohort, the second degraded by blur, noise, stripes ...
  of increasing strength, as a multiple of the FID without degradation, for medgen-features and the
  same network with random weights. The cohorts are held out: hippocampus crops (MR), blocks of
  open_ms patient26 (T1w), blocks of the held-out chest slices of LIDC-IDRI-0314 (CT).
- interval: 200 simulated pairs of cohorts with known Frechet distance: bias of FID and of FID
  infinity, and the share of 95 % intervals that cover the true value.
- copies: copies of training crops among unseen real crops, and how many are detected.
- speed: 50 against 50 volumes of 64^3 from the cache, and one FID computed by MONAI.
- hippocampus: mr-hippocampus on the masks of its 40 held-out cases against their real images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import OUT, data_folder, save, table
from scipy import ndimage

from MedGenLib import generate
from MedGenLib.evaluation.cohorts import evaluate_cohorts
from MedGenLib.evaluation.feature_networks import PackageExtractor, extractor
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.provenance import Provenance, Source
from MedGenLib.metrics import distribution
from MedGenLib.metrics.features import Extractor, Features, describe
from MedGenLib.metrics.memorization import find_memorized
from MedGenLib.metrics.slices import Standard
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network

STRENGTHS = (0.2, 0.4, 0.8)
Cohort = list[tuple[str, Volume]]


class RandomWeights(PackageExtractor):
    """The same network with random weights, its levels scaled alike."""

    def __init__(self, package: PackageExtractor, like: Cohort) -> None:
        super().__init__(package.manifest, package.device)
        self.name = "random weights"
        torch.manual_seed(0)
        trained = network(self.manifest, "encoder", self.device)
        self.net = type(trained)(**trained.arguments).eval().requires_grad_(False)
        described = described_by(self, like)
        self.net.standardize(torch.from_numpy(np.concatenate(stacked(described))))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.net(torch.from_numpy(images)[:, None]).numpy()


def described_by(extract: Extractor, volumes: Cohort, cache: bool = False) -> list[Features]:
    standard = Standard.set_by(volumes[0][1], volumes[0][0])
    return [describe(volume, name, standard, extract, cache) for name, volume in volumes]


def stacked(described: list[Features]) -> list[np.ndarray]:
    return [np.concatenate([f.planes[p] for f in described]) for p in range(3)]


def fid(first: list[Features], second: list[Features]) -> float:
    return distribution.fid(stacked(first), stacked(second))


# held-out data


def hippocampi(data: Path) -> Cohort:
    folder = data / "mr_hippocampus_msd" / "images"
    return [(p.name, read_volume(p, modality="T1w")) for p in sorted(folder.glob("*.nii.gz"))]


def blocks(volume: Volume, size: int, least: float) -> Cohort:
    """Cubes of a volume in which more than half of the voxels are above `least`."""
    found = []
    for start in np.ndindex(*(n // size for n in volume.shape)):
        corner = np.multiply(start, size)
        block = crop(volume, corner, corner + size)
        if (block.array > least).mean() > 0.5:
            found.append((f"block {start}", block))
    return found


def held_out_cohorts(data: Path) -> dict[str, Cohort]:
    t1 = read_volume(data / "mr_brain_labels/open_ms_patient26/t1.nii.gz", modality="T1w")
    ct = read_volume(data / "ct_torso_with_masks/lidc_idri_0314/ct.nii.gz", modality="CT")
    chest = crop(ct, (0, 0, 97), ct.shape)
    return {
        "hippocampus MR": hippocampi(data)[:80],
        "brain T1w, 32^3": blocks(t1, 32, float(np.percentile(t1.array, 50))),
        "chest CT, 32^3": blocks(chest, 32, -950),
    }


# degradations in three dimensions, relative to the standard deviation of the volume


def degraded(volume: Volume, kind: str, strength: float) -> Volume:
    """The volume with a degradation of `FAULTS` of the given strength, 0 to 1."""
    array, sd = volume.array.astype(np.float32), float(volume.array.std())
    generator = np.random.default_rng(0)
    if kind == "blur":  # sigma in voxels
        array = ndimage.gaussian_filter(array, 2 * strength)
    elif kind == "noise":
        array = array + 0.5 * strength * sd * generator.standard_normal(array.shape)
    elif kind == "stripes":  # every second slice brighter
        array = array + 0.25 * strength * sd * (-1.0) ** np.arange(array.shape[0])[:, None, None]
    elif kind == "thick slices":
        thick = round(1 + 4 * strength)
        array = np.repeat(ndimage.uniform_filter1d(array, thick, 2)[:, :, ::thick], thick, 2)
        array = array[:, :, : volume.shape[2]]
    elif kind == "painted":  # keeps edges, removes texture
        array = ndimage.median_filter(array, 3 + 2 * round(2.5 * strength))
    else:  # contrast
        array = array.mean() + (1 + strength) * (array - array.mean())
    return volume.with_array(np.ascontiguousarray(array, np.float32))


FAULTS = ("blur", "noise", "stripes", "thick slices", "painted", "contrast")


def faults(extract: PackageExtractor, data: Path) -> dict:
    cohorts = held_out_cohorts(data)
    rows, figures = [], {}
    for name, volumes in cohorts.items():
        order = np.random.default_rng(1).permutation(len(volumes))
        first, second = ([volumes[i] for i in order[s::2]] for s in (0, 1))
        for network_ in (extract, RandomWeights(extract, first)):
            real, other = described_by(network_, first), described_by(network_, second)
            base = fid(real, other)
            for kind in FAULTS:
                ratios = [
                    fid(real, described_by(network_, [(n, degraded(v, kind, s)) for n, v in second])) / base
                    for s in STRENGTHS
                ]
                figures[f"{name}, {kind}, {network_.name}"] = ratios
                shown = " / ".join(f"{r:.3g}" for r in ratios)
                increases = all(a < b for a, b in zip([1.0, *ratios], ratios, strict=False))
                rows.append([f"{name} ({len(volumes)})", kind, network_.name, shown, increases])
    print(
        table(["cohort (volumes)", "degradation", "network", "FID / real-real at 0.2 / 0.4 / 0.8", "increases"], rows)
    )
    return figures


# confidence intervals


def simulated(count: int, sd: float, generator: np.random.Generator, features: int = 16) -> list[Features]:
    """Volumes whose slices share half of their variance; mean 0, standard deviation `sd`."""
    cube = np.zeros((1, 1, 1), np.float32)
    made = []
    for number in range(count):
        own = generator.normal(size=(3, 1, features)) + generator.normal(size=(3, 12, features))
        made.append(Features(str(number), tuple(sd * own / np.sqrt(2)), cube))
    return made


def interval(repeats: int = 200, count: int = 40) -> dict:
    """Cohorts of equal and of different SD; the true distance is 16 (sd - 1)^2 in every plane."""
    figures, rows = {}, []
    for sd in (1.0, 1.3):
        truth = 16 * (sd - 1) ** 2
        raw, limit, covered = [], [], 0
        for seed in range(repeats):
            generator = np.random.default_rng(seed)
            pair = simulated(count, 1, generator), simulated(count, sd, generator)
            measures = {m.name: m for m in distribution.compare_cohorts(*pair, seed=seed).measures}
            found = measures["FID infinity"]
            raw.append(measures["FID"].value)
            limit.append(found.value)
            covered += found.low <= truth <= found.high
        figures[f"SD {sd}"] = row = {
            "truth": truth,
            "mean FID": float(np.mean(raw)),
            "mean FID infinity": float(np.mean(limit)),
            "its SD": float(np.std(limit)),
            "interval covers truth": covered / repeats,
        }
        rows.append([sd, *row.values()])
    print(table(["SD", *row], rows))
    return figures


# memorized images


def copies(extract: PackageExtractor, data: Path) -> dict:
    """100 training crops, 60 other real crops, 48 unseen ones, and 10 copies of each kind."""
    volumes = hippocampi(data)
    order = np.random.default_rng(2).permutation(len(volumes))
    training, real, unseen = ([volumes[i] for i in order[a:b]] for a, b in ((0, 100), (100, 160), (160, 208)))
    kinds: dict[str, Callable[[Volume], Volume]] = {
        "unseen real crops": lambda v: v,
        "exact copy": lambda v: v,
        "noise, 10 % of SD": lambda v: degraded(v, "noise", 0.2),
        "noise, 40 % of SD": lambda v: degraded(v, "noise", 0.8),
        "blur, sigma 0.8": lambda v: degraded(v, "blur", 0.4),
        "1.2 times as bright": lambda v: v.with_array(1.2 * v.array),
        "shifted by one voxel": lambda v: v.with_array(np.roll(v.array, 1, axis=(0, 1))),
        "mirrored": lambda v: v.with_array(np.ascontiguousarray(v.array[::-1])),
    }
    known, others = described_by(extract, training), described_by(extract, real)
    rows, figures = [], {}
    for kind, change in kinds.items():
        source = unseen if kind.startswith("unseen") else training[:10]
        images = described_by(extract, [(n, change(v)) for n, v in source])
        found = find_memorized(images, known, others)
        figures[kind] = len(found.copies) / len(images)
        rows.append(
            [kind, f"{len(found.copies)} of {len(images)}", float(np.median([n.correlation for n in found.neighbors]))]
        )
    print(table(["images", "reported as copies", "median correlation"], rows))
    return figures


# speed


def smooth_noise(count: int, size: int = 64) -> Iterator[Volume]:
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(size=(size,) * 3).astype(np.float32)
        array = 1000 + 400 * ndimage.gaussian_filter(noise, 2) / 0.05
        yield Volume(array.astype(np.float32), np.eye(4), "T1w")


def speed(features: str) -> dict:
    """Seconds of the whole comparison with intervals, including reading, without and with the cache."""
    from monai.metrics.fid import get_fid_score

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MEDGEN_HOME"] = str(Path(temporary) / "home")
        extract = extractor(features, "cpu")
        folders = [Path(temporary) / name for name in ("real", "synthetic")]
        for number, volume in enumerate(smooth_noise(100)):
            folder = folders[number // 50]
            folder.mkdir(exist_ok=True)
            write_volume(volume, folder / f"{number}.nii.gz")
        seconds = {}
        for name in ("first run", "from the cache"):
            start = time.perf_counter()
            result = evaluate_cohorts(folders[1], folders[0], features=features, device="cpu")
            seconds[name] = time.perf_counter() - start
        planes = [stacked(result.cohorts[name]) for name in ("synthetic", "real")]
        start = time.perf_counter()
        for fake, real in zip(*planes, strict=True):
            get_fid_score(torch.from_numpy(fake), torch.from_numpy(real))
        seconds["one FID by MONAI"] = time.perf_counter() - start
        start = time.perf_counter()
        distribution.fid(*planes)
        seconds["one FID by MedGen"] = time.perf_counter() - start
    seconds["MONAI / MedGen"] = seconds["one FID by MONAI"] / seconds["one FID by MedGen"]
    print(f"{extract.name}, {torch.get_num_threads()} threads")
    print(table(list(seconds), [list(seconds.values())]))
    return seconds


# an embedded model


def hippocampus(features: str, data: Path) -> dict:
    """Masks of the held-out cases, two seeds each; the training images are used to detect copies."""
    manifest = find("mr-hippocampus")
    held_out = set(manifest.training.held_out)
    source = data / "mr_hippocampus_msd"
    folders = {name: OUT / "cohorts" / name for name in ("real", "synthetic", "training")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((source / "images").glob("*.nii.gz")):
        kind = "real" if path.name in held_out else "training"
        target = folders[kind] / path.name
        if not target.exists():
            target.symlink_to(path)
    for path in sorted(folders["real"].iterdir()):
        for seed in (1, 2):
            target = folders["synthetic"] / path.name.replace(".nii.gz", f"_{seed}.nii.gz")
            mask = read_label_map(source / "labels" / path.name)
            if not target.exists():
                result = generate(mask, "mr-hippocampus", seed=seed, device="cpu")
                write_volume(result.volume, target)
            mask_facts = (Source.of("mask", mask, path),)  # identifies seeds of the same mask
            Provenance(model="mr-hippocampus", seed=seed, inputs=mask_facts).write_beside(target)
    result = evaluate_cohorts(folders["synthetic"], folders["real"], folders["training"], features, device="cpu")
    for name, text in result.files().items():
        (OUT / "cohorts" / name).write_text(text, encoding="utf-8")
    rows = [[m.name, m.value, m.low, m.high] for m in result.comparison.measures]
    print(table(["metric", "value", "95 % from", "to"], rows))
    print(result.memorization.note)
    return result.to_dict()


def main() -> None:
    names = ("faults", "interval", "copies", "speed", "hippocampus")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", default="medgen-features")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    data, extract = data_folder(), extractor(arguments.features, "cpu")
    runs = {
        "faults": lambda: faults(extract, data),
        "interval": interval,
        "copies": lambda: copies(extract, data),
        "hippocampus": lambda: hippocampus(arguments.features, data),
        "speed": lambda: speed(arguments.features),
    }
    for name, run in runs.items():
        if name in arguments.only:
            print(f"\n## {name}\n", flush=True)
            save(f"distribution-{name}", run())


if __name__ == "__main__":
    main()
