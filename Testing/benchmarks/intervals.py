"""Intervals of the embedded models: calibration on held-out people, and coverage on people of the other half.

    MEDGEN_DATA=DATA python Testing/benchmarks/intervals.py [--write] [MODEL ...]

The held-out people are divided into two halves; intervals from one half are tried on the other, and the other way
round, so that each person is seen by intervals that do not know him. Coverage is the mean over people, with an interval
by bootstrap. With --write, intervals from all held-out people are written into the packages.

Generated images are compared with the scan that their mask is from, inside the mask: of ct-tissue the middle 64^3
voxels of 2 and of 3 mm (a person counts once), of mr-brain 96^3 voxels about the middle of the brain, of mr-hippocampus
whole crops, outside the mask too; preset normal, one seed each.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator

import body
import ct_noise
import numpy as np
from checks import brains, hippocampi
from common import OUT, save, table
from embedded import head_slices

from MedGenLib import generate, translate
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.intervals import MR_BRIGHT, Errors, calibrate, coverage, errors_of, sentence
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.export import add_statistics
from MedGenLib.training.data.alignment import field_of_view

TRANSLATORS = ("head-mr-to-ct", "head-ct-to-mr", "body-mr-to-ct", "body-ct-to-mr")
Case = tuple[str, Volume, LabelMap]


def head(model: str, reach: float) -> list[Errors]:
    """Errors of slices in three planes; those of one person count together."""
    found = []
    for case in head_slices(model):
        path = OUT / "embedded" / model / "synthetic" / f"{case.name}.nii.gz"
        modality = find(model).output.modality
        made = (
            read_volume(path, modality=modality)
            if path.is_file()
            else translate(case.source, modality, model=model, accept_license=True, device="cpu").volume
        )
        person = case.name.rsplit("_", 1)[0]
        found.append(errors_of(person, made, case.real.array, case.mask.array > 0, reach))
    return found


def limb(model: str, reach: float) -> list[Errors]:
    found = []
    for name, mr, ct in body.people():
        is_ct = find(model).output.modality == "CT"
        made = translate(mr if is_ct else ct, "CT" if is_ct else "T1w", model=model, device="cpu").volume
        real = ct.array if is_ct else 1000 * mr.array / bright_end(mr.array)
        found.append(errors_of(name, made, real, field_of_view(mr.array), reach))
    return found


def tissues() -> Iterator[Case]:
    for name, ct, outline in ct_noise.people(held_out=True):
        for side in (2.0, 3.0):
            if side > 0.95 * min(ct.spacing):
                yield name, *ct_noise.middle(*ct_noise.on((side,) * 3, ct, outline))


def held_brains() -> Iterator[Case]:
    for real in brains():
        if f"{real.name}, held out" in find("mr-brain").training.held_out:
            inside = np.argwhere(real.given.array > 0)
            low = np.maximum((inside.min(0) + inside.max(0)) // 2 - 48, 0)
            parts = (crop(image, low, np.minimum(low + 96, image.shape)) for image in (real.image, real.given))
            yield real.name, *parts


def held_hippocampi() -> Iterator[Case]:
    held = {name.split(".")[0] for name in find("mr-hippocampus").training.held_out}
    yield from ((real.name, real.image, real.given) for real in hippocampi() if real.name in held)


GENERATORS: dict[str, Callable[[], Iterator[Case]]] = {
    "ct-tissue": tissues,
    "mr-brain": held_brains,
    "mr-hippocampus": held_hippocampi,
}


def bright(model: str) -> float:
    """The bright end of the real images that a model generates, or that of translations."""
    if model not in GENERATORS:
        return MR_BRIGHT
    return round(float(np.median([bright_end(real.array) for _, real, _ in GENERATORS[model]()])))


def generated(model: str, reach: float, scale: float) -> list[Errors]:
    found, masked = [], find(model).settings.outside == "background"
    for seed, (name, real, mask) in enumerate(GENERATORS[model](), start=1):
        made = generate(mask, model, mapping="model", seed=seed, retries=0, device="cpu").volume
        found.append(errors_of(name, made, real.array, mask.array >= masked, reach, scale))
    return found


def crossed(found: list[Errors], modality: str, reach: float, scale: float) -> dict[str, list[float]]:
    """Coverage of each person by the intervals of the other half, by tissue."""
    people = sorted({errors.person for errors in found})
    shares: dict[str, list[float]] = {}
    for half in (0, 1):
        known = [e for e in found if people.index(e.person) % 2 != half]
        intervals = calibrate(known, modality, reach, bright=scale)
        for person in people[half::2]:
            parts = [coverage(e, intervals) for e in found if e.person == person]
            for name in {name for part in parts for name in part}:
                shares.setdefault(name, []).append(float(np.mean([p[name] for p in parts if name in p])))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    figures = {}
    for model in arguments.models or (*TRANSLATORS, *GENERATORS):
        manifest = find(model)
        modality, reach = manifest.output.modality, manifest.spacing.native
        scale = bright(model)
        if model in GENERATORS:
            found = generated(model, reach, scale)
        else:
            found = (head if model.startswith("head") else limb)(model, reach)
        shares = crossed(found, modality, reach, scale)
        intervals = calibrate(found, modality, reach, bright=scale)
        figures[model] = {"coverage": shares, "intervals": dataclasses.asdict(intervals)}
        rows = [
            [name, body.interval(values), intervals.tissues.get(name, ""), len(values)]
            for name, values in shares.items()
        ]
        print(f"\n### {model}\n\n{table(['tissue of the output', 'coverage', 'half-width', 'people'], rows)}\n")
        print(sentence(intervals, manifest.output.unit))
        if arguments.write:
            add_statistics(manifest.folder, intervals=dataclasses.asdict(intervals))
    save("intervals", figures)


if __name__ == "__main__":
    main()
