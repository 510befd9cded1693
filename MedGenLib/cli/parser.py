"""The words of the command line. Nothing heavy is imported here: `--help` is instant."""

from __future__ import annotations

import argparse
import itertools
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

from MedGenLib import __version__
from MedGenLib.cli.edit_words import add_edit
from MedGenLib.cli.install_words import add_available, add_install
from MedGenLib.cli.lesion_words import add_insert_lesion
from MedGenLib.cli.maisi_words import add_body_options, add_image_options
from MedGenLib.cli.quality_words import add_deidentify, add_quality_commands
from MedGenLib.cli.run_words import add_output, add_running
from MedGenLib.training.recipes import RECIPES

TWO_WORDS = {"evaluate": ("distribution", "utility")}
"""Commands of two words. The first one is also a command by itself, whose first argument is a path;
a folder of such a name is given as ./utility."""
SIGNED = ("--at",)
"""Options whose value may begin with a minus that argparse takes for an option's."""

EXAMPLES = """\
examples:
  medgen generate mask.nii.gz -o ct.nii.gz --seed 7 --preview ct.png
  medgen generate hippocampus.nii.gz -o t1.nii.gz --model mr-hippocampus --samples 3
  medgen translate head_t1.nii.gz -o ct.nii.gz --to CT --accept-license
  medgen models list

Synthetic images are for research and teaching, never for diagnosis.
"""


