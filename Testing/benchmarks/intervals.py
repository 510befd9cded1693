"""Intervals of the embedded translators: calibration on held-out people, and coverage on people of the other half.

    MEDGEN_DATA=DATA python Testing/benchmarks/intervals.py [--write] [MODEL ...]

The held-out people are divided into two halves; intervals from one half are tried on the other, and the other way
round, so that each person is seen by intervals that do not know him. Coverage is the mean over people, with an interval
by bootstrap. With --write, intervals from all held-out people are written into the packages.
"""

from __future__ import annotations

import argparse
import dataclasses

import body
import numpy as np
from common import OUT, save, table
from embedded import head_slices

from MedGenLib import translate
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.intervals import Errors, calibrate, coverage, errors_of, sentence
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.export import add_statistics
from MedGenLib.training.data.alignment import field_of_view

MODELS = ("head-mr-to-ct", "head-ct-to-mr", "body-mr-to-ct", "body-ct-to-mr")


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


def crossed(found: list[Errors], modality: str, reach: float) -> dict[str, list[float]]:
    """Coverage of each person by the intervals of the other half, by tissue."""
    people = sorted({errors.person for errors in found})
    shares: dict[str, list[float]] = {}
    for half in (0, 1):
        known = [e for e in found if people.index(e.person) % 2 != half]
        intervals = calibrate(known, modality, reach)
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
    for model in arguments.models or MODELS:
        manifest = find(model)
        modality, reach = manifest.output.modality, manifest.spacing.native
        found = (head if model.startswith("head") else limb)(model, reach)
        shares = crossed(found, modality, reach)
        intervals = calibrate(found, modality, reach)
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
