"""Thumbnails of volumes, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.volume import Volume
from MedGenLib.visual.views import View, default_windows

SIDE = 96
"""Pixels of a plane; a thumbnail shows up to three planes beside each other."""
_COLUMNS, _CAPTION, _TILE_INCHES = 4, 40, 3.0


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
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    from MedGenLib.visual.figures import DARK, SECOND, png

    rows = -(-len(thumbnails) // _COLUMNS)
    figure = Figure((_COLUMNS * _TILE_INCHES, rows * _TILE_INCHES * 0.42), facecolor="white", layout="constrained")
    for number, (name, path, marked) in enumerate(thumbnails, 1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        axes.set_axis_off()
        pixels: NDArray = imread(path)
        axes.imshow(pixels, interpolation="nearest")
        axes.set_title(name[:_CAPTION], fontsize=7, color=SECOND if marked else DARK)
    return png(figure)