class Parser(argparse.ArgumentParser):
    """Tells a wrong option in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"medgen: {message}; see `{self.prog} --help`.\n")

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        for place, (first, second) in enumerate(itertools.pairwise(words)):
            if second in TWO_WORDS.get(first, ()):
                words[place : place + 2] = [f"{first} {second}"]
                break
        for place, word in enumerate(words[:-1]):
            if word in SIGNED:
                words[place : place + 2] = [f"{word}={words[place + 1]}"]
                break
        return super().parse_known_args(words, namespace)


def build_parser() -> Parser:
    """The parser of `medgen`; the attribute `run` of what it returns names the function."""
    parser = Parser(
        prog="medgen",
        description="Synthetic CT and MR volumes from label masks, and MR <-> CT translation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medgen {__version__}")
    _add_loudness(parser, default=False)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_generate(commands)
    _add_translate(commands)
    add_edit(commands, _add_command, _natural)
    add_insert_lesion(commands, _add_command, _natural)
    add_quality_commands(commands, _add_command, _positive, _natural)
    _add_models(commands)
    _add_train(commands)
    _add_demo(commands)
    _add_command(commands, "doctor", "cli.doctor:run", "check this installation and this machine")
    return parser


def _add_command(commands, name: str, run: str, summary: str, details: str = "") -> Parser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {details}".strip(), 79),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    # Given after the command they must not be undone by the command's own defaults.
    _add_loudness(parser, default=argparse.SUPPRESS)
    return parser


def _add_loudness(parser: Parser, default: object) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", default=default, help="print nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", default=default, help="print more of what is done")


def _add_generate(commands) -> None:
    parser = _add_command(
        commands,
        "generate",
        "cli.runs:generate",
        "make an image volume from a label mask",
        "The result lies on the mask's own grid.",
    )
    parser.add_argument(
        "mask",
        metavar="MASK",
        type=Path,
        nargs="?",
        help="label volume: .nii .nrrd .mha; models that need none take --size instead",
    )
    _add_run_options(parser)
    parser.add_argument("--model", default="ct-tissue", metavar="NAME", help="model package (default: ct-tissue)")
    parser.add_argument(
        "--samples",
        type=_positive,
        default=1,
        metavar="K",
        help="make K different volumes, written as OUT_1, OUT_2, ...",
    )
    parser.add_argument(
        "--sampler", metavar="NAME", help="sampler instead of the model's own: euler, heun, midpoint, ddim or ddpm"
    )
    parser.add_argument("--steps", type=_positive, metavar="N", help="sampler steps instead of the preset's")
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="weight of the mask's say: 1 is the model's own, 2 exaggerates, for twice the time",
    )
    parser.add_argument(
        "--classifier-guidance",
        type=float,
        default=0.0,
        metavar="W",
        help="weight of the model's classifier, which pulls towards the mask: 0.1 to 0.5; more "
        "changes the tissues' levels (default: 0)",
    )
    parser.add_argument(
        "--map",
        dest="mapping",
        action="append",
        default=[],
        metavar="SRC=DST",
        help="read the mask's label SRC (number or name) as the model's label DST; repeatable; "
        "the word freesurfer, maisi, vista3d or totalsegmentator alone says whose numbers they are",
    )
    parser.add_argument(
        "--fill",
        metavar="LABEL",
        help="give voxels without a label inside the body this label of the model, such as fat",
    )
    add_body_options(parser)
    add_image_options(parser)
    parser.add_argument(
        "--noise",
        type=float,
        metavar="HU",
        help="noise of a CT, for models that take it (default: as in the training scans)",
    )
    parser.add_argument(
        "--style",
        type=Path,
        metavar="REF",
        help="real volume whose look the result gets: noise and tissue levels of a CT, contrast of an MR image",
    )


def _add_translate(commands) -> None:
    parser = _add_command(
        commands,
        "translate",
        "cli.runs:translate",
        "translate an image volume between MR and CT",
        "The result lies on the image's own grid.",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume (.nii .nrrd .mha) or DICOM folder")
    parser.add_argument("--to", required=True, metavar="CT|T1w", help="modality to make")
    _add_run_options(parser)
    parser.add_argument("--model", metavar="NAME", help="model package (default: the one that fits)")
    parser.add_argument("--series", metavar="UID", help="which series to read from a folder that holds several")


def _add_run_options(parser: Parser) -> None:
    add_output(parser)
    parser.add_argument(
        "--uncertainty",
        type=Path,
        metavar="U",
        help="also write a volume of how much the result varies: over the samples (generate) or "
        "over mirrored and shifted inputs (translate), as standard deviation",
    )
    parser.add_argument("--dicom", type=Path, metavar="DIR", help="also write the result as a DICOM series")
    add_deidentify(parser)
    add_running(parser, _natural, "volume", "input and output")


def _add_models(commands) -> None:
    parser = _add_command(commands, "models", "cli.models:list_models", "list and manage models")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add_available(_add_command(actions, "list", "cli.models:list_models", "list the models that are installed"))
    info = _add_command(actions, "info", "cli.models:info", "show what a model is and needs")
    info.add_argument("name", metavar="NAME")
    add_install(actions, _add_command)
    add = _add_command(
        actions,
        "add",
        "cli.models:add",
        "install a model package",
        "It is verified first; nothing in it is ever run as code.",
    )
    add.add_argument("path", metavar="PATH", help="package folder, .zip file or its https address")
    add.add_argument("--sha256", metavar="HEX", help="checksum that the .zip file has to have")
    remove = _add_command(actions, "remove", "cli.models:remove", "remove a model you have added")
    remove.add_argument("name", metavar="NAME")
    verify = _add_command(actions, "verify", "cli.models:verify", "check every file of the models against checksums")
    verify.add_argument("name", metavar="NAME", nargs="?", help="one model (default: all)")


def _add_train(commands) -> None:
    parser = _add_command(
        commands,
        "train",
        "cli.train:train",
        "train a network and export a model package",
        "A run that was stopped continues from its last checkpoint in the same DIR.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--data", required=True, type=Path, metavar="CONFIG.json")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--steps", type=_positive, metavar="N", help="stop after N steps")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0")
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads to use")


def _add_demo(commands) -> None:
    parser = _add_command(
        commands,
        "demo",
        "cli.demo:run",
        "generate and translate the sample data that come with MedGen",
        "Files of an earlier demo in the same folder are replaced.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("medgen-demo"),
        metavar="DIR",
        help="folder for the results (default: medgen-demo)",
    )
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0")
    parser.add_argument(
        "--accept-license",
        action="store_true",
        help="accept the non-commercial licence of head-mr-to-ct; without it that part is left out",
    )


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _positive(text: str) -> int:
    number = _natural(text)
    if number == 0:
        raise ValueError
    return number


# argparse puts these names into its message: "invalid natural number value: '-1'".
_natural.__name__ = "natural number"
_positive.__name__ = "positive number"
