"""The words of `medgen edit`. As in `parser.py`, nothing heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from MedGenLib.cli.run_words import add_output, add_running

AddCommand = Callable[..., argparse.ArgumentParser]
"""`parser._add_command`: (commands, name, run, summary, details) -> the command's parser."""


def add_edit(commands, add: AddCommand, natural) -> None:
    """Adds the command; `natural` reads numbers from 0 up."""
    parser = add(
        commands,
        "edit",
        "cli.edit:edit",
        "make an image follow a changed mask",
        "Only the surroundings of what changed between the two masks are made anew: all other "
        "voxels stay as they were, bit for bit; how far that reaches is told.",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume (.nii .nrrd .mha) or DICOM folder")
    parser.add_argument("--mask", required=True, type=Path, metavar="OLD", help="label volume of the image as it is")
    parser.add_argument("--new-mask", required=True, type=Path, metavar="NEW", help="the same as it shall be")
    add_output(parser)
    parser.add_argument(
        "--model",
        default="ct-tissue",
        metavar="NAME",
        help="model package for images of this kind (default: ct-tissue)",
    )
    parser.add_argument(
        "--map",
        dest="mapping",
        action="append",
        default=[],
        metavar="SRC=DST",
        help="how the labels of both masks become the model's, as in `medgen generate`; repeatable",
    )
    parser.add_argument(
        "--fill", metavar="LABEL", help="give voxels without a label inside the body this label of the model"
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="HU",
        help="noise of what is new in a CT, for models that take it (default: as in the image)",
    )
    parser.add_argument("--series", metavar="UID", help="which series to read from a folder")
    add_running(parser, natural, "voxels", "before, the new mask and after")
