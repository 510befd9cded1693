"""Thumbnails of volumes, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.volume import Volume
from MedGenLib.visual.views import View, default_windows

SIDE = 96
"""Pixels of a plane; a thumbnail shows up to three planes in a row."""
_COLUMNS, _LONGEST = 4, 48
_CAPTION, _GAP = 20, 8
"""Height of the name above a thumbnail, and gap between thumbnails, in pixels."""


def write_thumbnail(image: Volume, path: Path) -> None:
    """Write a small PNG of the planes through the middle of the body; InputError for an image without a plane."""
    from matplotlib.image import imsave

    view, (low, high) = View.of(image), default_windows(image)[0].limits
    tiles = []
    for plane in view.planes:
        pixels = view.cut(image.array, plane)
        lengths = [n * view.spacing[axis] for n, axis in zip(pixels.shape, (plane.up, plane.across), strict=True)]
        size = [max(1, round(SIDE * length / max(lengths))) for length in lengths]
        rows, columns = ((np.arange(n) * stored // n).astype(int) for n, stored in zip(size, pixels.shape, strict=True))
        tile = np.zeros((SIDE, SIDE), np.float32)
        top, left = ((SIDE - n) // 2 for n in size)
        tile[top : top + size[0], left : left + size[1]] = np.clip(
            (pixels[np.ix_(rows, columns)] - low) / (high - low), 0, 1
        )
        tiles.append(tile)
    gray = np.hstack(tiles)
    imsave(path, (np.repeat(gray[..., None], 3, axis=2) * 255).astype(np.uint8), format="png")


def contact_sheet(thumbnails: Sequence[tuple[str, Path, bool]]) -> bytes:
    """A PNG of thumbnails with their names.

    Parameters
    ----------
    thumbnails: name, file, and whether to highlight the name.
    """
    from matplotlib.image import imread

    from MedGenLib.visual.figures import DARK, SECOND, pixel_figure, png

    width, height = 3 * SIDE + _GAP, SIDE + _CAPTION
    sheet = np.ones((height * -(-len(thumbnails) // _COLUMNS), width * min(_COLUMNS, len(thumbnails)), 3), np.float32)
    figure = pixel_figure(sheet.shape[1], sheet.shape[0])
    for number, (name, path, marked) in enumerate(thumbnails):
        left, top = number % _COLUMNS * width, number // _COLUMNS * height
        pixels: NDArray = imread(path)[:SIDE, : 3 * SIDE, :3]
        sheet[top + _CAPTION : top + _CAPTION + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        place = left / sheet.shape[1], 1 - (top + 0.75 * _CAPTION) / sheet.shape[0]
        figure.text(*place, name[:_LONGEST], fontsize=6, color=SECOND if marked else DARK)
    figure.figimage(sheet)
    return png(figure)
