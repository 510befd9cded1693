"""`medgen benchmark DATASET --recipes A,B --budget TIME --out DIR`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from MedGenLib.cli.arguments import positive
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.train import ADDRESS, LAYOUTS, choices_of, dataset_arguments, require_gpus
from MedGenLib.errors import InputError


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("data_set", metavar="DATASET", help="folder of images, or a CSV file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the runs; they resume there")
    dataset_arguments(parser, several=True)
    parser.add_argument("--workers", dest="pool", type=positive, default=1, metavar="N", help="recipes trained at once")
    parser.add_argument("--address", metavar="HOST:PORT", help=ADDRESS)


@command(
    "benchmark",
    "train several recipes on your images and compare them",
    "Each recipe is trained as `medgen train` does, with the same budget, and measured on the same people, who were "
    "kept out. DIR has one table (benchmark.md, benchmark.csv) and a page with pictures side by side (index.html). An "
    "interrupted benchmark goes on with the same command; a finished recipe is not trained again. The models are "
    "installed as NAME-RECIPE. `--set RECIPE.KEY=VALUE` changes a choice for one recipe. "
    "With `--workers` the recipes are trained at once and share the threads.",
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
    how = (choices_of(arguments), arguments.device, arguments.threads, console, _pool(arguments, len(recipes)))
    try:
        rows = compare(arguments.data_set, arguments.out, recipes, *how)
    except KeyboardInterrupt:
        console.error("Stopped; the same command goes on from the last checkpoints.")
        return 130
    console.say((arguments.out / "benchmark.md").read_text(encoding="utf-8"))
    console.wrote(str(arguments.out / PAGE))
    failed = sum(row.error is not None for row in rows)
    return 0 if not failed else 1 if failed < len(rows) else 2


def _pool(arguments: Namespace, count: int) -> Any:
    """The workers in which recipes are trained at once; None for one after the other in this process."""
    workers, address = min(arguments.pool, count), arguments.address
    if workers == 1 and not address:
        return None
    from MedGenLib.cluster.plan import IDLE_MIB, WorkerPlan, usable_cores, usable_gpus

    cpu, threads = arguments.device == "cpu", arguments.threads or max(1, usable_cores() // workers)
    plan = WorkerPlan(workers, threads, IDLE_MIB, () if cpu else usable_gpus(), cpu)
    if address:
        from MedGenLib.cluster.actors import RayPool

        return RayPool(plan, arguments.out.absolute(), None if address == "local" else address, fixed=True)
    from MedGenLib.cluster.workers import ProcessPool

    require_gpus(arguments.device, workers)
    return ProcessPool(plan, arguments.out.absolute())
