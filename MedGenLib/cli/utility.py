"""`medgen evaluate utility`: utility of synthetic images for training a segmenter."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.arguments import add_arguments, natural, positive
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table

if TYPE_CHECKING:
    from MedGenLib.evaluation.utility import Utility, UtilityRow
    from MedGenLib.io.atomic import Outputs

HEADS = ("Trained on", "Cases", "Label", "Dice", "95 % interval", "Against real", "SD of repeats")
FILES = ("report.html", "metrics.json", "metrics.csv", "dice.png")


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("--real", required=True, type=Path, metavar="DIR", help="real training cases")
    parser.add_argument("--synthetic", required=True, type=Path, metavar="DIR", help="synthetic training cases")
    parser.add_argument("--test", required=True, type=Path, metavar="DIR", help="held-out real cases")
    parser.add_argument(
        "--steps", type=positive, default=300, metavar="N", help="steps of each training (default: 300)"
    )
    parser.add_argument("--repeats", type=positive, default=3, metavar="K", help="trainings per set (default: 3)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the trainings (default: 0)")
    add_arguments(parser, "evaluate", "report", "overwrite", "device")


@command(
    "evaluate utility",
    "measure the utility of synthetic images for training a segmenter",
    "Trains the small segmenter on real, on synthetic and on both, tests each on real images and prints Dice with "
    "confidence intervals. A folder holds `images` and `labels` with equal file names.",
    extra_arguments,
)
def utility(arguments: Namespace, console: Console) -> int:
    """Train on real, synthetic and both, test on real, and print Dice with its interval."""
    from MedGenLib.evaluation.folders import report_folder

    folder = arguments.report
    wanted = report_folder(folder, FILES, arguments.overwrite) if folder else nullcontext()
    with wanted as outputs:
        from MedGenLib.evaluation.utility import utility as measure  # trains, so imports torch

        result = measure(
            arguments.real,
            arguments.synthetic,
            arguments.test,
            steps=arguments.steps,
            repeats=arguments.repeats,
            seed=arguments.seed,
            device=arguments.device,
            progress=console,
        )
        if outputs is not None:
            write_report(result, outputs, folder)
            outputs.commit()
    console.say(table(HEADS, cells(result)))
    console.say(result.note)
    if folder is not None:
        console.wrote(f"{folder / FILES[0]}")
    return 0


def cells(result: Utility) -> list[tuple[str, ...]]:
    """The rows of the table as text, under `HEADS`."""
    return [
        (
            row.training,
            str(row.cases),
            row.name,
            f"{row.dice:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            _against_real(row),
            "-" if row.repeat_sd is None else f"{row.repeat_sd:.3f}",
        )
        for row in result.rows
    ]


def write_report(result: Utility, outputs: Outputs, folder: Path) -> None:
    """Write the files of `FILES` to their staged paths."""
    from MedGenLib.evaluation.folders import write_files
    from MedGenLib.evaluation.html import Picture, Section, Table, page
    from MedGenLib.evaluation.tables import csv_text, json_text

    figures, picture = result.to_dict(), draw(result)
    sections = [
        Section(
            "Dice on real test cases",
            [
                result.note,
                "All trainings have the same number of steps; only their cases differ. The interval "
                "against real is of the difference on the same cases: "
                "where it does not contain 0, the two differ.",
                Table(HEADS, cells(result)),
                Picture(picture, "Bars: mean over test cases and repeats; whiskers: 95 % interval."),
            ],
        )
    ]
    html = page("Can the synthetic images train a segmenter?", sections)
    contents = (html, json_text(figures), csv_text(figures["rows"]), picture)
    write_files(outputs, folder, dict(zip(FILES, contents, strict=True)))


def draw(result: Utility) -> bytes:
    """Dice of each label by training set, with intervals, as PNG."""
    from MedGenLib.visual.figures import FIRST, MUTED, SECOND, new_figure, png

    colors = {"real": FIRST, "synthetic": SECOND, "both": MUTED}
    groups = list(dict.fromkeys(row.name for row in result.rows))
    figure, axes = new_figure(2.2 + 1.6 * len(groups), 3.6)
    for offset, (training, color) in enumerate(colors.items()):
        rows = [row for row in result.rows if row.training == training]
        places = [group + 0.26 * (offset - 1) for group in range(len(groups))]
        reach = [[r.dice - r.low for r in rows], [r.high - r.dice for r in rows]]
        axes.bar(places, [row.dice for row in rows], 0.24, yerr=reach, capsize=4, color=color, label=training)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("Dice")
    axes.set_ylim(0, 1)
    axes.legend(title="Trained on", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return png(figure)


def _against_real(row: UtilityRow) -> str:
    if row.difference is None:
        return "-"
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"
