"""`medgen plan DATASET [-o plan.json]`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.train import LAYOUTS, choices_of, dataset_arguments


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("data_set", metavar="DATASET", help="folder of images and labels, or a CSV file")
    parser.add_argument("-o", "--output", type=Path, metavar="PLAN.json", help="file to write the plan to")
    dataset_arguments(parser)


@command(
    "plan",
    "show how a model would be trained on your images",
    "Every case is inspected, a few steps are timed, and each choice is printed with its reason; nothing is trained. "
    "`medgen train` with the same options makes the same choices.",
    extra_arguments,
    epilog=LAYOUTS,
)
def plan(arguments: Namespace, console: Console) -> int:
    """Print the plan, and the cases that cannot be used."""
    from MedGenLib.io.files import check_output_path
    from MedGenLib.trainer.run import plan_of

    if arguments.output is not None:  # the path is checked before the work
        check_output_path(arguments.output, (".json",), new_folder=True)
    choices = choices_of(arguments)
    dataset = choices.data(arguments.data_set)
    made, problems = plan_of(dataset, choices, arguments.device, arguments.threads, progress=console)
    console.say(made.text())
    for problem in problems:
        console.note(f"left out: {problem.case}: {problem.sentence}")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        made.write(arguments.output)
        console.wrote(str(arguments.output))
    return 0
