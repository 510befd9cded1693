"""Quality of mr-brain on held-out slabs, unseen brains and partial masks.

    MEDGEN_DATA=<folder> python Testing/benchmarks/brain.py [--maps 14] [--side 96] [--whole]
    MEDGEN_DATA=<folder> python Testing/benchmarks/brain.py --people

Three tables, or with --people others alone: Dice of brain-segmenter in scans of the held-out people of
mr_t1_brain and in images made of their masks, as the output check finds it, their contrast, and FID.
*Slabs*: held-out coronal slabs of the two training scans, compared with the real image, *paint* (class means, blurred)
and *paint+noise*.
*Unseen brains*: a block of --side voxels of each label map of SynthSeg, which have no image; --whole adds the whole
first map, sampled in windows. *Partial masks*: the first map with some of its labels, the rest is "brain".
"""

from __future__ import annotations

import argparse
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checks import brains, wilson
from common import OUT, data_folder, save, table
from distribution import described_by
from patch_distance import feature_distance, split_floor
from scipy import ndimage
from texture import highpass_sd, local_sd, seed_sd

from MedGenLib import generate
from MedGenLib.evaluation.feature_networks import extractor
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.tissues import resegment
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.metrics import image as metrics
from MedGenLib.metrics.distribution import compare_cohorts
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.contrast import levels
from MedGenLib.pipelines.loading import network
from MedGenLib.training import config
from MedGenLib.training.data.brain import BrainScans, Landmarks, with_shell
from MedGenLib.visual import preview

MODEL = "mr-brain"
WHITE, CORTEX, FLUID, BRAIN = 1, 2, 15, 18
TISSUES = {FLUID: "CSF", CORTEX: "cortex", WHITE: "white matter"}
WHITES = ("white matter", "cerebellar white matter")
CORTICES = ("cortex", "cerebellar cortex")
FLUIDS = ("ventricle", "CSF")
LEVELS = {"thalamus": 6, "cortex": 2, "putamen": 8, "caudate": 7, "brain stem": 10, "CSF": FLUID}
FEATURES = "medgen-features"
PARTIAL = {
    "tissues": (*WHITES, *CORTICES, *FLUIDS, "brain stem"),
    "tissues without CSF": (*WHITES, *CORTICES, "ventricle", "brain stem"),
    "white matter": WHITES,
    "hippocampus": ("hippocampus",),
}
"""Labels of a partial mask in addition to "brain"."""


@lru_cache(maxsize=1)
def settings() -> dict[str, Any]:
    """Training configuration of the package, at the finest spacing."""
    read = config.read_config(Path(config.__file__).parent / "configs" / "mr-brain-first.json")
    read["data"]["spacings_mm"] = [1.0]
    return read


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    section = settings()["package"]["medgen"]["input"]
    return Vocabulary.from_dict(section["labels"], section["left_out"])


@lru_cache(maxsize=1)
def training_scans() -> list[Any]:
    return BrainScans(settings(), 48).scans


def slabs() -> dict[str, tuple[Volume, LabelMap]]:
    """Name -> (scan on the common intensity scale, labels) of the held-out slabs."""
    data, found = settings()["data"], {}
    marks = Landmarks(*(tuple(data["landmarks"][key]) for key in ("labels", "values")))
    for item in data["scans"]:
        volume = read_volume(config.resolve(settings(), item["image"]), modality="T1w")
        mask = read_label_map(config.resolve(settings(), item["label"]))
        mask, _ = map_labels(mask, vocabulary(), data["table"])
        values = marks.standardize(volume.array.astype(np.float32), mask.array)
        mask = mask.with_array(with_shell(values, mask.array, mask.spacing, FLUID))
        volume = volume.with_array(np.where(mask.array > 0, values, 0).astype(np.float32))
        first, last = item["held_out"]
        low, high = (0, 0, first), (*volume.shape[:2], last)
        found[item["subject"]] = crop(volume, low, high), crop(mask, low, high)
    return found


