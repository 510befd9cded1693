"""The options that every command which makes an image has. Nothing heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

PRESETS = ("draft", "normal", "best")


def add_output(parser: argparse.ArgumentParser) -> None:
    """The volume to write."""
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="volume to write: .nii .nii.gz .nrrd .mha"
    )


def add_running(parser: argparse.ArgumentParser, natural: Callable[[str], int], made: str, preview: str) -> None:
    """How to run and what to write beside the volume.

    Parameters
    ----------
    natural: reads numbers from 0 up.
    made: what the same seed makes again, such as "volume".
    preview: what the picture shows.
    """
    parser.add_argument("--seed", type=natural, metavar="N", help=f"same seed, same {made}")
    parser.add_argument("--preset", choices=PRESETS, default="normal", help="speed or quality (default: normal)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0", help="where to compute")
    parser.add_argument(
        "--memory",
        choices=("auto", "normal", "small"),
        default="auto",
        help="small: smaller pieces, more time; auto: where the memory is short (default)",
    )
    parser.add_argument("--preview", type=Path, metavar="P.png", help=f"also write a picture of {preview}")
    parser.add_argument("--report", type=Path, metavar="R.json", help="also write what was done and checked")
    parser.add_argument(
        "--accept-license", action="store_true", help="accept the model's licence; remembered for this user"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
