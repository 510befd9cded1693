"""`medgen cohort make | run`: many cases from one manifest, each done once.

Additional exit codes: 1 if some cases failed, 2 if all did or the manifest cannot be used.
"""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.cli.arguments import add_arguments, natural, positive
from MedGenLib.cli.commands import Parser, action, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.cohort.manifest import CohortCase
    from MedGenLib.cohort.scheduler import Pool

DONE, SOME_FAILED, ALL_FAILED, STOPPED = 0, 1, 2, 130


@command("cohort", "run many cases: generate, translate, evaluate or insert lesions for a folder")
def explain(arguments: Namespace, console: Console) -> int:
    """Raise InputError, as an action is missing."""
    raise InputError("A cohort needs an action; give make or run after cohort.")


def arguments_of_make(parser: Parser) -> None:
    verbs = ("generate", "translate", "evaluate", "insert-lesion")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of masks or images, one case a file")
    parser.add_argument("--verb", required=True, choices=verbs, help="what is done with each")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="COHORT.yaml", help="manifest to write")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another input: a folder whose files have the same names, or one file for all cases; repeatable",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the verb, such as model=mr-hippocampus; LOW:HIGH is drawn for each case, as is one of "
        "several words A,B,C; repeatable",
    )
    parser.add_argument("--samples", type=positive, default=1, metavar="N", help="cases for each file (default: 1)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of all draws (default: 0)")
    parser.add_argument(
        "--dataset", action="store_true", help="also collect images and labels in nnU-Net's layout, to train on"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that exists")
    add_arguments(parser, "generate", "accept_license")


@action(
    "cohort make",
    "write the manifest of a cohort from a folder",
    "The manifest is a text file: one line a case, with its inputs, its seed and what was drawn for it.",
    arguments_of_make,
)
def make(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cohort.making import CaseRecipe, make_manifest, parsed
    from MedGenLib.cohort.manifest import read_cohort, write_cohort
    from MedGenLib.io.atomic import hidden_beside

    path = arguments.output
    if path.exists() and not arguments.overwrite:
        raise InputError(f"The output {path} exists already; choose another name or add --overwrite.")
    inputs = {name: Path(value) for name, value in parsed(arguments.input, "--input").items()}
    parameters = parsed(arguments.set, "--set")
    recipe = CaseRecipe(arguments.verb, inputs, parameters, arguments.samples, arguments.seed, arguments.dataset)
    data = make_manifest(arguments.folder, recipe, path.absolute().parent)
    draft = hidden_beside(path)
    try:
        write_cohort(draft, data)
        cohort = read_cohort(draft, arguments.accept_license)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    console.say(f"{len(cohort.cases)} cases.")
    console.wrote(f"{path}; run it with: medgen cohort run {path}")
    return DONE


def part(text: str) -> tuple[int, int]:
    """I and N of "I/N"."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ArgumentTypeError(f"'{text}' is no part; give I/N with I from 1 to N, such as 2/8")
    return int(found[1]), int(found[2])


def arguments_of_run(parser: Parser) -> None:
    parser.add_argument("manifest", metavar="COHORT.yaml", type=Path, help="manifest of `medgen cohort make`")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: COHORT-results in the folder of the manifest)",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="workers (default: by cores, GPUs and memory)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of each worker")
    parser.add_argument(
        "--part", type=part, default=(1, 1), metavar="I/N", help="only this part of the cases, for array jobs"
    )
    parser.add_argument("--ray", action="store_true", help="use Ray on this computer instead of worker processes")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="use the Ray cluster there (default: RAY_ADDRESS, if it is set)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print every change of a case as a line of JSON, for programs; stop when nothing reads them",
    )
    add_arguments(parser, "generate", "accept_license")


@action(
    "cohort run",
    "run a cohort, or go on with it",
    "Cases that are done are not repeated unless their inputs, parameters or model changed; those that failed are "
    "tried again. Ctrl-C stops; the same command goes on.",
    arguments_of_run,
    epilog="exit codes: 0 all done, 1 some cases failed, 2 all failed or the manifest cannot be used, 130 stopped",
)
def run(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cohort.manifest import read_cohort
    from MedGenLib.cohort.output import locked, open_output
    from MedGenLib.cohort.run import of_part, run_cohort

    path = arguments.manifest
    cohort = read_cohort(path, arguments.accept_license)
    out = (arguments.output or path.with_name(f"{path.stem}-results")).absolute()
    cases = of_part(cohort.cases, *arguments.part)

    def notify(change: dict[str, Any]) -> None:
        console.say(json.dumps(change))
        if console.lost is not None:
            raise KeyboardInterrupt

    listener = notify if arguments.json else None
    open_output(out, cohort.name)
    with locked(out, *arguments.part):
        try:
            result = run_cohort(
                cohort, cases, out, lambda some: _pool(arguments, some, out, console), console, listener
            )
        except KeyboardInterrupt:
            console.error(f"Stopped; what is done stays in {out}, and the same command goes on.")
            return STOPPED
        result.finish(arguments.part)
    if arguments.json:
        notify({"done": len(result.done), "failed": len(result.failed), "files": list(map(str, result.files))})
    else:
        for sentence in result.lines():
            console.say(sentence)
        console.wrote(*result.files)
    if not result.failed:
        return DONE
    return SOME_FAILED if result.done else ALL_FAILED


def _pool(arguments: Namespace, cases: list[CohortCase], out: Path, console: Console) -> Pool:
    from MedGenLib.cluster.plan import plan_workers

    plan = plan_workers(cases, arguments.workers, arguments.threads)
    address = arguments.address or os.environ.get("RAY_ADDRESS")
    if arguments.ray or address:
        from MedGenLib.cluster.actors import RayPool

        pool = RayPool(plan, out, address, fixed=arguments.workers is not None)
        kind = "Ray actor"
    else:
        from MedGenLib.cluster.workers import ProcessPool

        pool = ProcessPool(plan, out)
        kind = "worker"
    plural = "" if pool.size == 1 else "s"
    threads = f"{plan.threads} thread{'' if plan.threads == 1 else 's'}"
    console.note(f"{pool.size} {kind}{plural} of {threads}, up to {plan.memory_mib:.0f} MiB each.")
    return pool
