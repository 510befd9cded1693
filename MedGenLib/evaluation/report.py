"""The files of an evaluation: report.html, metrics.json, metrics.csv, and the error map as a volume.

with report_folder(folder, file_names(cohort)) as outputs:
    write(cohort, outputs, folder)
    outputs.commit()
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from MedGenLib import __version__
from MedGenLib.evaluation.cases import SHOWN, Cohort
from MedGenLib.evaluation.folders import write_files
from MedGenLib.evaluation.html import Notice, Part, Picture, Section, Table, Values, page
from MedGenLib.evaluation.pair import Evaluation
from MedGenLib.evaluation.tables import Summary, csv_text, json_text, summary
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import write_volume
from MedGenLib.io.provenance import Provenance, content_hash
from MedGenLib.metrics.compare import ImageMeasure
from MedGenLib.visual import figures, planes

REPORT, JSON, CSV, ERROR_MAP = "report.html", "metrics.json", "metrics.csv", "error_map.nii.gz"
_HEADLINE = ("MAE", "PSNR", "SSIM", "MS-SSIM", "Dice")
_SHORT = ("MAE", "RMSE", "Bias", "Dice", "HD95", "Volume difference")
"""Measures of a label shown on a page or terminal; the JSON has all."""
_MOST_LABELS = 30  # of a plot
_MANY = 40
"""Number of cases above which the page lists only the worst ones; the CSV has all."""


def file_names(single: bool, reference: bool) -> list[str]:
    """Names of the files that `write` writes; a single image with a reference has an error map."""
    return [REPORT, JSON, CSV, *([ERROR_MAP] if single and reference else [])]


def write(evaluated: Evaluation | Cohort, outputs: Outputs, folder: Path) -> None:
    """Write the files of `file_names` to their staged paths.

    metrics.json has everything; metrics.csv has one row per measure: case, label, name, value, unit, sentence. A failed
    case has one row named "failed".
    """
    cohort = evaluated if isinstance(evaluated, Cohort) else Cohort((evaluated,))
    single = evaluated if isinstance(evaluated, Evaluation) else None
    data: dict[str, Any] = {
        "software": f"MedGen {__version__}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **cohort.to_dict(),
    }
    if single is None:
        data["summary"] = [
            {"label": row.label, "name": row.name, "unit": row.unit, **vars(found)} for row, found in summaries(cohort)
        ]
    html = _single_page(single) if single else _cohort_page(cohort)
    write_files(outputs, folder, {REPORT: html, JSON: json_text(data), CSV: csv_text(csv_rows(cohort))})
    if single and single.comparison:
        difference = single.comparison.difference
        facts = Provenance(
            content="error map",
            unit=difference.unit,
            task="evaluate",
            inputs=single.inputs,
            created=data["created"],
            output_sha256=content_hash(difference),
            software={"medgen": __version__},
        )
        write_volume(difference, outputs.staged(folder / ERROR_MAP), facts)


def csv_rows(cohort: Cohort) -> list[dict[str, Any]]:
    """One row per measure and per failure."""
    rows = [{"case": case.name, "label": row.label, **asdict(row)} for case in cohort.cases for row in case.figures]
    return rows + [{"case": failed.name, "name": "failed", "sentence": failed.sentence} for failed in cohort.failures]


def summaries(cohort: Cohort) -> list[tuple[ImageMeasure, Summary]]:
    """Each measure with a value in any case, and its summary over the cases."""
    found: dict[tuple[str, str, str], list[ImageMeasure]] = defaultdict(list)
    for row in (row for case in cohort.cases for row in case.figures):
        if row.value is not None and row.name != "Voxels":
            found[row.label, row.name, row.unit].append(row)
    # Whole image first, then labels in the order of the first case that has them.
    order = list(dict.fromkeys(label for label, _, _ in found))
    same = sorted(found.values(), key=lambda rows: order.index(rows[0].label))
    return [(rows[0], summary([row.value for row in rows])) for rows in same]


def short_list(described: Sequence[tuple[ImageMeasure, Summary]]) -> list[tuple[ImageMeasure, Summary]]:
    """The part of `summaries` shown in tables."""
    return [pair for pair in described if not pair[0].label or pair[0].name in _SHORT]


def _single_page(case: Evaluation) -> str:
    sections = [
        Section("Result", [_values(case), *_note(case)]),
        Section("Pictures", _pictures(case)),
        Section("Error inside the region", _whole(case)),
        Section("Error of each label", _labels(case)),
        Section("Anatomy", _anatomy(case)),
        Section("Uncertainty", _uncertainty(case)),
        Section("What was compared", _inputs(case)),
    ]
    return page(f"Evaluation of {case.name}" if case.name else "Evaluation", sections, _subtitle(case))


def _subtitle(case: Evaluation) -> str:
    against = [f"{source.role} {source.name}" for source in case.inputs[1:] if source.name]
    return f"Against {', '.join(against)}." if against else ""


def _values(case: Evaluation) -> Values:
    """Key figures."""
    entries = [(row.name, row.value, row.unit) for row in case.rows if row.name in _HEADLINE and not row.label]
    if case.mean_dice is not None:
        entries.append(("Mean Dice", case.mean_dice, ""))
    return Values(entries)


def _note(case: Evaluation) -> list[Part]:
    return [case.note] if case.note else []


def _pictures(case: Evaluation, worst: bool = True) -> list[Part]:
    """Image, reference and difference in three planes, with `worst` also in the worst planes; then the labels."""
    parts: list[Part] = []
    if case.image is None:
        return parts
    if case.comparison:
        middle = planes.difference_planes(case.image, case.comparison)
        parts.append(Picture(middle, "Planes through the middle of the region.", wide=True))
        if worst:
            found = planes.difference_planes(case.image, case.comparison, worst=True)
            caption = "Planes with the largest sum of absolute errors."
            parts.append(Picture(found, caption, wide=True))
    if case.wanted and case.found:
        caption = "The labels in the mask, and as found in the image."
        parts.append(Picture(planes.label_planes(case.image, case.wanted, case.found), caption, wide=True))
    return parts


def _whole(case: Evaluation) -> list[Part]:
    if not case.rows:
        return []
    rows = [(row.name, row.value, row.unit, row.sentence) for row in case.rows if not row.label]
    parts: list[Part] = [Table(("Measure", "Value", "Unit", "In words"), rows)]
    if case.comparison:
        parts += [
            Picture(
                figures.bland_altman(case.comparison),
                "Bland-Altman: difference over mean, with bias and limits of agreement.",
            ),
            Picture(figures.histogram(case.comparison), "Histogram of the voxels compared."),
        ]
    return parts


def _labels(case: Evaluation) -> list[Part]:
    rows = [row for row in case.rows if row.label]
    if not rows:
        return []
    names = list(dict.fromkeys(row.name for row in rows))
    labels = list(dict.fromkeys(row.label for row in rows))
    values = {(row.label, row.name): row.value for row in rows}
    heads = [_headed(row.name, row.unit) for row in rows[: len(names)]]
    table = Table(("Label", *heads), [(label, *(values[label, n] for n in names)) for label in labels])
    bars = figures.label_errors(rows)
    caption = "Mean absolute error and bias of each label."
    return [table, *([Picture(bars, caption)] if bars else [])]


def _headed(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _anatomy(case: Evaluation) -> list[Part]:
    if not case.anatomy:
        return []
    rows = [
        (row.name, row.dice, row.hd95_mm, row.wanted_ml, row.found_ml, row.difference_ml, row.difference_percent)
        for row in case.anatomy
    ]
    heads = ("Label", "Dice", "HD95 (mm)", "Mask (ml)", "Image (ml)", "Difference (ml)", "Difference (%)")
    caption = (
        "HD95: 95 % Hausdorff distance, the larger of both directions. A dash: not defined, "
        "as the label is missing on one side."
    )
    dice = [(row.name, row.dice) for row in case.anatomy if row.dice is not None]
    bars = Picture(figures.dice_bars(dice[:_MOST_LABELS]), "Overlap of each label.")
    missing = [Notice(row.sentence) for row in case.anatomy if not (row.wanted_ml and row.found_ml)]
    return [Table(heads, rows, caption), *missing, bars]


def _uncertainty(case: Evaluation) -> list[Part]:
    if case.calibration is None:
        return []
    rows = [(row.name, row.value, row.sentence) for row in case.calibration.rows]
    picture = figures.uncertainty_bins(case.calibration, case.rows[0].unit)
    caption = "Voxels in tenths by their uncertainty, with the mean error of each."
    return [Table(("Measure", "Value", "In words"), rows), Picture(picture, caption)]


def _inputs(case: Evaluation) -> list[Part]:
    rows = [(source.role.capitalize(), source.name or "-", source.sha256) for source in case.inputs]
    parts: list[Part] = [Table(("Role", "File", "SHA-256 of the content"), rows)]
    if case.made is not None:
        facts = {
            "Model": f"{case.made.model} {case.made.version}",
            "Seed": case.made.seed,
            "Preset": case.made.preset,
            "Made": case.made.created,
        }
        shown = [(name, str(fact)) for name, fact in facts.items() if fact is not None]
        parts.append(Table(("Recorded in the image", ""), shown))
    return parts


def _cohort_page(cohort: Cohort) -> str:
    count, failed = len(cohort.cases), len(cohort.failures)
    described = summaries(cohort)
    sections = [
        Section("Result", _cohort_result(cohort, described)),
        Section("Cases that failed", _failures(cohort)),
        Section("All cases", _cohort_table(described, labels=False)),
        Section("Each label over the cases", _cohort_labels(cohort, described)),
        Section("Cases, worst first", _case_list(cohort)),
        *(
            Section(
                f"Worst, {place} of {count}: {case.name}", [_values(case), *_note(case), *_pictures(case, worst=False)]
            )
            for place, case in enumerate(cohort.cases[:SHOWN], 1)
        ),
    ]
    images = f"{count} image{'s' if count != 1 else ''} evaluated"
    return page("Evaluation of a cohort", sections, f"{images}, {failed} failed." if failed else f"{images}.")


def _cohort_result(cohort: Cohort, described: Sequence[tuple[ImageMeasure, Summary]]) -> list[Part]:
    parts: list[Part] = []
    if cohort.failures:
        total = len(cohort.cases) + len(cohort.failures)
        parts.append(
            Notice(f"{len(cohort.failures)} of {total} cases could not be evaluated and are not in the figures below.")
        )
    entries = [
        (f"Mean {row.name}", found.mean, row.unit)
        for row, found in described
        if row.name in _HEADLINE and not row.label
    ]
    dice = [found.mean for row, found in described if row.name == "Dice"]
    if dice:
        entries.append(("Mean Dice", sum(dice) / len(dice), ""))
    return [*parts, Values(entries)] if entries else parts


def _failures(cohort: Cohort) -> list[Part]:
    rows = [(failure.name, failure.sentence) for failure in cohort.failures]
    parts: list[Part] = [Table(("Case", "Why"), rows)] if rows else []
    return parts + [Notice(sentence) for sentence in cohort.unmatched]


def _cohort_table(described: Sequence[tuple[ImageMeasure, Summary]], labels: bool) -> list[Part]:
    """Table of the whole images, or of their labels."""
    shown = [(row, found) for row, found in short_list(described) if bool(row.label) == labels]
    if not shown:
        return []
    rows = [(row.label, row.name, row.unit, *astuple(found)) for row, found in shown]
    heads = ("Label", "Measure", "Unit", "Cases", "Mean", "SD", "Median", "95 % CI from", "to")
    caption = "SD over the cases (n - 1); confidence interval of the mean by Student's t, assuming independent cases."
    return [Table(heads, rows, caption) if labels else Table(heads[1:], [row[1:] for row in rows], caption)]


def _cohort_labels(cohort: Cohort, described: Sequence[tuple[ImageMeasure, Summary]]) -> list[Part]:
    table = _cohort_table(described, labels=True)
    pictures: list[Part] = []
    for name, title in (("MAE", "Mean absolute error"), ("Dice", "Dice")):
        figures_of = [row for case in cohort.cases for row in case.figures if row.label and row.name == name]
        values: dict[str, list[float]] = defaultdict(list)
        for row in figures_of:
            if row.value is not None:
                values[row.label].append(row.value)
        if values:
            unit = figures_of[0].unit
            shown = dict(list(values.items())[:_MOST_LABELS])
            axis = f"{name} in {unit}" if unit else name
            pictures.append(Picture(figures.case_boxes(shown, axis), f"{title} over the cases."))
    return [*pictures, *table]


def _case_list(cohort: Cohort) -> list[Part]:
    if not cohort.cases:
        return []
    whole = dict.fromkeys((row.name, row.unit) for case in cohort.cases for row in case.rows if not row.label)
    heads = ["Case", *(_headed(*measure) for measure in whole), "Mean Dice"]
    rows = []
    for case in cohort.cases[:_MANY]:
        values = {row.name: row.value for row in case.rows if not row.label}
        rows.append((case.name, *(values.get(name) for name, _ in whole), case.mean_dice))
    if all(row[-1] is None for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    more = len(cohort.cases) - len(rows)
    table = Table(heads, rows, f"And {more} more in {CSV}." if more else "")
    if whole:
        axis, bars = f"MAE in {next(iter(whole))[1]}", [(case.name, case.badness) for case in cohort.cases]
    else:
        axis, bars = "mean Dice", [(case.name, 1 - case.badness) for case in cohort.cases]
    picture = figures.case_bars(bars, axis, sum(value for _, value in bars) / len(bars))
    return [Picture(picture, "Each case, worst first.", wide=True), table]
