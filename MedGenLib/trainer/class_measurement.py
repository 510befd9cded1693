"""Measurement of a trained classifier on the people that were kept out of its training and its calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from MedGenLib.classification import NO_DIAGNOSIS, prepared, scores_of, shares
from MedGenLib.classification.grid import PICTURE
from MedGenLib.devices import pick_device
from MedGenLib.evaluation.html import Notice, Part, Picture, Section, Table
from MedGenLib.evaluation.tables import csv_text
from MedGenLib.io.atomic import replacing
from MedGenLib.io.pictures import read_image
from MedGenLib.metrics.classification import auc, calibration_error, exact_interval, interval, reliability
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.reader_study.statistics import auc_interval
from MedGenLib.trainer.class_plan import ClassifierPlan
from MedGenLib.trainer.datasets import ClassifiedImage
from MedGenLib.trainer.measurement import Row

PREDICTIONS = "predictions.csv"
INTERVALS = (
    "95 % intervals by bootstrap over people; where all resamples have the same value, the exact one of a proportion, "
    "or Newcombe's of an AUC, of as many people."
)
CUT = 0.5
"""Probability from which one of several classes is said to apply."""


@dataclass(frozen=True)
class MeasuredClasses:
    """Probabilities (cases, classes) of the held-out cases, with and without calibration, and what is true.

    `truth` is -1 where it is unknown; `people` are the persons of the cases.
    """

    plan: ClassifierPlan
    temperature: float
    raw: np.ndarray
    found: np.ndarray
    truth: np.ndarray
    people: np.ndarray

    @cached_property
    def measures(self) -> list[Row]:
        """Accuracy, and the AUC of each class, which two classes of which one applies have in common."""
        found = [] if self.plan.several else [self._measure("Accuracy", lambda n: float(self._hits[n].mean()))]
        names = list(enumerate(self.plan.classes))
        for number, name in names[:1] if len(names) == 2 and not self.plan.several else names:
            found.append(self._measure(f"AUC of {name}", lambda n, c=number: self._auc(n, c), number))
        return [measure for measure in found if measure is not None]

    def _measure(
        self, name: str, figure: Callable[[np.ndarray], float | None], number: int | None = None
    ) -> Row | None:
        """A figure with its interval; where all resamples agree, that of the same figure of as many people."""
        value = figure(np.arange(len(self.people)))
        if value is None:
            return None
        limits = interval(figure, self.people)
        if limits and limits[0] == limits[1]:
            groups = [self.truth[:, number] == t for t in (1, 0)] if number is not None else []
            counts = [len(set(self.people[group])) for group in groups]
            everyone = len(set(self.people))
            limits = auc_interval(value, *counts) if counts else exact_interval(round(value * everyone), everyone)
        return Row(name, "", value, *(limits or ()))

    def _auc(self, cases: np.ndarray, number: int) -> float | None:
        known = cases[self.truth[cases, number] >= 0]
        return auc(self.found[known, number], self.truth[known, number]) if len(known) else None

    @property
    def _hits(self) -> np.ndarray:
        return self.found.argmax(1) == self.truth.argmax(1)

    def said(self, calibrated: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities that were said, and whether they came true: of the chosen class, or of each known one."""
        shares_ = self.found if calibrated else self.raw
        if self.plan.several:
            known = self.truth >= 0
            return shares_[known], self.truth[known] == 1
        return shares_.max(1), self._hits

    def confusion(self) -> Table:
        """Cases by true and by found class; of several, those found and missed of each class."""
        names = self.plan.classes
        if self.plan.several:
            rows = []
            for number, name in enumerate(names):
                true, said = self.truth[:, number], self.found[:, number] >= CUT
                rows.append((name, *(int(((true == t) & (said == s)).sum()) for t in (1, 0) for s in (True, False))))
            heads = ("Class", "true, found", "true, missed", "false, found", "false, not found")
            return Table(heads, rows, f"Held-out images; a class is found from a probability of {CUT:g}.")
        true, said = self.truth.argmax(1), self.found.argmax(1)
        rows = [
            (name, *(int(((true == t) & (said == s)).sum()) for s in range(len(names)))) for t, name in enumerate(names)
        ]
        return Table(("True class", *(f"found: {name}" for name in names)), rows, "Held-out images.")

    def rows(self) -> list[Row]:
        """The figures for a table of several models."""
        return [*self.measures, Row("Calibration error", "", calibration_error(*self.said()))]

    @property
    def faults(self) -> list[str]:
        """Sentences on classes that the model may not know better than chance does."""
        weak = [m.name.removeprefix("AUC of ") for m in self.measures if m.name != "Accuracy" and (m.low or 0) <= 0.5]
        return [f"The model may find no better than by chance: {', '.join(weak)}."] if weak else []

    def lines(self) -> list[str]:
        """The figures as lines of a list for the model card."""
        errors = [calibration_error(*self.said(calibrated)) for calibrated in (False, True)]
        most = np.bincount(self.truth.argmax(1)).max() / len(self.truth)
        usual = "" if self.plan.several else f"; the most frequent class alone: {most:.3g}"
        table = self.confusion()
        return [
            f"{len(self.people)} images of {len(set(self.people))} people{usual}",
            *map(_line, self.measures),
            f"Calibration error: {errors[1]:.3g}, without the temperature of {self.temperature:.3g} {errors[0]:.3g}",
            *("; ".join(f"{head} {cell}" for head, cell in zip(table.headers, row, strict=True)) for row in table.rows),
            *self.faults,
            NO_DIAGNOSIS,
        ]

    def section(self) -> Section:
        """The measurement in the page of the run."""
        rows = [(m.name, m.value, m.low, m.high) for m in self.measures]
        parts: list[Part] = [
            *map(Notice, [NO_DIAGNOSIS, *self.faults]),
            *(line for line in self.lines() if line.startswith(("Calibration", str(len(self.people))))),
            Table(("Measure", "Value", "Low", "High"), rows, INTERVALS),
            self.confusion(),
            Picture(self._diagram(), "Reliability: how often what is said with a probability is right."),
        ]
        return Section("Measured on held-out people", parts)

    def _diagram(self) -> bytes:
        from MedGenLib.visual.figures import FIRST, MUTED, SECOND, new_figure, png

        figure, axes = new_figure(4.6, 4.2)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for calibrated, color, label in ((False, SECOND, "network"), (True, FIRST, "calibrated")):
            said, seen, _ = zip(*reliability(*self.said(calibrated)), strict=True)
            axes.plot(said, seen, "o-", color=color, label=label, linewidth=1.2)
        axes.set(xlabel="probability", ylabel="share that is right", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(frameon=False)
        return png(figure)


def _line(row: Row) -> str:
    interval_ = "no interval" if row.low is None else f"95 % interval {row.low:.3g} to {row.high:.3g}"
    return f"{row.name}: {row.value:.3g} ({interval_})"


def measure_classes(
    manifest: Manifest,
    plan: ClassifierPlan,
    cases: Sequence[ClassifiedImage],
    folder: Path,
    device: str,
    progress: ProgressCallback | None = None,
) -> MeasuredClasses:
    """Classify each held-out case as `MedGenLib.classify` does; the probabilities are written to ``folder``."""
    from MedGenLib.pipelines.loading import network

    chosen = [case for case in cases if case.subject in plan.held_out]
    net = network(manifest, "classifier", pick_device(device))
    stage, scores = Stage("measuring", len(chosen), progress), []
    for case in chosen:
        image = read_image(case.image, None if plan.modality == PICTURE else plan.modality)
        scores.append(scores_of(net, prepared(image, manifest)[1][None])[0])
        stage.advance()
    settings, stacked = manifest.settings, np.array(scores)
    raw, found = (shares(stacked, temperature, plan.several) for temperature in (1.0, settings.temperature))
    targets = [[case.targets[n] for n in plan.numbers] for case in chosen]
    truth = np.array([[-1 if target is None else target for target in row] for row in targets])
    rows = [
        {"case": case.name, "person": case.subject, **dict(zip(plan.classes, values.round(6), strict=True))}
        for case, values in zip(chosen, found, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / PREDICTIONS) as temporary:
        temporary.write_text(csv_text(rows), encoding="utf-8")
    people = np.array([case.subject for case in chosen])
    return MeasuredClasses(plan, settings.temperature, raw, found, truth, people)
