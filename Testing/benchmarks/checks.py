"""False alarms and detections of the output checks.

    MEDGEN_DATA=<folder> python Testing/benchmarks/checks.py [--kind WORD]

Real images take the place of outputs, with their own masks or sources, and pass through the checks of `generate` and
`translate`: each failed check is a false alarm. The same images, spoiled in one way at a time, give the share of
detected faults. Intervals are Wilson's, 95 %.

The limits of the packages were widened on these images. So limits are also chosen by `chosen_limits` on all people but
each fifth (by name), and tried on the fifths that they have not seen.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from common import data_folder, save, table
from embedded import head_slices
from numpy.typing import NDArray

from MedGenLib.checks.output import BODY_LIMIT, STRIPE_LIMIT, check_generated, check_translated
from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.working_grid import working_geometry

MESHNET = {1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7, 9: 8, 10: 9, 11: 3, 12: 3, 13: 10, 14: 11, 15: 12, 16: 13}
MESHNET |= {17: 14}
"""Classes of the labels of mr_t1_brain -> labels of mr-brain."""
CSF = 15
WHITE, HIPPOCAMPUS = 107, 395
"""Level of a tissue in the units of mr-brain and mr-hippocampus."""
STS = {4: 4, 5: 4, 6: 2}
"""Labels of sts_sarcoma with another number in ct-tissue: lung, gas, tumor."""
Z = 1.96


@dataclass(frozen=True)
class Real:
    """A real image in place of an output, with its mask or, for translations, its source."""

    kind: str
    name: str
    model: str
    image: Volume
    given: LabelMap | Volume

    def check(self, image: NDArray | None = None) -> OutputCheck:
        """The check of the image, or of other voxels in its place."""
        volume = self.image if image is None else self.image.with_array(image)
        manifest = find(self.model)
        if isinstance(self.given, Volume):
            return check_translated(volume, self.given, manifest)
        grid = working_geometry(volume.geometry, manifest)
        own_grid = grid.is_close(volume.geometry)
        return check_generated(volume, self.given, manifest, self.planes, own_grid)

    @property
    def planes(self) -> list[tuple[int, int]]:
        """Planes at which windows could meet: three of each axis."""
        return [(axis, n * part // 4) for axis, n in enumerate(self.image.shape) for part in (1, 2, 3) if n >= 32]


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    share, denominator = count / total, 1 + Z**2 / total
    center = (share + Z**2 / (2 * total)) / denominator
    half = Z * np.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2)) / denominator
    return max(0.0, center - half), min(1.0, center + half)


# Real images


def torsos() -> Iterator[Real]:
    folder = data_folder()
    places = [*sorted((folder / "ct_torso_open").iterdir())]
    places += [folder / "ct_torso_with_masks" / name for name in ("lidc_idri_0314", "pelvis_umcu")]
    for place in places:
        image, mask = read_volume(place / "ct.nii.gz", modality="CT"), read_label_map(place / "tissue.nii.gz")
        yield _ct("CT of the torso", place.name, image, mask.array, mask)


def limbs() -> Iterator[Real]:
    for place in sorted((data_folder() / "pairs_ct_mr" / "sts_sarcoma").glob("STS_*")):
        image, mask = read_volume(place / "ct.nii.gz", modality="CT"), read_label_map(place / "labels.nii.gz")
        labels = mask.array.copy()
        for theirs, ours in STS.items():
            labels[mask.array == theirs] = ours
        yield _ct("CT of limbs and hips", place.name, image, labels, mask)


def _ct(kind: str, name: str, image: Volume, labels: NDArray, mask: LabelMap) -> Real:
    """Outside of the mask an output of ct-tissue has background; below -1000 HU it has none."""
    manifest = find("ct-tissue")
    values = np.where(labels > 0, np.clip(image.array, *manifest.output.range), manifest.output.background)
    given = LabelMap(labels.astype(np.uint8), mask.affine)
    return Real(kind, name, "ct-tissue", image.with_array(values.astype(np.float32), "CT", "HU"), given)


def brains() -> Iterator[Real]:
    for path in sorted((data_folder() / "mr_t1_brain").glob("*_t1.nii.gz")):
        image = read_volume(path, modality="T1w")
        mask = read_label_map(path.with_name(path.name.replace("_t1", "_seg18")))
        labels = np.where(image.array > 0, CSF, 0).astype(np.uint8)
        for theirs, ours in MESHNET.items():
            labels[mask.array == theirs] = ours
        scale = WHITE / np.median(image.array[labels == 1])
        values = np.where(labels > 0, np.clip(image.array * scale, 0, 255), 0).astype(np.float32)
        yield Real("T1w brain", path.name[:6], "mr-brain", image.with_array(values), LabelMap(labels, mask.affine))


def hippocampi() -> Iterator[Real]:
    folder = data_folder() / "mr_hippocampus_msd"
    for path in sorted((folder / "images").glob("*.nii.gz")):
        image, mask = read_volume(path, modality="T1w"), read_label_map(folder / "labels" / path.name)
        scale = HIPPOCAMPUS / np.median(image.array[mask.array > 0])
        values = np.clip(image.array * scale, 0, 2000).astype(np.float32)
        yield Real("T1w hippocampus", path.name.split(".")[0], "mr-hippocampus", image.with_array(values), mask)


def heads() -> Iterator[Real]:
    from MedGenLib.training.data.slices import read_pairs

    everyone = {pair.subject for pair in read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices")}
    for model, kind in (("head-mr-to-ct", "CT of the head"), ("head-ct-to-mr", "T1w head")):
        for case in head_slices(model, everyone):
            values = np.clip(case.real.array, *find(model).output.range)
            yield Real(kind, case.name, model, case.real.with_array(values), case.source)


KINDS: dict[str, Callable[[], Iterator[Real]]] = {
    "torso": torsos,
    "limbs": limbs,
    "brain": brains,
    "hippocampus": hippocampi,
    "heads": heads,
}


# Faults


def _along(image: NDArray) -> int:
    """The longest axis."""
    return int(np.argmax(image.shape))


def _step(image: NDArray) -> float:
    """Median absolute difference of neighbors that are not background."""
    steps = np.abs(np.diff(image, axis=_along(image)))
    return float(np.median(steps[steps > 0]))


def _raised(real: Real, image: NDArray) -> NDArray:
    low, high = find(real.model).output.range
    inside = image != find(real.model).output.background
    return np.where(inside, image + 0.05 * (high - low), image)


def _shifted(real: Real, image: NDArray) -> NDArray:
    return np.roll(image, max(5, image.shape[_along(image)] // 5), _along(image))


def _background(real: Real, image: NDArray) -> NDArray:
    low, high = find(real.model).output.range
    return np.where(image == find(real.model).output.background, image + 0.02 * (high - low), image)


def _seam(real: Real, image: NDArray) -> NDArray:
    moved = np.moveaxis(image.copy(), _along(image), 0)
    moved[len(moved) // 2 :] += 2 * _step(image)
    return np.moveaxis(moved, 0, _along(image))


def _blocks(real: Real, image: NDArray) -> NDArray:
    """Each pair of planes 15 % nearer to its mean, as after enlarging without interpolation."""
    moved = np.moveaxis(image.copy(), _along(image), 0)
    even = len(moved) // 2 * 2
    pairs = moved[:even].reshape(-1, 2, *moved.shape[1:])
    moved[:even] = (0.85 * pairs + 0.15 * pairs.mean(1, keepdims=True)).reshape(even, *moved.shape[1:])
    return np.moveaxis(moved, 0, _along(image))


def _every_fourth(real: Real, image: NDArray) -> NDArray:
    """Each fourth plane brighter by the usual step."""
    moved = np.moveaxis(image.copy(), _along(image), 0)
    moved[::4] += _step(image)
    return np.moveaxis(moved, 0, _along(image))


def _beyond(real: Real, image: NDArray) -> NDArray:
    low, high = find(real.model).output.range
    changed = image.copy()
    changed.flat[int(np.argmax(image))] = high + 0.05 * (high - low)
    return changed


def _not_finite(real: Real, image: NDArray) -> NDArray:
    changed = image.copy()
    changed.flat[changed.size // 2] = np.nan
    return changed


FAULTS: dict[str, tuple[str, Callable[[Real, NDArray], NDArray]]] = {
    "one voxel is no number": ("not-finite", _not_finite),
    "one voxel 5 % beyond the range": ("range", _beyond),
    "all tissues brighter by 5 % of the range": ("tissue-mean", _raised),
    "shifted by a fifth, mask": ("mask-fidelity", _shifted),
    "shifted by a fifth, source": ("body", _shifted),
    "background brighter by 2 % of the range": ("background", _background),
    "one half brighter by 2 steps": ("seam", _seam),
    "pairs of planes 15 % more alike": ("stripe", _blocks),
    "each fourth plane brighter by 1 step": ("stripe", _every_fourth),
}
"""Fault -> code of its check, and what makes it."""
FIGURES = {
    "not-finite": "range",
    "range": "range",
    "tissue-mean": "mean",
    "mask-fidelity": "dice",
    "body": "body_dice",
    "background": "background",
    "seam": "seam",
    "stripe": "stripe",
}
"""Code -> figure that tells whether the check was made."""


def codes(check: OutputCheck) -> set[str]:
    return {finding.code for finding in check.findings if finding.level == "error"}


def made(figures: dict, code: str) -> bool:
    """Whether the check had something to measure."""
    figure = figures.get(FIGURES[code])
    return bool(figure) if isinstance(figure, dict) else figure is not None and bool(np.isfinite(figure).all())


@dataclass(frozen=True)
class Seen:
    """What the checks of a real image said."""

    kind: str
    model: str
    person: str
    failed: set[str]
    figures: dict

    @property
    def limited(self) -> dict[tuple[str, str, str], float]:
        """(kind, figure, tissue) -> value, of the figures that have a limit."""
        return {
            (self.kind, figure, tissue): value
            for figure in LIMITED
            for tissue, value in _by_tissue(self.figures.get(figure)).items()
            if np.isfinite(value)
        }


def _by_tissue(figure: dict | float | None) -> dict[str, float]:
    if isinstance(figure, dict):
        return figure
    return {} if figure is None else {"": figure}


LIMITED = {"mean": (True, True), "dice": (True, False), "body_dice": (True, False), "stripe": (False, True)}
"""Figures whose limits depend on people -> whether they are limited below and above."""
MARGIN = 0.25
"""Part of the range of the choosing people that a limit lies beyond it."""
FIFTH = 5
Limits = dict[tuple[str, str, str], tuple[float, float]]


def held_out(seen: list[Seen]) -> set[tuple[str, str]]:
    """(kind, person) of each fifth person by name."""
    people = defaultdict(set)
    for item in seen:
        people[item.kind].add(item.person)
    return {(kind, name) for kind, names in people.items() for name in sorted(names)[FIFTH - 1 :: FIFTH]}


def chosen_limits(seen: list[Seen]) -> Limits:
    """Limits of every figure: the range of these images, wider by `MARGIN` of it where it is limited."""
    values = defaultdict(list)
    for item in seen:
        for key, value in item.limited.items():
            values[key].append(value)
    limits = {}
    for key, found in values.items():
        margin, (below, above) = MARGIN * (max(found) - min(found)), LIMITED[key[1]]
        limits[key] = (min(found) - margin if below else -np.inf, max(found) + margin if above else np.inf)
    return limits


def package_limits(model: str, kind: str) -> Limits:
    """The same limits as the package and the checks have them."""
    manifest = find(model)
    limits = {(kind, "mean", x.name): (x.low, x.high) for x in manifest.statistics.tissues.values()}
    limits[kind, "stripe", ""] = (-np.inf, STRIPE_LIMIT)
    limits[kind, "body_dice", ""] = (BODY_LIMIT, np.inf)
    names = {value: x.name for value, x in {**manifest.input.labels, **manifest.statistics.tissues}.items()}
    for spec in filter(None, (manifest.statistics.resegment, manifest.statistics.segmenter)):
        limits |= {(kind, "dice", names.get(v, str(v))): (low, np.inf) for v, low in spec.minimum_dice.items()}
    return limits


def split_rows(seen: list[Seen]) -> list[list]:
    """False alarms on people who chose no limit, by kind: limits chosen on the others, and those of the packages."""
    apart, lines = held_out(seen), []
    chosen = chosen_limits([item for item in seen if (item.kind, item.person) not in apart])
    for kind in dict.fromkeys(item.kind for item in seen):
        mine = [item for item in seen if (item.kind, item.person) in apart and item.kind == kind]
        if not mine:
            continue
        people = {item.person for item in mine}
        alarms = {item.person for item in mine if _outside(item, chosen)}
        package = {item.person for item in mine if item.failed}
        narrower = sorted(
            f"{figure} {tissue}".strip()
            for (of, figure, tissue), (low, high) in package_limits(mine[0].model, kind).items()
            if (limit := chosen.get((of, figure, tissue))) and (low > limit[0] or high < limit[1])
        )
        low, high = wilson(len(alarms), len(people))
        shares = f"{len(alarms)} of {len(people)}", f"{100 * low:.1f} to {100 * high:.1f}"
        lines.append([kind, len(mine), *shares, f"{len(package)} of {len(people)}", ", ".join(narrower) or "none"])
    return lines


def _outside(item: Seen, limits: Limits) -> bool:
    """Whether a figure of an image lies outside of these limits."""
    found = ((value, *limits.get(key, (-np.inf, np.inf))) for key, value in item.limited.items())
    return any(not low <= value <= high for value, low, high in found)


def measure(kinds: list[str], every: int) -> tuple[list[Seen], dict, list]:
    """What the checks of real images said; counts of detections, [found, total] by kind and fault; sentences."""
    found, seen, sentences = defaultdict(lambda: [0, 0]), [], []
    for kind in kinds:
        for number, real in enumerate(KINDS[kind]()):
            check = real.check()
            person = real.name.rpartition("_")[0] if kind == "heads" else real.name
            seen.append(Seen(real.kind, real.model, person, codes(check), check.figures))
            sentences += [f"{real.kind}, {real.name}: {finding.sentence}" for finding in check.findings]
            for fault, (code, spoil) in FAULTS.items() if number % every == 0 else ():
                if made(check.figures, code):
                    image = spoil(real, real.image.array.astype(np.float32))
                    found[real.kind, fault][0] += code in codes(real.check(image))
                    found[real.kind, fault][1] += 1
    return seen, found, sentences


def alarm_counts(seen: list[Seen]) -> dict:
    """[failed, made] by kind and check."""
    alarms = defaultdict(lambda: [0, 0])
    for item in seen:
        alarms[item.kind, "any check"][0] += bool(item.failed)
        alarms[item.kind, "any check"][1] += 1
        for code in FIGURES:
            if made(item.figures, code):
                alarms[item.kind, code][0] += code in item.failed
                alarms[item.kind, code][1] += 1
    return alarms


def rows(counts: dict) -> list[list]:
    """Table rows of [count, total] by kind and what was counted."""
    lines = []
    for (kind, what), (count, total) in sorted(counts.items()):
        low, high = wilson(count, total)
        lines.append(
            [kind, what, f"{count} of {total}", f"{100 * count / total:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; repeatable")
    parser.add_argument("--every", type=int, default=5, help="spoil each so many images (default: 5)")
    arguments = parser.parse_args()
    seen, found, sentences = measure(arguments.kind or list(KINDS), arguments.every)
    alarms = alarm_counts(seen)
    named = {
        name: {f"{kind}, {what}": value for (kind, what), value in group.items()}
        for name, group in (("false alarms", alarms), ("detections", found))
    }
    save("checks", {**named, "images": [{**vars(item), "failed": sorted(item.failed)} for item in seen]})
    print(table(["real images", "check", "false alarms", "%", "95 % interval"], rows(alarms)))
    heads = ["held-out people", "images", "false alarms, limits of the others", "95 % interval, %"]
    print("\n" + table([*heads, "limits of the packages", "narrower in the packages"], split_rows(seen)))
    print("\n" + table(["images", "fault", "detected", "%", "95 % interval"], rows(found)))
    print("\n".join(sentences))


if __name__ == "__main__":
    main()
