"""`medgen train DATASET --out DIR`, and `medgen train RECIPE --data CONFIG.json --out DIR`."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.arguments import add_arguments, positive
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.trainer.datasets import CLASSIFIER, SEQUENCE, TRANSLATIONS, UNCONDITIONAL
from MedGenLib.training import follow
from MedGenLib.training.launch import was_started
from MedGenLib.training.recipes import RECIPES

if TYPE_CHECKING:
    from MedGenLib.trainer.run import Choices

ADDRESS = "let Ray start the workers, on its cluster there or here with `local`"
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
LAYOUTS = (
    "Data sets: nnU-Net raw folders, Medical Segmentation Decathlon, BraTS 2023, BIDS with derivatives, LIDC-IDRI, "
    "two folders of images and labels with the same names, or a CSV file with the columns image, labels and, "
    "optionally, case and subject. For a translation: two folders source and target (or A and B, mr and ct, or "
    "named), one folder for each case, two channels of nnU-Net, two suffixes of BIDS, IXI, SynthRAD, or a CSV file "
    "with the columns source and target; images without common names are learned without pairs. For a classifier: a "
    "folder for each class, a CSV file with the columns image and class, CheXpert, ChestX-ray8 or COVID-CT. For a "
    "generator without a mask: a folder of images, or one for each class. For a sequence model: a folder with a 4-D "
    "file (.seq.nrrd, .nii.gz) or a folder of frames of each person. Cases of one person are never on both sides of "
    "the split."
)


def duration(text: str) -> float:
    """Seconds of "90m", "2h", "1.5h"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().casefold())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise ArgumentTypeError(f"'{text}' is no duration; give a number with a unit, such as 90m or 2h")
    return float(found[1]) * UNITS[found[2]]


def dataset_arguments(parser: Parser, several: bool = False) -> None:
    """The options on a data set, of `train` and `plan`, and of `benchmark` with several recipes."""
    parser.add_argument("--budget", type=duration, default=7200.0, metavar="TIME", help="time to spend, such as 2h")
    parser.add_argument("--name", help="name of the model; by default that of the data set")
    parser.add_argument(
        "--task",
        choices=("generate", "translate", "classify"),
        help="from labels to images, from images to images, or from images to their classes",
    )
    parser.add_argument("--channel", metavar="NAME", help="image to generate, where a case has several")
    parser.add_argument("--source", metavar="NAME", help="images to translate: a folder, channel, suffix or column")
    parser.add_argument("--target", metavar="NAME", help="images to make of them")
    parser.add_argument("--modality", help="CT or an MR contrast such as T1w, where the data set does not state it")
    parser.add_argument("--source-modality", metavar="MODALITY", help="the same of the images to translate")
    if several:
        parser.add_argument(
            "--recipes", required=True, metavar="A,B", help="recipes to compare, such as pix2pix,regression,cut"
        )
        parser.set_defaults(recipe=None, start=None)
    else:
        _one_recipe(parser)
    parser.add_argument(
        "--uncertain",
        choices=("ignore", "ones", "zeros"),
        help="what uncertain findings of CheXpert count as; by default they are ignored",
    )
    parser.add_argument("--license", metavar="TEXT", help="license of the data, for the model's card")
    parser.add_argument("--skip-bad", action="store_true", help="leave out cases that cannot be used")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a choice of the plan; repeatable"
    )
    add_arguments(parser, "generate", "device")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads to use")


def _one_recipe(parser: Parser) -> None:
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes that train together, such as one a GPU"
    )
    parser.add_argument(
        "--recipe",
        choices=(*TRANSLATIONS, CLASSIFIER, SEQUENCE, *UNCONDITIONAL),
        help=f"of a translation; by default pix2pix, and cut without pairs; {CLASSIFIER} for images with classes; "
        f"{SEQUENCE} for series over time; "
        f"{', '.join(UNCONDITIONAL)} for images without labels, which are then made without a mask",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="continue the training of an installed model, also with new labels",
    )


def choices_of(arguments: Namespace) -> Choices:
    from MedGenLib.trainer.run import Choices

    changes = {}
    for text in arguments.set:
        key, equal, value = text.partition("=")
        if not equal:
            raise InputError(f"--set {text} has no value; write --set KEY=VALUE.")
        changes[key.strip()] = value.strip()
    known = [name for name in Choices.__dataclass_fields__ if hasattr(arguments, name)]
    return Choices(changes=changes, **{name: getattr(arguments, name) for name in known})


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("data_set", metavar="DATASET", help=f"data set, or with --data one of {', '.join(RECIPES)}")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the run; it resumes there")
    parser.add_argument("--data", type=Path, metavar="CONFIG.json", help="configuration of a single recipe")
    parser.add_argument("--steps", type=positive, metavar="N", help="stop the recipe after N steps")
    parser.add_argument("--address", metavar="HOST:PORT", help=ADDRESS)
    dataset_arguments(parser)


