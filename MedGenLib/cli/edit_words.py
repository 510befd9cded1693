"""The words of `medgen edit`. As in `parser.py`, nothing heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

AddCommand = Callable[..., argparse.ArgumentParser]
"""`parser._add_command`: (commands, name, run, summary, details) -> the command's parser."""


def add_edit(commands, add: AddCommand, natural, presets: tuple[str, ...]) -> None:
    """Adds the command; `natural` reads numbers from 0 up."""
    parser = add(
        commands,
        "edit",
        "cli.edit:edit",
        "make an image follow a changed mask",
        "Only the surroundings of what changed between the two masks are made anew: all other "
        "voxels stay as they were, bit for bit; how far that reaches is told.",
    )
    parser.add_argument(
        "image", metavar="IMAGE", type=Path, help="volume (.nii .nrrd .mha) or DICOM folder"
    )
    parser.add_argument(
        "--mask", required=True, type=Path, metavar="OLD", help="label volume of the image as it is"
    )
    parser.add_argument(
        "--new-mask", required=True, type=Path, metavar="NEW", help="the same as it shall be"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="OUT",
        help="volume to write: .nii .nii.gz .nrrd .mha",
    )
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
        "--fill",
        metavar="LABEL",
        help="give voxels without a label inside the body this label of the model",
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="HU",
        help="noise of what is new in a CT, for models that take it (default: as in the image)",
    )
    parser.add_argument("--series", metavar="UID", help="which series to read from a folder")
    parser.add_argument("--seed", type=natural, metavar="N", help="same seed, same voxels")
    parser.add_argument(
        "--preset", choices=presets, default="normal", help="speed or quality (default: normal)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda:0", help="where to compute"
    )
    parser.add_argument(
        "--memory",
        choices=("auto", "normal", "small"),
        default="auto",
        help="small: smaller pieces, more time; auto: where the memory is short (default)",
    )
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="P.png",
        help="also write a picture of before, the new mask and after",
    )
    parser.add_argument(
        "--report", type=Path, metavar="R.json", help="also write what was done and checked"
    )
    parser.add_argument(
        "--accept-license",
        action="store_true",
        help="accept the model's licence; remembered for this user",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
