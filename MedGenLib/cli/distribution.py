"""`medgen evaluate distribution SYNTHETIC --reference REAL [--training DIR] [--report DIR]`."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.arguments import add_arguments, natural
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table

if TYPE_CHECKING:
    from MedGenLib.evaluation.cohorts import CohortEvaluation


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("image", metavar="SYNTHETIC", type=Path, help="folder of volumes")
    parser.add_argument("--reference", required=True, type=Path, metavar="REAL", help="folder of real volumes")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="training images of the model, to find memorized ones"
    )
    parser.add_argument(
        "--features",
        default="medgen-features",
        metavar="NAME|FILE",
        help="feature package (default: medgen-features) or a local file of RadImageNet's ResNet-50 weights",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of the resampling")
    add_arguments(parser, "evaluate", "report", "overwrite", "device")


@command(
    "evaluate distribution",
    "compare a cohort of synthetic images with a real one",
    "FID 2.5-D with its confidence interval and FID-infinity, MMD, precision, recall, density and coverage, diversity, "
    "and for each image its nearest training image.",
    extra_arguments,
)
def distribution(arguments: Namespace, console: Console) -> int:
    """Folders of volumes -> measures on the console and optionally a report."""
    from MedGenLib.evaluation.cohorts import FILES, evaluate_cohorts
    from MedGenLib.evaluation.folders import report_folder, require_apart, write_files

    report = contextlib.nullcontext()
    if arguments.report is not None:  # the path is checked before the work
        folders = (arguments.image, arguments.reference, arguments.training)
        require_apart(arguments.report, folders)
        report = report_folder(arguments.report, FILES, arguments.overwrite)
    with report as outputs:
        result = evaluate_cohorts(
            arguments.image,
            arguments.reference,
            arguments.training,
            features=arguments.features,
            seed=arguments.seed,
            device=arguments.device,
            progress=console,
        )
        if outputs is not None:
            write_files(outputs, arguments.report, result.files())
            outputs.commit()
    describe(result, console)
    console.wrote(*(outputs.paths if outputs is not None else ()))
    return 0


def describe(result: CohortEvaluation, console: Console) -> None:
    """Print the table of measures, and each synthetic image that looks like a copy."""
    from MedGenLib.evaluation.html import number

    measures = result.comparison.measures
    rows = [(m.name, number(m.value), _interval(m.low, m.high)) for m in measures]
    console.say(f"{result.comparison.note} Features of {result.network}.")
    console.say(table(("measure", "value", "95 % interval"), rows))
    for measure in measures:
        if measure.value is None:
            console.say(measure.sentence)
    if result.memorization is not None:
        console.say(result.memorization.note)
        for copy in result.memorization.copies:
            console.note(f"warning: {copy.sentence}")
    for note in result.notes:
        console.note(note)


def _interval(low: float | None, high: float | None) -> str:
    from MedGenLib.evaluation.html import number

    return "" if low is None else f"{number(low)} to {number(high)}"
