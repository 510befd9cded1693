"""The words of `medgen generate` for models such as NV-Generate's: whole bodies, or no mask."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_body_options(parser: argparse.ArgumentParser) -> None:
    """How the mask is made right for the model."""
    parser.add_argument(
        "--body-from",
        type=Path,
        metavar="IMAGE",
        help="take the outline of the body from this image of the same patient; otherwise models "
        "with a label for the whole body close it from the mask (others: together with --fill)",
    )
    parser.add_argument(
        "--any-grid",
        action="store_true",
        help="with models trained on a few sizes (NV-Generate), work on the mask's own size in "
        "whole steps of 32 voxels: quicker for a small mask, possible for a large one, less sure",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """What a model without a mask is to make."""
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="instead of MASK, for models that need none: voxels from left to right, back to front and foot to head",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="with --size: mm between voxels (default: 1 1 1)",
    )
    parser.add_argument(
        "--modality",
        metavar="NAME",
        help="what a model that makes several shall make, such as T2w or FLAIR-skull-stripped",
    )
