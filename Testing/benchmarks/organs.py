"""HU and texture of organs: the real scan, ct-tissue on tissues alone, and ct-tissue with organs.

    MEDGEN_DATA=<folder> python Testing/benchmarks/organs.py [--preset draft] [--seeds 2]

The abdomen of TotalSegmentator with its 41 labels, at 3 mm; the outline of the body is that of the scan, the rest of it
is filled by rule in all images. "tissues" maps the labels to the four tissues and forgets their names, as versions
before 1.2 did. HU are medians of the interior. "local SD" is the median over the interior of the standard deviation in
3 x 3 x 3 voxels. FD is that of `patch_distance` inside the body; "features" is the mean over planes of the distance of
mean features of medgen-features, relative to that of the painted organs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
from common import OUT, data_folder, save, table
from numpy.typing import NDArray
from patch_distance import feature_distance, split_floor
from scipy import ndimage

from MedGenLib import generate
from MedGenLib.evaluation.feature_networks import extractor
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.organs import PHASES, organ_of
from MedGenLib.metrics.features import describe
from MedGenLib.metrics.image import dice
from MedGenLib.metrics.slices import Standard
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.model_labels import model_labels
from MedGenLib.pipelines.organ_levels import FEWEST_VOXELS

MODEL = "ct-tissue"
SHOWN = ("real", "tissues", "organs")


def interior(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ndimage.minimum_filter(inside, 3, mode="nearest")


def local_sd(image: NDArray) -> NDArray[np.float64]:
    image = image.astype(np.float64)
    mean = ndimage.uniform_filter(image, 3)
    return np.sqrt(np.clip(ndimage.uniform_filter(image**2, 3) - mean**2, 0, None))


def features(images: dict[str, Volume]) -> dict[str, float]:
    """Distance of mean features from those of the real scan."""
    standard, extract = Standard.set_by(images["real"], "real"), extractor(device="cpu")
    vectors = {who: describe(image, who, standard, extract, cache=False).vector for who, image in images.items()}
    return {who: float(np.linalg.norm(vector - vectors["real"])) for who, vector in vectors.items()}


def painted(mask: LabelMap, labels: LabelMap, levels: dict[str, float], ct: Volume) -> Volume:
    """The levels of the organs and the middles of the tissues, blurred by 0.7 voxel."""
    centers = np.array(find(MODEL).settings.centers, np.float32)
    array = centers[labels.array]
    for value, name in mask.names.items():
        if name in levels:
            array[mask.array == value] = levels[name]
    return ct.with_array(np.where(labels.array > 0, ndimage.gaussian_filter(array, 0.7), -1000))


def levels_in(mask: LabelMap, image: NDArray, names: Iterable[str]) -> dict[str, float]:
    """Medians of the interiors by name."""
    insides = {
        mask.names[value]: interior(mask.array == value) for value in mask.values() if mask.names[value] in names
    }
    return {name: float(np.median(image[i])) for name, i in insides.items() if np.count_nonzero(i) >= FEWEST_VOXELS}


def of_organs(mask: LabelMap, images: dict[str, NDArray], wanted: dict[str, float]) -> list[list]:
    """Rows of HU and of the local SD relative to the real scan."""
    deviations = {who: local_sd(image) for who, image in images.items()}
    rows = []
    for value in mask.values():
        name, inside = mask.names[value], interior(mask.array == value)
        if name in wanted and np.count_nonzero(inside) >= FEWEST_VOXELS:
            levels = [float(np.median(images[who][inside])) for who in SHOWN]
            texture = {who: float(np.median(deviations[who][inside])) for who in images}
            ratios = [texture[who] / texture["real"] for who in ("tissues", "organs")]
            rows.append([name, round(wanted[name]), *map(round, levels), *ratios])
    return rows


def measure(preset: str, seed: int) -> dict:
    folder = data_folder() / "ct_torso_with_masks" / "totalseg_abdomen"
    ct = read_volume(folder / "ct.nii.gz", modality="CT")
    mask = read_label_map(folder / "seg.nii.gz")
    options = {"seed": seed, "preset": preset, "retries": 0}
    after = generate(mask, MODEL, body_from=ct, **options)
    plain, _, _ = model_labels(mask, find(MODEL), None, None, ct)
    before = generate(plain, MODEL, **options)
    wanted = _wanted(mask, after.report.parameters["contrast"][str(seed)])
    own = {name: round(level) for name, level in levels_in(mask, ct.array, wanted).items() if abs(level) < 200}
    like = generate(mask, MODEL, body_from=ct, hu=own, **options)
    real = ct.with_array(np.where(plain.array > 0, np.clip(ct.array, -1024, 3071), -1000).astype(np.float32))
    images = {"real": real, "tissues": before.volume, "organs": after.volume, "organs, HU of the scan": like.volume}
    images["painted"] = painted(mask, plain, wanted, ct)
    body = plain.array > 0
    distance = {
        who: feature_distance(real.array, image.array, body) if who != "real" else split_floor(real.array, body)
        for who, image in images.items()
    }
    rows = of_organs(mask, {who: image.array for who, image in images.items() if who in SHOWN}, wanted)
    return {
        "organs": rows,
        "FD": distance,
        "features": features(images),
        "passed": {"tissues": before.report.passed, "organs": after.report.passed},
        "levels of phases": phases(mask, ct, options),
        "filling": filling(mask, ct),
    }


def _wanted(mask: LabelMap, drawn: dict[str, float]) -> dict[str, float]:
    """HU of the labels by name, but of those with a wall or a cortex of other HU, which the interior has a part of."""
    found = {}
    for name in mask.names.values():
        organ = organ_of(name)
        if organ is not None and organ.name in drawn:
            hu = drawn[organ.name]
            if organ.tissue == "bone" or drawn.get(f"{organ.name}, shell", hu) == hu:
                found[name] = hu
    return found


def phases(mask: LabelMap, ct: Volume, options: dict) -> dict[str, list[float]]:
    """Mean and largest difference of the interior of soft organs from the HU that the person of the seed has."""
    found = {}
    for phase in PHASES:
        result = generate(mask, MODEL, body_from=ct, phase=phase, **options)
        wanted = _wanted(mask, result.report.parameters["contrast"][str(options["seed"])])
        off = [
            abs(float(result.volume.array[inside].mean()) - wanted[mask.names[value]])
            for value in mask.values()
            if mask.names[value] in wanted
            and np.count_nonzero(inside := interior(mask.array == value)) >= FEWEST_VOXELS
        ]
        found[phase] = [float(np.mean(off)), float(np.max(off)), result.report.passed]
    return found


def filling(mask: LabelMap, ct: Volume) -> dict[str, dict[str, float]]:
    """How often the rest of the body is filled as the scan shows it: fat below -30 HU after a median, else soft."""
    manifest = find(MODEL)
    truth = np.digitize(ndimage.median_filter(ct.array, 3), manifest.statistics.resegment.thresholds)
    inside, found = body_envelope_from_image(ct).array > 0, {}
    for outline, image in (("of the scan", ct), ("of the mask", None)):
        made = model_labels(mask, manifest, None, None, image)[0].array
        rest = (mask.array == 0) & (made > 0) & inside
        found[outline] = {
            "agreement": float((made[rest] == truth[rest]).mean()),
            "fat alone": float((truth[rest] == 1).mean()),
            "Dice of the body": dice(made > 0, inside),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    results = {seed: measure(arguments.preset, seed) for seed in range(1, arguments.seeds + 1)}
    for seed, found in results.items():
        print(f"\nseed {seed}\n")
        heads = ["organ", "table", "real", "tissues", "organs", "local SD: tissues / real", "organs / real"]
        print(table(heads, found["organs"]))
        wanted = np.array([row[1] for row in found["organs"]])
        for column, who in ((3, "tissues"), (4, "organs")):
            off = np.abs(np.array([row[column] for row in found["organs"]]) - wanted)
            print(f"{who}: mean |HU - table| {off.mean():.1f}, largest {off.max()}")
        for key in ("FD", "features", "passed", "levels of phases", "filling"):
            print(f"{key}: {found[key]}")
    save("organs", results)
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
