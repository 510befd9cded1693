"""The words of `medgen insert-lesion`. As in `parser.py`, nothing heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from MedGenLib.cli.run_words import add_output, add_running

AddCommand = Callable[..., argparse.ArgumentParser]
"""`parser._add_command`: (commands, name, run, summary, details) -> the command's parser."""


def add_insert_lesion(commands, add: AddCommand, natural) -> None:
    """Adds the command; `natural` reads numbers from 0 up."""
    parser = add(
        commands,
        "insert-lesion",
        "cli.lesion:insert",
        "put a lesion into an image, or take one out",
        "Only the place of the lesion changes: all other voxels stay as they were, bit for bit; "
        "how far that reaches is told. Say where (--at, --mask or --organ) and what (--label, "
        "--contrast or both).",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume (.nii .nrrd .mha) or DICOM folder")
    add_output(parser)
    _add_place(parser)
    _add_kind(parser)
    _add_run_options(parser, natural)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--at", type=_place, metavar="X,Y,Z", help="centre of the lesion, RAS in mm")
    parser.add_argument(
        "--mask", type=Path, metavar="LESION", help="instead: a painted lesion, a mask on the image's grid"
    )
    parser.add_argument(
        "--organ",
        metavar="LABEL",
        help="label (number or name) that the lesion stays inside of; alone it lets the seed choose a place there",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="L",
        help="tissues or organs on the image's grid (default: found in the image as the model's "
        "own thresholds or segmenter find them)",
    )
    parser.add_argument(
        "--map",
        dest="mapping",
        action="append",
        default=[],
        metavar="SRC=DST",
        help="how the labels become the model's, as in `medgen generate`; repeatable",
    )
    parser.add_argument(
        "--fill", metavar="LABEL", help="give voxels without a label inside the body this label of the model"
    )


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        default="sphere",
        metavar="NAME|FILE",
        help="sphere, ellipsoid, lobulated, spiculated, plaque-small, plaque-round, plaque-oval, "
        "plaque-long, plaque-large, plaque-branched, or a mask file whose shape is taken "
        "(default: sphere)",
    )
    parser.add_argument(
        "--size",
        type=float,
        metavar="MM",
        help="greatest diameter (default: 10, or the own size of a shape from a mask)",
    )
    parser.add_argument(
        "--label",
        metavar="LABEL",
        help="label of the model that the place gets, such as 'soft tissue'; that of the "
        "surroundings takes a lesion out (default: the tissue stays)",
    )
    parser.add_argument(
        "--contrast",
        type=float,
        metavar="HU",
        help="how much brighter than its tissue the lesion is, below 0 darker; HU, or the image's own unit",
    )


def _add_run_options(parser: argparse.ArgumentParser, natural) -> None:
    parser.add_argument(
        "--model",
        default="ct-tissue",
        metavar="NAME",
        help="model package for images of this kind (default: ct-tissue)",
    )
    parser.add_argument("--series", metavar="UID", help="which series to read from a folder that holds several")
    parser.add_argument("--lesion-mask", type=Path, metavar="OUT2", help="also write where the lesion is")
    add_running(parser, natural, "lesion", "before and after")


def _place(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) != 3:
        raise ValueError
    return numbers


# argparse puts this name into its message: "invalid place (X,Y,Z) value: '1,2'".
_place.__name__ = "place (X,Y,Z)"
