"""Measurement of a trained model on the people that were kept out of its training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from MedGenLib import devices
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import InputError
from MedGenLib.evaluation.cohorts import CohortEvaluation, evaluate_cohorts
from MedGenLib.evaluation.html import Picture, Section, Table, number
from MedGenLib.imaging.modality import modality_family
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.atomic import write_json
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.metrics.intervals import errors_of, of_package
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import Intervals
from MedGenLib.pipelines.base import SamplingOptions, pipeline_of
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.trainer.datasets import LabeledImage
from MedGenLib.trainer.plan import TrainingPlan

SHOWN = 4
"""Cases with pictures, on which a continued package is compared too."""


@dataclass(frozen=True)
class Row:
    """A measure of a model, with its 95 % interval where it has one."""

    name: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LabelError:
    """A label in the held-out cases: mean of the real images and of the generated ones."""

    name: str
    cases: int
    real: float
    made: float


@dataclass(frozen=True)
class Measured:
    """What was measured on the held-out cases.

    Attributes
    ----------
    cohorts: comparison of the distributions; None if there are too few cases for it.
    labels: means of the labels in ``unit``.
    passed: cases that passed the checks of the product; cases: all.
    pairs: real and generated volume of some cases, for pictures.
    kept: sentence on what a continued package still makes; empty for a new model.
    intervals: of the error of a CT at each voxel; None for an MR, whose values have no scale, or of too few people.
    """

    cohorts: CohortEvaluation | None
    reason: str
    labels: Sequence[LabelError]
    unit: str
    passed: int
    cases: int
    pairs: Sequence[tuple[str, LabelMap, Volume, Volume]]
    kept: str = ""
    intervals: Intervals | None = None

    faults: ClassVar[tuple[str, ...]] = ()

    def rows(self) -> list[Row]:
        """The figures for a table of several models."""
        return [Row("Passed the checks", "%", 100 * self.passed / max(1, self.cases)), *cohort_rows(self.cohorts)]

    def lines(self) -> list[str]:
        """The figures as lines of a list for the model card."""
        found = [
            f"{self.passed} of {self.cases} volumes generated from masks of held-out cases pass all checks of MedGen"
        ]
        found += [*cohort_lines(self.cohorts, self.reason), *([self.kept] if self.kept else [])]
        found += [
            f"{e.name}: mean {e.made:.3g} {self.unit}, in real images {e.real:.3g} {self.unit}" for e in self.labels
        ]
        return found

    def section(self) -> Section:
        """The measurement in the page of the run."""
        from MedGenLib.visual.planes import pair_planes

        rows = [(error.name, error.cases, error.real, error.made) for error in self.labels]
        heads = ("Label", "Cases", f"Mean of real images in {self.unit}", f"of generated ones in {self.unit}")
        parts = [*self.lines()[: -len(rows)], Table(heads, rows)]
        parts += [
            Picture(
                pair_planes(mask, real, made), f"{name}: mask, real image, image generated from the mask.", wide=True
            )
            for name, mask, real, made in self.pairs
        ]
        return Section("Measured on held-out people", parts)


def measure(
    manifest: Manifest,
    plan: TrainingPlan,
    cases: Sequence[LabeledImage],
    folder: Path,
    device: str,
    progress: ProgressCallback | None = None,
) -> Measured:
    """Generate a volume from the mask of each held-out case and compare them with the real ones.

    The volumes are written to ``folder``; those that are there are kept, so that a killed run goes on.
    """
    chosen = [case for case in cases if case.subject in plan.held_out]
    made, real = cohort_folders(folder)
    facts: dict[str, dict[str, Any]] = {}
    pairs = []
    stage = Stage("measuring", len(chosen), progress)
    for number_, case in enumerate(chosen):
        image, mask = read_volume(case.image, modality=plan.modality), mask_of(case, plan)
        record = folder / f"{case.name}.json"
        if not record.is_file():
            volume, passed = generated(manifest, mask, number_, device)
            write_volume(volume, made / f"{case.name}.nii.gz")
            write_volume(image, real / f"{case.name}.nii.gz")
            write_json(record, {"passed": passed, "labels": _means(image, volume, mask, plan.modality)})
        facts[case.name] = json.loads(record.read_text(encoding="utf-8"))
        if len(pairs) < SHOWN:
            pairs.append((case.name, mask, image, read_volume(made / f"{case.name}.nii.gz", modality=plan.modality)))
        stage.advance()
    training = {case.name: case.image for case in cases if case.subject not in plan.held_out}
    cohorts, reason = compared(made, real, training, folder, device, progress)
    return Measured(
        cohorts,
        reason,
        _label_errors(facts.values(), plan),
        "SD from the mean of the image" if modality_family(plan.modality) == "MR" else plan.unit,
        sum(entry["passed"] for entry in facts.values()),
        len(chosen),
        pairs,
        _kept(manifest, find(plan.start), [mask for _, mask, *_ in pairs], device) if plan.start else "",
        _intervals(manifest, plan, chosen, made),
    )


def _intervals(manifest: Manifest, plan: TrainingPlan, chosen: Sequence[LabeledImage], made: Path) -> Intervals | None:
    """Half-widths from the errors where the model makes the held-out cases: in its labels or everywhere."""
    if plan.modality != "CT":
        return None
    reach, found = manifest.spacing.native, []
    for case in chosen:
        volume, real = (read_volume(path, modality="CT") for path in (made / f"{case.name}.nii.gz", case.image))
        found.append(
            errors_of(
                case.subject, volume, real.array, mask_of(case, plan).array >= (plan.outside == "background"), reach
            )
        )
    return of_package(found, plan.modality, reach)


def _kept(manifest: Manifest, before: Manifest, masks: Sequence[LabelMap], device: str) -> str:
    """How far the images of a continued package have moved, for the same masks of its labels and seeds."""
    names, shares = {value: label.name for value, label in before.input.labels.items()}, []
    for seed, mask in enumerate(masks):
        known = mask.with_array(np.where(np.isin(mask.array, list(names)), mask.array, 0), names)
        if known.array.any():
            runs = ((before, seed), (manifest, seed), (before, seed + SHOWN))
            images = (generated(model, known, number_, device)[0].array for model, number_ in runs)
            old, new, other = (image.astype(np.float64) for image in images)
            shares.append(np.std(new - old) / max(np.std(other - old), 1e-6))
    if not shares:
        return f"What {before.name} made was not measured: no case has one of its labels"
    return (
        f"For the same masks and seeds, images differ from those of {before.name} by {np.mean(shares):.2f} of what its "
        "own seeds differ by (0: nothing was lost, 1: as far as another sample)"
    )


def cohort_rows(cohorts: CohortEvaluation | None) -> list[Row]:
    """The distances of the distributions, and the number of copies of training images."""
    if cohorts is None:
        return []
    found = [Row(m.name, "", m.value, m.low, m.high) for m in cohorts.comparison.measures if m.value is not None]
    if cohorts.memorization is not None:
        found.append(Row("Copies of training images", "", len(cohorts.memorization.copies)))
    return found


def cohort_lines(cohorts: CohortEvaluation | None, reason: str) -> list[str]:
    """The figures of a comparison as lines, or why there is none."""
    found = []
    for measure in cohorts.comparison.measures if cohorts else ():
        if measure.value is not None:
            interval = "" if measure.low is None else f" (95 %: {number(measure.low)} to {number(measure.high)})"
            found.append(f"{measure.name}: {number(measure.value)}{interval}")
    if cohorts and cohorts.memorization is not None:
        found.append(cohorts.memorization.note)
    return [*found, reason] if reason else found


def cohort_folders(folder: Path) -> tuple[Path, Path]:
    """The folders of the synthetic and of the real volumes, which are created."""
    made, real = folder / "synthetic", folder / "real"
    for place in (made, real):
        place.mkdir(parents=True, exist_ok=True)
    return made, real


def mask_of(case: LabeledImage, plan: TrainingPlan) -> LabelMap:
    """The labels of a case in the numbers of the model."""
    mask = read_label_map(case.labels, case.image)
    array = np.zeros(mask.shape, np.uint8)
    for old, new in plan.numbers.items():
        array[mask.array == old] = new
    return mask.with_array(array, dict(plan.labels))


def generated(
    manifest: Manifest, mask: LabelMap, seed: int, device: str, kind: str | None = None
) -> tuple[Volume, bool]:
    """An image of a mask or of a class, and whether it passes the checks."""
    run = pipeline_of(manifest).prepare(mask, devices.pick_device(device), SamplingOptions(label=kind))
    volume = run.finish(run.decode(run.sample(seed)))
    return volume, check_generated(volume, mask, manifest, run.seams, run.own_grid).passed


def _means(image: Volume, volume: Volume, mask: LabelMap, modality: str) -> dict[str, list[float]]:
    """Label -> mean in the real and in the generated image: in HU, or in standard deviations of an MR from its mean."""
    values = [item.array.astype(np.float64) for item in (image, volume)]
    if modality_family(modality) == "MR":
        values = [(array - array.mean()) / max(array.std(), 1e-6) for array in values]
    return {
        str(value): [float(array[mask.array == value].mean()) for array in values]
        for value in np.unique(mask.array)
        if value
    }


def _label_errors(facts: Any, plan: TrainingPlan) -> list[LabelError]:
    errors = []
    facts = list(facts)
    for value, name in plan.labels.items():
        found = np.array([entry["labels"][str(value)] for entry in facts if str(value) in entry["labels"]])
        if len(found):
            errors.append(LabelError(name, len(found), *(float(v) for v in found.mean(axis=0))))
    return errors


def compared(
    made: Path, real: Path, training: Mapping[str, Path], folder: Path, device: str, progress: ProgressCallback | None
) -> tuple[CohortEvaluation | None, str]:
    """The distributions of images of two folders, and why they were not compared; ``training`` is name -> file."""
    known = folder / "training"
    known.mkdir(exist_ok=True)
    for name, file in training.items():
        link = known / "".join([name, *file.suffixes[-2:]])
        if not link.exists():
            _link(file, link)
    try:
        return evaluate_cohorts(made, real, known, device=device, progress=progress), ""
    except InputError as error:  # too few volumes
        return None, f"The distributions were not compared: {error}"


def _link(source: Path, target: Path) -> None:
    """A link to a file; a copy where the system makes no links."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
