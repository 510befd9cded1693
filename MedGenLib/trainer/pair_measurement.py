"""Measurement of a trained translator on the people that were kept out of its training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib import devices
from MedGenLib.checks.input import INVENTS
from MedGenLib.checks.output import check_translated
from MedGenLib.errors import InputError
from MedGenLib.evaluation.cohorts import CohortEvaluation
from MedGenLib.evaluation.html import Notice, Part, Picture, Section, Table
from MedGenLib.evaluation.pair import Evaluation, evaluate
from MedGenLib.evaluation.tables import summary
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.atomic import write_json
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.metrics.intervals import errors_of, of_package
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import Intervals
from MedGenLib.pipelines.base import SamplingOptions, pipeline_of
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.segmentation.segmenters import segmenter
from MedGenLib.trainer.datasets import ImagePair
from MedGenLib.trainer.measurement import Row, cohort_folders, cohort_lines, cohort_rows, compared
from MedGenLib.trainer.pair_plan import TranslationPlan

TISSUES = "ct-tissue"
"""Package that finds the tissues of a CT."""
SHOWN = ("MAE", "Bias", "PSNR", "SSIM", "NCC")
MISSING = 0.2
"""Dice of a tissue, or without pairs its amount relative to real images, below which it is missing."""
SCARCE = 0.01
"""Share of all tissues below which one is not asked for."""
PICTURES = 4


@dataclass(frozen=True)
class Figure:
    """A measure over the held-out pairs: its mean, and the values of all."""

    name: str
    unit: str
    values: Sequence[float]

    def row(self) -> Row:
        found = summary(self.values)
        return Row(self.name, self.unit, found.mean, found.low, found.high)

    def __str__(self) -> str:
        mean, low, high = (f(self.values) for f in (np.mean, np.min, np.max))
        unit = f" {self.unit}" if self.unit else ""
        count = len(self.values)
        spread = f"{low:.3g} to {high:.3g} in {count} images" if count > 1 else "1 image"
        return f"{self.name}: {mean:.3g}{unit} ({spread})"


@dataclass(frozen=True)
class MeasuredTranslation:
    """What was measured on the held-out cases.

    Attributes
    ----------
    figures: errors against the real targets; empty without pairs.
    cohorts: comparison of the distributions without pairs; None if there are too few images, which `notes` says.
    passed: translations that passed the checks of the product; cases: all.
    pictures: caption and picture of some cases.
    intervals: of the error at each voxel; None without pairs, or of too few people.
    faults: sentences on tissues that are missing in the translations, and on errors that could not be measured.
    """

    figures: Sequence[Figure]
    cohorts: CohortEvaluation | None
    notes: Sequence[str]
    passed: int
    cases: int
    pictures: Sequence[tuple[str, bytes]]
    faults: Sequence[str]
    intervals: Intervals | None = None

    def rows(self) -> list[Row]:
        """The figures for a table of several models."""
        passed = Row("Passed the checks", "%", 100 * self.passed / max(1, self.cases))
        return [passed, *(figure.row() for figure in self.figures), *cohort_rows(self.cohorts)]

    def lines(self) -> list[str]:
        """The figures as lines of a list for the model card."""
        found = list(self.faults)
        found.append(f"{self.passed} of {self.cases} translations of held-out images pass all checks of MedGen")
        found += map(str, self.figures)
        return [*found, *cohort_lines(self.cohorts, ""), *self.notes]

    def section(self) -> Section:
        """The measurement in the page of the run."""
        rows = [(f.name, f.unit, np.mean(f.values), min(f.values), max(f.values)) for f in self.figures]
        notices = [*self.faults, *(note for note in self.notes if note == INVENTS)]
        parts: list[Part] = [*map(Notice, notices), *(line for line in self.lines() if line not in notices)]
        if rows:
            parts.append(Table(("Measure", "Unit", "Mean", "Least", "Most"), rows))
        parts += [Picture(picture, caption, wide=True) for caption, picture in self.pictures]
        return Section("Measured on held-out people", parts)


def measure_translations(
    manifest: Manifest,
    plan: TranslationPlan,
    cases: Sequence[ImagePair],
    folder: Path,
    device: str,
    progress: ProgressCallback | None = None,
) -> MeasuredTranslation:
    """Translate the source of each held-out case, and compare it with its target, or all of them with all targets.

    The volumes are written to ``folder``; those that are there are kept, so that a killed run goes on.
    """
    chosen = [case for case in cases if case.subject in plan.held_out]
    made, real = cohort_folders(folder)
    facts: list[dict[str, Any]] = []
    pictures: list[tuple[str, bytes]] = []
    stage = Stage("measuring", len(chosen), progress)
    for case in chosen:
        record = folder / f"{case.name}.json"
        if not record.is_file():
            write_json(record, _measured(manifest, plan, case, folder, device))
        facts.append(json.loads(record.read_text(encoding="utf-8")))
        if case.source and len(pictures) < PICTURES:
            pictures.append(_picture(case, plan, made / f"{case.name}.nii.gz", real / f"{case.name}.nii.gz"))
        stage.advance()
    translated = [entry for entry in facts if "passed" in entry]
    notes = sorted({entry["note"] for entry in translated if entry.get("note")})
    cohorts = None
    if not plan.paired:
        training = {c.name: c.target for c in cases if c.subject not in plan.held_out and c.target}
        cohorts, reason = compared(made, real, training, folder, device, progress)
        notes += ["No error was measured, because the images are not pairs", *([reason] if reason else [])]
    if not manifest.settings.paired:
        notes.append(INVENTS)
    return MeasuredTranslation(
        _figures(translated),
        cohorts,
        notes,
        sum(e["passed"] for e in translated),
        len(translated),
        pictures,
        [*_missing(facts), *sorted({entry["fault"] for entry in facts if "fault" in entry})],
        _intervals(manifest, plan, chosen, folder),
    )


def _intervals(
    manifest: Manifest, plan: TranslationPlan, chosen: Sequence[ImagePair], folder: Path
) -> Intervals | None:
    """Half-widths from the errors of the held-out pairs, where both images show the body."""
    if not plan.paired:
        return None
    reach, found = manifest.spacing.native, []
    for case in chosen:
        made, real = (
            read_volume(folder / kind / f"{case.name}.nii.gz", modality=plan.modality) for kind in ("synthetic", "real")
        )
        try:
            inside = _shared(read_volume(case.source, modality=plan.source_modality), real).array > 0
        except InputError:  # an image without a body
            continue
        found.append(errors_of(case.subject, made, resample_to(real, made).array, inside, reach))
    return of_package(found, plan.modality, reach)


def _measured(manifest: Manifest, plan: TranslationPlan, case: ImagePair, folder: Path, device: str) -> dict[str, Any]:
    """Translate a case and compare it; without a source, only its target is kept."""
    target = _target(case, plan)
    if target is not None:
        write_volume(target, folder / "real" / f"{case.name}.nii.gz")
    if case.source is None:
        return {"real_ml": _tissues_ml(target)}
    source = read_volume(case.source, modality=plan.source_modality)
    run = pipeline_of(manifest).prepare(source, devices.pick_device(device), SamplingOptions())
    volume = run.finish(run.decode(run.sample(plan.seed)))
    write_volume(volume, folder / "synthetic" / f"{case.name}.nii.gz")
    found: dict[str, Any] = {"passed": check_translated(volume, source, manifest).passed, "figures": []}
    if target is None:
        return {**found, "made_ml": _tissues_ml(volume)}
    try:
        # Where the outlines differ already in the training data, a source does not tell what lies beyond its own.
        mask = None if manifest.settings.outline else _shared(source, target)
        if mask is not None:
            outside = manifest.output.background
            target = resample_to(target.with_array(target.array.astype(np.float32)), source)
            volume, target = (v.with_array(np.where(mask.array > 0, v.array, outside)) for v in (volume, target))
        found |= {"made_ml": _tissues_ml(volume), "real_ml": _tissues_ml(target)}
        result = _compared(volume, target, mask)
    except InputError as error:
        return {**found, "fault": f"Some errors were not measured: {error}"}
    found["figures"] = [[row.name, row.unit, row.value] for row in result.rows if row.name in SHOWN and not row.label]
    if mask is not None:
        found["note"] = "The errors are those where both images show the body, because their outlines differ"
    found["figures"] += [[f"Dice of {row.name}", "", row.dice] for row in result.anatomy if row.dice is not None]
    return found


def _target(case: ImagePair, plan: TranslationPlan) -> Volume | None:
    """The real target: a CT in HU, an MR on the scale of the model."""
    if case.target is None:
        return None
    target = read_volume(case.target, modality=plan.modality)
    if plan.modality == "CT":
        return target
    return target.with_array(np.clip(1000 * target.array / bright_end(target.array), 0, None))


def _shared(source: Volume, target: Volume) -> LabelMap:
    """Where both images show the body, on the grid of the source."""
    body = resample_to(body_envelope_from_image(target), source).array & body_envelope_from_image(source).array
    return LabelMap(body, source.affine)


def _compared(volume: Volume, target: Volume, mask: LabelMap | None) -> Evaluation:
    if volume.modality != "CT":
        return evaluate(volume, target, mask, resample=True)
    find = segmenter(TISSUES, "cpu")
    return evaluate(volume, target, mask, find(target), find, resample=True)


def _tissues_ml(volume: Volume) -> dict[str, float]:
    """Tissue -> amount in a CT; empty for other images."""
    if volume.modality != "CT":
        return {}
    labels = segmenter(TISSUES, "cpu")(volume)
    voxel = float(np.prod(volume.spacing)) / 1000
    return {name: float((labels.array == value).sum() * voxel) for value, name in labels.names.items() if value}


def _missing(facts: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on each tissue that real images show and translations do not."""
    real, made = Counter(), Counter()
    for entry in facts:
        real.update(entry.get("real_ml", {}))
        made.update(entry.get("made_ml", {}))
    dice = {figure.name: float(np.mean(figure.values)) for figure in _figures(facts)}
    sentences = []
    for name, amount in real.items():
        share = amount / max(real.total(), 1e-6)
        relative = made[name] / max(made.total(), 1e-6) / share if share > SCARCE else 1.0
        found = dice.get(f"Dice of {name}", relative)
        if share > SCARCE and found < MISSING:
            what = "its Dice" if f"Dice of {name}" in dice else "its amount relative to real images"
            sentences.append(
                f"The model misses {name}: {what} is {found:.2f} on people kept out, below {MISSING}; do not use its "
                f"{name}, and train longer or on images that match better."
            )
    return sentences


def _figures(facts: Sequence[dict[str, Any]]) -> list[Figure]:
    values: dict[tuple[str, str], list[float]] = {}
    for entry in facts:
        for name, unit, value in entry.get("figures", ()):
            if value is not None:
                values.setdefault((name, unit), []).append(value)
    return [Figure(*key, found) for key, found in values.items()]


def _picture(case: ImagePair, plan: TranslationPlan, made: Path, real: Path) -> tuple[str, bytes]:
    """Source, translation and, if there is one, the real target in planes through the middle."""
    from MedGenLib.visual.planes import translation_planes

    source = read_volume(case.source, modality=plan.source_modality)
    images = {"Source": source, "Translation": read_volume(made, modality=plan.modality)}
    if real.is_file():
        images["Real image"] = resample_to(read_volume(real, modality=plan.modality), source)
    return f"{case.name}: {', '.join(images).lower()}.", translation_planes(images)