@command(
    "train",
    "train a model on your images and install it",
    "DATASET is inspected and planned (see `medgen plan`), all networks are trained, the model is measured on people "
    "that were kept out, and is then installed; DIR/index.html shows how it learns. An interrupted run resumes from "
    "its last checkpoint with the same command.",
    extra_arguments,
    epilog=LAYOUTS,
)
def train(arguments: Namespace, console: Console) -> int:
    """Train a model on a data set, or run one recipe of a configuration."""
    if find_spec("tensorboard") is None and not was_started():
        console.note("tensorboard is not installed, so no curves are written for it: pip install tensorboard.")
    work = _recipe if arguments.data is not None else _data_set
    if was_started():
        return _together(work, arguments, console)
    return _launched(arguments, console) if arguments.workers > 1 or arguments.address else work(arguments, console)


def _together(work: Callable[[Namespace, Console], int], arguments: Namespace, console: Console) -> int:
    """Do the work in the first of several processes, which the others follow."""
    from MedGenLib.training.ranks import LostProcessError, joining

    with joining(arguments.device) as (ranks, arguments.device):
        arguments.workers = ranks.size
        if ranks.rank == 0:
            code = work(arguments, console)
            ranks.share()  # there is nothing more to train
            return code
        try:
            follow(arguments.device, arguments.threads)
        except LostProcessError:  # the first process says it
            return 2
    return 0


def _launched(arguments: Namespace, console: Console) -> int:
    """Start the processes that train together, and wait for them."""
    if arguments.address:
        from MedGenLib.cluster.ray_train import train_on_ray

        return train_on_ray(
            arguments.main, arguments.words, arguments.workers, arguments.address, arguments.device, console.note
        )
    from MedGenLib.cluster.ranks import train_locally

    require_gpus(arguments.device, arguments.workers)

    def make_smaller() -> bool:
        from MedGenLib.trainer.run import PLAN, shrunk

        return (arguments.out / PLAN).is_file() and shrunk(arguments.out, console) is not None

    return train_locally(arguments.words, arguments.workers, make_smaller, console.error)


def require_gpus(device: str, workers: int) -> None:
    """Raise InputError where workers of this computer would have to share its GPUs."""
    from MedGenLib.cluster.plan import usable_gpus

    if device != "cpu" and 0 < len(gpus := usable_gpus()) < workers:
        raise InputError(f"{workers} workers need as many GPUs, of which there are {len(gpus)}; give fewer.")


def _data_set(arguments: Namespace, console: Console) -> int:
    from MedGenLib.trainer.run import MEASURED, PAGE, train_own

    if arguments.data_set in RECIPES and not Path(arguments.data_set).exists():
        raise InputError(f"The recipe {arguments.data_set} needs a configuration; give it as --data CONFIG.json.")
    if arguments.steps is not None:
        raise InputError("--steps belongs to a recipe; give --budget, or --set steps.latent-flow=N.")
    made = train_own(
        arguments.data_set, arguments.out, choices_of(arguments), arguments.device, arguments.threads, console
    )
    console.wrote(f"{arguments.out / PAGE}")
    mask = "" if made.input.kind == "none" else " MASK"
    label = f" --label '{made.settings.classes[0]}'" if mask == "" and made.settings.classes else ""
    uses = {
        "generate": f"generate{mask} -o OUT.nii.gz{label}",
        "classify": "classify IMAGE",
        "sequence": "translate IMAGE -o OUT.seq.nrrd",
    }
    use = uses.get(made.task, f"translate IMAGE --to {made.output.modality} -o OUT.nii.gz")
    console.say(f"Installed the model {made.name}: medgen {use} --model {made.name}")
    measured = arguments.out / MEASURED
    if measured.is_file():
        found = json.loads(measured.read_text(encoding="utf-8"))
        for row in found["rows"] if made.task == "sequence" else ():
            interval = "" if row["low"] is None else f" (95 % interval {row['low']:.3g} to {row['high']:.3g})"
            console.say(f"{row['name']}: {row['value']:.3g} {row['unit']}".strip() + interval)
        console.announce(found["faults"])
    return 0


def _recipe(arguments: Namespace, console: Console) -> int:
    from MedGenLib import training

    exported = training.train(
        arguments.data_set,
        arguments.data,
        arguments.out,
        steps=arguments.steps,
        device=arguments.device,
        threads=arguments.threads,
        progress=console,
    )
    console.say(f"Exported {exported}.")
    return 0
