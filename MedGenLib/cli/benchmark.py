"""`medgen benchmark DATASET --recipes A,B --budget TIME --out DIR`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.train import LAYOUTS, choices_of, dataset_arguments
from MedGenLib.errors import InputError


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("data_set", metavar="DATASET", help="folder of images, or a CSV file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the runs; they resume there")
    dataset_arguments(parser, several=True)


@command(
    "benchmark",
    "train several recipes on your images and compare them",
    "Each recipe is trained as `medgen train` does, with the same budget, and measured on the same people, who were "
    "kept out. DIR has one table (benchmark.md, benchmark.csv) and a page with pictures side by side (index.html). An "
    "interrupted benchmark goes on with the same command; a finished recipe is not trained again. The models are "
    "installed as NAME-RECIPE. `--set RECIPE.KEY=VALUE` changes a choice for one recipe.",
    extra_arguments,
    epilog=LAYOUTS,
)
def benchmark(arguments: Namespace, console: Console) -> int:
    """Train and measure each recipe, and print the table: exit code 1 if some recipes failed, 2 if all did."""
    from MedGenLib.trainer.benchmark import benchmark as compare
    from MedGenLib.trainer.run import PAGE

    recipes = [name.strip() for name in arguments.recipes.split(",") if name.strip()]
    if not recipes:
        raise InputError("--recipes names no recipe; give some, such as --recipes pix2pix,regression.")
    rows = compare(
        arguments.data_set, arguments.out, recipes, choices_of(arguments), arguments.device, arguments.threads, console
    )
    console.say((arguments.out / "benchmark.md").read_text(encoding="utf-8"))
    console.wrote(str(arguments.out / PAGE))
    failed = sum(row.error is not None for row in rows)
    return 0 if not failed else 1 if failed < len(rows) else 2
