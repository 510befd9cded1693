"""The scores of a study as scores.json, scores.csv, report.html and two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path

import numpy as np

from MedGenLib.evaluation.folders import report_folder, write_files
from MedGenLib.evaluation.html import Picture, Section, Table, Values, page
from MedGenLib.evaluation.tables import csv_text, json_text
from MedGenLib.reader_study.scoring import ALL, CHANCE, LITERATURE, Answers, ReaderMeasure, Scores
from MedGenLib.visual.figures import DARK, MUTED, new_figure, png

REPORT = "report.html"
FILES = (REPORT, "scores.json", "scores.csv", "roc.png", "accuracy.png")
COLORS = ("#2c6fad", "#d1602b", "#3f8f4f", "#8a5fb0", "#a8781f", "#2a9c96", "#b0447a")
_WAYS = (
    "The accuracy's interval is the exact one of the binomial distribution (Clopper and Pearson), "
    "with a coverage of at least 95 %; the mid-P interval has a coverage of 95 % on average. d' "
    "has the log-linear correction of Hautus. The AUC comes from answer and confidence, its "
    "interval from method 5 of Newcombe. For several readers the verdict uses the interval over "
    'whole images, resampled 2,000 times. "Synthetic" is the positive answer.'
)


def write_report(scores: Scores, folder: str | Path, overwrite: bool = False) -> Path:
    """Write all files of the report, together or not at all.

    Returns
    -------
    The path of the page.

    Raises
    ------
    InputError: a file exists (without `overwrite`), or the folder cannot be written.
    """
    folder = Path(folder)
    with report_folder(folder, FILES, overwrite) as outputs:
        pictures = {"roc.png": roc_picture(scores.readers), "accuracy.png": _accuracy(scores.rows)}
        texts = {
            "scores.json": json_text(scores.to_dict()),
            "scores.csv": csv_text([asdict(row) for row in scores.rows]),
            REPORT: _page(scores, pictures),
        }
        write_files(outputs, folder, pictures | texts)
        outputs.commit()
    return folder / REPORT


def table_of(scores: Scores) -> list[list[str]]:
    """One row per reader and one for all: accuracy with interval, and the other measures."""
    columns = ("Accuracy", "Sensitivity", "Specificity", "d'", "AUC", "Median time")
    rows = []
    for label in [*(answers.reader for answers in scores.readers), ALL]:
        found = {row.name.removeprefix("Mean "): row for row in scores.rows if row.label == label}
        rows.append([label, *(_cell(found.get(name)) for name in columns)])
    return rows


TABLE_HEADS = ("Reader", "Accuracy %", "Sensitivity %", "Specificity %", "d'", "AUC", "Time s")


def _cell(row: ReaderMeasure | None) -> str:
    if row is None or row.value is None:
        return "–"
    digits = 1 if row.unit else 2
    value = f"{row.value:.{digits}f}"
    return value if row.low is None else f"{value} ({row.low:.{digits}f} to {row.high:.{digits}f})"


def _page(scores: Scores, pictures: dict[str, bytes]) -> str:
    accuracy, table = scores.value("Accuracy"), table_of(scores)
    values = [("Accuracy", f"{accuracy.value:.1f}", f"% ({accuracy.low:.1f} to {accuracy.high:.1f})")]
    shown = [row for row in scores.rows if row.label == ALL and row.name in ("Mean AUC", "Fleiss' kappa")]
    values += [(row.name, _cell(row), "") for row in shown]
    words = [row.sentence for row in scores.rows if row.name == "Accuracy"]
    details = [(row.label, row.name, row.value, row.unit, row.low, row.high, row.interval) for row in scores.rows]
    heads = ("Reader", "Measure", "Value", "Unit", "From", "To", "Interval (95 %)")
    brackets = "In brackets: 95 % intervals. For all readers, d' and AUC are means."
    against = (
        f"Accuracy of each reader with its exact 95 % interval, against guessing and the {LITERATURE:.0f} % of the "
        "literature."
    )
    readers = [
        Table(TABLE_HEADS, table, brackets, frozenset({len(table) - 1})),
        Picture(pictures["accuracy.png"], against),
        Picture(pictures["roc.png"], "ROC from answer and confidence; the diagonal is guessing."),
    ]
    sections = [
        Section("Result", [Values(values), *words, scores.note]),
        Section("Readers", readers),
        Section("All measures", [Table(heads, details)]),
        Section("Methods", [_WAYS]),
    ]
    return page("Reader study: real or synthetic?", sections, scores.title)


def roc_picture(readers: Sequence[Answers]) -> bytes:
    """The empirical ROC of each reader with answers to both kinds of images."""
    figure, axes = new_figure(5.2, 5.2)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    drawn = [answers for answers in readers if answers.has_both]
    for answers, color, marker in zip(drawn, cycle(COLORS), cycle("os^Dv"), strict=False):
        axes.plot(*answers.roc(), label=answers.reader, markersize=4, linewidth=1.6, color=color, marker=marker)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="real images called synthetic (1 - specificity)", ylabel="synthetic images found (sensitivity)")
    if drawn:
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    return png(figure)


def _accuracy(rows: Sequence[ReaderMeasure]) -> bytes:
    """Accuracy and exact interval of each reader and of all."""
    shown = [row for row in rows if row.name == "Accuracy"]
    figure, axes = new_figure(5.2, 1.7 + 0.36 * len(shown), grid="x")
    places = np.arange(len(shown))[::-1]
    above = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
    for place, row in zip(places, shown, strict=True):
        color = DARK if row.label == ALL else COLORS[0]
        axes.plot([row.low, row.high], [place, place], color=color, linewidth=2.4)
        axes.plot(row.value, place, "o", color=color, markersize=7)
        axes.annotate(f"{row.value:.1f} %", (row.value, place), **above, fontsize=8, color=color)
    for value, name, side in ((CHANCE, "guessing", "right"), (LITERATURE, "literature", "left")):
        axes.axvline(value, color=MUTED, linewidth=1.2, linestyle="--")
        words, top = f" {name} {value:.0f} % ", axes.get_xaxis_transform()
        axes.text(value, 1, words, transform=top, ha=side, va="bottom", fontsize=8, color=MUTED)
    axes.set(yticks=places, yticklabels=[row.label for row in shown])
    axes.set(xlim=(0, 100), ylim=(-0.6, len(shown) - 0.3), xlabel="accuracy in %")
    return png(figure)
