"""Noise of real CTs by voxel and tissue, what ct-tissue makes of a requested noise, and its default and levels.

    MEDGEN_DATA=<folder> python Testing/benchmarks/ct_noise.py real|asked|noise|levels [--held-out] [--unfiltered]

"noise" compares the default noise of 1.2 and 1.3, "levels" the flow alone with images in which each tissue has the HU
and the texture that are usual at its place. Masks come from a median-filtered image, as in training, or with
--unfiltered from the image itself, as a user's thresholds make them.

Noise is that of `MedGenLib.imaging.noise`, by which the networks were conditioned in training. Every fifth person of
`sts_sarcoma` and `ct_torso_open` by name is held out; all else was chosen on the others. "asked", "noise" and "levels"
take the middle 64^3 voxels, the preset draft, one seed, and every fourth of the sarcomas that are not held
out. FD is that of `patch_distance`, relative to painted tissue means with and without noise, as a geometric mean over
people, FD-hp the same after a high-pass filter, relative to the latter; bone is the interior of the label.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
from common import OUT, data_folder, save, table
from ct_tissue import paint
from patch_distance import feature_distance
from texture import local_sd

from MedGenLib import generate
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines import flow_sampling
from MedGenLib.training.data.tissue import TISSUES, thresholded, tissue_labels
from MedGenLib.visual import preview

BEFORE = 20.0
"""Condition of the networks before version 1.3, on the working grid."""
MASKED = {"lidc_idri_0314": "ct", "pelvis_umcu": "ct", "totalseg_abdomen": "ct_full"}
SIDE = 64
OPTIONS = {"seed": 1, "preset": "draft", "retries": 0}
Figures = dict[str, list[float]]


def people(held_out: bool) -> Iterator[tuple[str, Volume, LabelMap]]:
    """Name, CT and body; the three people with masks were in sight from the start."""
    root = data_folder()
    for folder, file in (("pairs_ct_mr/sts_sarcoma", "labels"), ("ct_torso_open", "tissue")):
        for number, path in enumerate(sorted(p for p in (root / folder).iterdir() if p.is_dir())):
            if (number % 5 == 4) == held_out:
                yield path.name, read_volume(path / "ct.nii.gz", modality="CT"), _body(path / f"{file}.nii.gz")
    for name, file in {} if held_out else MASKED.items():
        path = root / "ct_torso_with_masks" / name
        ct = read_volume(path / f"{file}.nii.gz", modality="CT")
        yield name, ct, _body(path / "tissue.nii.gz") if file == "ct" else body_envelope_from_image(ct)


def _body(path) -> LabelMap:
    labels = read_label_map(path)
    return LabelMap((labels.array > 0).astype(np.uint8), labels.affine, {1: "body"})


def grids(ct: Volume) -> Iterator[tuple[str, tuple[float, ...] | None]]:
    """Kinds of voxels of a scan: its own, unless they are cubes, and cubes of 1.5 to 3 mm that are not finer."""
    if max(ct.spacing) > 1.06 * min(ct.spacing):
        yield "no cubes", None
    for side in (1.5, 2.0, 2.5, 3.0):
        if side > 0.95 * min(ct.spacing):
            yield f"{side:g} mm", (side,) * 3


def on(
    spacing: tuple[float, ...] | None, ct: Volume, body: LabelMap, find_tissues=tissue_labels
) -> tuple[Volume, LabelMap]:
    """CT and tissues with cubic voxels, or with their own."""
    if spacing is not None:
        ct, body = resample(ct, spacing), resample(body, spacing)
    hu = np.clip(ct.array, -1024, 3071).astype(np.float32)
    labels = find_tissues(hu, body.array > 0)
    return ct.with_array(np.where(labels > 0, hu, -1000)), LabelMap(labels, ct.affine, dict(enumerate(TISSUES, 1)))


def middle(ct: Volume, mask: LabelMap) -> tuple[Volume, LabelMap]:
    centers = [int(np.median(index)) for index in np.nonzero(mask.array)]
    low = [max(0, min(c - SIDE // 2, n - SIDE)) for c, n in zip(centers, ct.shape, strict=True)]
    high = [min(n, start + SIDE) for n, start in zip(ct.shape, low, strict=True)]
    return crop(ct, low, high), crop(mask, low, high)


def by_tissue(measure, labels: np.ndarray) -> list[float]:
    found = [measure(labels == value) for value in range(1, len(TISSUES) + 1)]
    return [np.nan if value is None else value for value in found]


def noise(image: np.ndarray, labels: np.ndarray) -> list[float]:
    return by_tissue(lambda inside: noise_level(image, inside), labels)


def real(held_out: bool) -> dict[str, list]:
    found: dict[str, list] = {}
    for name, ct, body in people(held_out):
        for kind, spacing in grids(ct):
            image, mask = on(spacing, ct, body)
            row = noise(image.array, mask.array)
            for key in (kind, f"{kind}, {'sarcomas' if name.startswith('STS') else 'torsos'}"):
                found.setdefault(key, []).append(row)
    for kind, rows in sorted(found.items()):
        low, median, high = np.nanpercentile(np.array(rows, float), (25, 50, 75), axis=0)
        cells = [f"{m:.1f} ({a:.1f} to {b:.1f})" for a, m, b in zip(low, median, high, strict=True)]
        print("| " + " | ".join([kind, str(len(rows)), *cells]) + " |")
    return found


def asked(held_out: bool) -> dict[str, list]:
    """Median noise of generated images by the condition of the networks."""
    found: dict[str, list] = {}
    for number, (_, ct, body) in enumerate(people(held_out)):
        for kind, spacing in grids(ct) if number % 4 == 0 or max(ct.spacing) <= 3 else ():
            image, mask = middle(*on(spacing, ct, body))
            for level in (10.0, 20.0):
                made = generate(mask, seed=1, preset="draft", retries=0, noise_hu=_given(level, kind)).volume.array
                found.setdefault(f"{kind}, {level:g} HU", []).append(noise(made, mask.array))
    rows = [[key, len(values), *map(float, np.nanmedian(values, axis=0))] for key, values in found.items()]
    print(table(["voxels, condition", "people", *TISSUES], rows))
    return found


def _given(condition: float, kind: str) -> float:
    """The option that gives a condition of the networks."""
    return condition * (find("ct-tissue").settings.resampled_noise.kept if kind == "no cubes" else 1)


def compared(made: np.ndarray, real_image: np.ndarray, labels: np.ndarray) -> list[float]:
    """Ratio of the local SD, and difference of the mean, by tissue."""
    ratios = by_tissue(lambda inside: local_sd(made, inside) / local_sd(real_image, inside), labels)
    errors = by_tissue(lambda inside: made[inside].mean() - real_image[inside].mean() if inside.any() else None, labels)
    return ratios + errors


def noise_made(mask: LabelMap, kind: str) -> dict[str, Volume]:
    """A volume with the default noise of 1.2 and one with that of 1.3."""
    levels = {"before": _given(BEFORE, kind), "after": None}
    return {when: generate(mask, noise_hu=level, **OPTIONS).volume for when, level in levels.items()}


def levels_made(mask: LabelMap, kind: str) -> dict[str, Volume]:
    """The same sample without and with the usual levels of tissues."""
    with patch.object(flow_sampling, "with_levels", lambda scene, *_: scene):
        before = generate(mask, **OPTIONS).volume
    return {"before": before, "after": generate(mask, **OPTIONS).volume}


def before_after(
    made: Callable[[LabelMap, str], dict[str, Volume]], find_tissues, held_out: bool
) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for number, (name, ct, body) in enumerate(people(held_out)):
        kinds = {kind: spacing for kind, spacing in grids(ct) if kind not in ("2.5 mm", "no cubes")}
        for kind, spacing in kinds.items() if held_out or number % 4 == 0 or max(ct.spacing) <= 3 else ():
            image, mask = middle(*on(spacing, ct, body, find_tissues))
            real_image, labels = image.array, mask.array
            distance = partial(feature_distance, real_image, mask=labels > 0, n_patches=450)
            plain, noisy = (paint(labels, with_noise) for with_noise in (False, True))
            painted = [distance(plain), distance(noisy), distance(noisy, highpass=True)]
            for when, volume in made(mask, kind).items():
                if kind == "3 mm":
                    preview.preview(mask, volume, OUT / "ct_noise" / f"{name}_{when}.png")
                own = [distance(volume.array)] * 2 + [distance(volume.array, highpass=True)]
                row = [*np.log(np.divide(own, painted)), *compared(volume.array, real_image, labels)]
                found.setdefault(f"{kind}, {when}", {})[name] = list(map(float, row))
            if kind == "3 mm":
                preview.preview(mask, image, OUT / "ct_noise" / f"{name}_real.png")
    heads = ["voxels", "people", "FD / paint", "FD / paint+noise", "FD-hp / paint+noise", *_heads()]
    print(table(heads, [_row(*x) for x in found.items()]))
    return found


def _heads() -> list[str]:
    heads = [f"local SD / real, {tissue} (0.7 to 1.4)" for tissue in TISSUES]
    return [*heads, *(f"abs. error of mean HU, {tissue}" for tissue in TISSUES)]


def _row(key: str, figures: Figures) -> list:
    values = np.array(list(figures.values()))
    row = [key, len(values), *map(float, np.exp(values[:, :3].mean(0)))]
    for ratio in values[:, 3:7].T:
        ratio = ratio[np.isfinite(ratio)]
        inside = np.count_nonzero((ratio >= 0.7) & (ratio <= 1.4))
        row.append(f"{np.median(ratio):.2f} ({inside} of {len(ratio)})" if len(ratio) else "")
    return row + [round(float(np.nanmean(np.abs(error))), 1) for error in values[:, 7:].T]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("real", "asked", "noise", "levels"), default="real")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--unfiltered", action="store_true")
    arguments = parser.parse_args()
    (OUT / "ct_noise").mkdir(parents=True, exist_ok=True)
    find_tissues = thresholded if arguments.unfiltered else tissue_labels
    made = {
        part: partial(before_after, make, find_tissues)
        for part, make in (("noise", noise_made), ("levels", levels_made))
    }
    measure = {"real": real, "asked": asked, **made}[arguments.part]
    save(f"ct_noise_{arguments.part}", measure(arguments.held_out))


if __name__ == "__main__":
    main()