def maps(count: int, side: int | None) -> dict[str, LabelMap]:
    """SynthSeg's label maps with the labels of the model: a block around the center of the brain, or whole."""
    found = {}
    folder = data_folder() / "label_maps" / "synthseg"
    for path in sorted(folder.glob("*.nii.gz"))[:count]:
        mask, _ = map_labels(read_label_map(path), vocabulary(), "freesurfer")
        if side:
            # Without fluid, which extends far along the spine.
            inside = np.argwhere((mask.array > 0) & (mask.array != FLUID))
            low = np.maximum((inside.min(0) + inside.max(0)) // 2 - side // 2, 0)
            mask = crop(mask, low, np.minimum(low + side, mask.shape))
        found[path.name.split(".")[0]] = mask
    return found


def paint(labels: np.ndarray, noise: bool) -> np.ndarray:
    """Class means of the training scans, blurred by 0.7 voxel, with or without white noise.

    The noise has the SD of each class around a smoothed version of the real images.
    """
    means, sds = np.zeros(19), np.zeros(19)
    for value in range(1, 19):
        scans = [s for s in training_scans() if (s.labels == value).any()]
        means[value] = np.concatenate([s.values[s.labels == value] for s in scans]).mean()
        inner = np.concatenate([_residual(s.values)[s.labels == value] for s in scans])
        sds[value] = 1.4826 * np.median(np.abs(inner - np.median(inner)))
    painted = ndimage.gaussian_filter(means[labels], 0.7)
    if noise:
        painted += np.random.default_rng(0).normal(size=labels.shape) * sds[labels]
    return np.where(labels > 0, painted, 0)


def _residual(values: np.ndarray) -> np.ndarray:
    return values - ndimage.gaussian_filter(values, 2.0)


def tissues(image: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Dice of the three tissues by thresholds, their means and contrasts."""
    spec = find(MODEL).statistics.resegment
    found = np.where(np.isin(labels, list(TISSUES)), resegment(image, spec), 0)
    row: dict[str, float] = {}
    for value, name in TISSUES.items():
        row[f"Dice {name}"] = metrics.dice(found == value, labels == value)
        row[f"mean {name}"] = float(image[labels == value].mean())
    row["cortex / white matter"] = row["mean cortex"] / row["mean white matter"]
    row["CSF / white matter"] = row["mean CSF"] / row["mean white matter"]
    return row


def texture(image: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Local and high-pass SD in cortex and white matter, and the stripe index."""
    row = {}
    for value in (CORTEX, WHITE):
        where = labels == value
        row[f"local SD {TISSUES[value]}"] = local_sd(image, where)
        row[f"high-pass SD {TISSUES[value]}"] = highpass_sd(image, where)
    return {**row, "stripe index": metrics.stripe_index(image, labels)}


def slab_figures(name: str, real: Volume, mask: LabelMap, preset: str) -> dict[str, dict]:
    labels = mask.array
    made = [generate(mask, MODEL, seed=s, preset=preset, retries=0).volume for s in (1, 2)]
    preview.preview(mask, made[0], OUT / f"brain_{name}.png")
    preview.preview(mask, real, OUT / f"brain_{name}_real.png")
    candidates = {
        "real": real.array,
        MODEL: made[0].array,
        "paint": paint(labels, False),
        "paint+noise": paint(labels, True),
    }
    rows = {who: {**tissues(a, labels), **texture(a, labels)} for who, a in candidates.items()}
    for who, image in candidates.items():
        for key, high in (("FD", False), ("FD-hp", True)):
            rows[who][key] = (
                split_floor(real.array, labels > 0, highpass=high)
                if who == "real"
                else feature_distance(real.array, image, labels > 0, highpass=high)
            )
    rows[MODEL]["seed SD cortex, low-passed"] = seed_sd([v.array for v in made], labels == CORTEX, lowpass=1.5)
    rows[MODEL].update(autoencoder(real, mask))
    return rows


@torch.inference_mode()
def autoencoder(real: Volume, mask: LabelMap) -> dict[str, float]:
    """PSNR (range 110, the value of white matter) and the error with shuffled latent voxels."""
    manifest = find(MODEL)
    net = network(manifest, "autoencoder", torch.device("cpu"))
    codec = TissueStandard(manifest.settings.centers, manifest.settings.scales)
    cut = tuple(slice(0, n // 2 * 2) for n in mask.shape)
    values, labels = real.array[cut], mask.array[cut]
    brain = labels > 0
    x = np.where(brain, codec.encode(values, labels), 0).astype(np.float32)
    latent = net.encode(torch.from_numpy(x)[None, None])
    order = torch.randperm(latent[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = latent.flatten(2)[..., order].view(latent.shape)
    back, wrong = (codec.decode(net.decode(z)[0, 0].numpy(), labels) for z in (latent, shuffled))
    return {
        "autoencoder PSNR": metrics.psnr(values, back, brain, data_range=110),
        "MAE permuted / true latent": metrics.mae(values, wrong, brain) / metrics.mae(values, back, brain),
    }


def unseen(name: str, mask: LabelMap, preset: str) -> dict[str, Any]:
    start = time.perf_counter()
    result = generate(mask, MODEL, seed=1, preset=preset, retries=0)
    seconds = time.perf_counter() - start
    preview.preview(mask, result.volume, OUT / f"brain_{name}.png")
    image, labels = result.volume.array, mask.array
    return {
        **tissues(image, labels),
        **texture(image, labels),
        "passed": result.report.passed,
        "seam": result.report.attempts[0].check.figures.get("seam", float("nan")),
        "million voxels": labels.size / 1e6,
        "seconds": seconds,
    }


def partial(mask: LabelMap, preset: str) -> dict[str, dict]:
    """The same block with all and with some of its labels."""
    labels, rows, whole = mask.array, {}, None
    for name, kept in {"all labels": None, **PARTIAL}.items():
        given = labels
        if kept is not None:
            values = [vocabulary().value_of(k) for k in kept]
            given = np.where(np.isin(labels, [0, *values]), labels, BRAIN).astype(np.uint8)
        made = [generate(mask.with_array(given), MODEL, seed=s, preset=preset, retries=0) for s in (1, 2, 3)]
        image = made[0].volume.array
        whole = image if whole is None else whole
        stem = name.replace(" ", "_")
        preview.preview(mask.with_array(given), made[0].volume, OUT / f"brain_partial_{stem}.png")
        rows[name] = {
            "share specified": float((given[labels > 0] != BRAIN).mean()),
            "correlation with all labels": metrics.pearson(whole, image, labels > 0),
            "share below 52": float((image[labels > 0] < 52).mean()),
            "share above 90": float((image[labels > 0] > 90).mean()),
            "seed SD, low-passed": seed_sd([m.volume.array for m in made], labels > 0, lowpass=1.5),
            "passed": made[0].report.passed,
        }
    return rows


def people(preset: str) -> dict[str, Any]:
    """Figures of the output check of each held-out person, real scan and generated from its mask, and the cohorts'."""
    held = [name.split(",")[0] for name in find(MODEL).training.held_out if name.endswith(", held out")]
    rows, volumes = {}, {"real": {}, "generated": {}}
    for seed, real in enumerate(brains(), start=1):
        if real.name not in held:
            continue
        result = generate(real.given, MODEL, seed=seed, preset=preset, retries=0, device="cpu")
        found = {"real": (real.check(), real.image), "generated": (result.report.output_checks[0], result.volume)}
        rows[real.name] = {}
        for who, (check, volume) in found.items():
            volumes[who][real.name] = volume
            labels = real.given.array
            rows[real.name][who] = {
                "passed": check.passed,
                "dice": check.figures["segmented"],
                "levels": dict(zip(LEVELS, levels(volume.array, labels, LEVELS.values(), WHITE).tolist(), strict=True)),
                **spreads(volume.array, labels == WHITE),
            }
        print(real.name, rows[real.name], flush=True)
    return {"people": rows, "cohorts": cohorts(volumes)}


def spreads(image: np.ndarray, white: np.ndarray) -> dict[str, float]:
    """Noise and SD in white matter, relative to its median."""
    level = float(np.median(image[white]))
    return {"noise": noise_level(image, white) / level, "SD": float(image[white].std()) / level}


def cohorts(volumes: dict[str, dict[str, Volume]]) -> dict[str, Any]:
    """The distribution of the generated images beside that of the real ones."""
    real, generated = (list(volumes[who].items()) for who in ("real", "generated"))
    described = described_by(extractor(FEATURES, "cpu"), real + generated)
    return compare_cohorts(described[: len(real)], described[len(real) :]).to_dict()


def show_people(found: dict[str, Any]) -> None:
    """Mean Dice of each structure, the ratio of means with its interval by bootstrap over people, contrast, and FID."""
    rows, lines = found["people"], []
    draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
    structures = find(MODEL).statistics.segmenter.minimum_dice
    names = [vocabulary().names[value] for value in structures]
    both = {w: np.array([[row[w]["dice"][n] for n in names] for row in rows.values()]) for w in ("real", "generated")}
    for index, name in [*enumerate(names), (slice(None), "mean of these")]:
        real, made = (both[who][:, index].reshape(len(rows), -1).mean(1) for who in ("real", "generated"))
        low, high = np.percentile(made[draws].mean(1) / real[draws].mean(1), (2.5, 97.5))
        ratio = f"{made.mean() / real.mean():.3f} ({low:.3f} to {high:.3f})"
        means = [f"{dices.mean():.3f} ({dices.min():.3f})" for dices in (real, made)]
        lines.append([name, *means, ratio])
    print(f"\n### {len(rows)} people\n\n{table(['structure', 'real', 'generated', 'generated / real'], lines)}")
    for who in ("real", "generated"):
        failed = sum(not row[who]["passed"] for row in rows.values())
        low, high = wilson(failed, len(rows))
        print(f"{who}: {failed} of {len(rows)} fail, 95 % interval {100 * low:.0f} to {100 * high:.0f} %")
    lines = []
    for name in (*LEVELS, "noise", "SD"):
        cells = []
        for who in ("real", "generated"):
            values = [row[who][name] if name in row[who] else row[who]["levels"][name] for row in rows.values()]
            cells.append(f"{np.mean(values):.3f}, {np.std(values, ddof=1):.3f}")
        lines.append([f"{name} / white matter", *cells])
    print(f"\n{table(['mean, SD between people', 'real', 'generated'], lines)}\n")
    print("\n".join(measure["sentence"] for measure in found["cohorts"]["measures"]))


def show(title: str, columns: dict[str, dict[str, Any]]) -> None:
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    rows = [[key, *(column.get(key, "") for column in columns.values())] for key in keys]
    print(f"\n### {title}\n\n{table(['metric', *columns], rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=14)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--people", action="store_true")
    parser.add_argument("--preset", default="normal")
    chosen = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if chosen.people:
        found = people(chosen.preset)
        show_people(found)
        return save("brain_people", found)
    everything: dict[str, Any] = {}
    for name, (real, mask) in slabs().items():
        everything[name] = slab_figures(name, real, mask, chosen.preset)
        show(f"slab of {name}", everything[name])
    brains = maps(chosen.maps, chosen.side)
    rows = {}
    for name, mask in brains.items():
        rows[name] = unseen(name, mask, chosen.preset)
        print(name, {k: round(float(v), 3) for k, v in rows[name].items()}, flush=True)
    everything["unseen"] = rows
    summary = {
        key: {"mean": np.mean(values), "lowest": np.min(values), "highest": np.max(values)}
        for key in next(iter(rows.values()))
        for values in [[float(row[key]) for row in rows.values()]]
    }
    heads = ["metric", "mean", "lowest", "highest"]
    print(f"\n### {len(rows)} unseen brains\n")
    print(table(heads, [[k, *(float(v[h]) for h in heads[1:])] for k, v in summary.items()]))
    if chosen.whole:
        name, mask = next(iter(maps(1, None).items()))
        everything["whole"] = {name: unseen(f"{name}_whole", mask, chosen.preset)}
        show("a whole brain, in windows", everything["whole"])
    first = next(iter(brains.values()))
    everything["partial"] = partial(first, chosen.preset)
    show("partial masks", everything["partial"])
    save("brain", everything)


if __name__ == "__main__":
    main()
