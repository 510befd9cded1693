"""`medgen train RECIPE --data CONFIG.json --out DIR`."""

from __future__ import annotations

from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from MedGenLib.cli.arguments import add_arguments, positive
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.training.recipes import RECIPES


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--data", required=True, type=Path, metavar="CONFIG.json", help="training configuration")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of checkpoints and the package")
    parser.add_argument("--steps", type=positive, metavar="N", help="stop after N steps")
    add_arguments(parser, "generate", "device")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads to use")


@command(
    "train",
    "train a network and export a model package",
    "An interrupted run resumes from its last checkpoint in the same DIR.",
    extra_arguments,
)
def train(arguments: Namespace, console: Console) -> int:
    """Train or resume, and export a package."""
    from MedGenLib import training

    if find_spec("tensorboard") is None:
        console.note("tensorboard is not installed, so no curves are written: pip install tensorboard.")
    exported = training.train(
        arguments.recipe,
        arguments.data,
        arguments.out,
        steps=arguments.steps,
        device=arguments.device,
        threads=arguments.threads,
        progress=console,
    )
    console.say(f"Exported {exported}.")
    return 0
