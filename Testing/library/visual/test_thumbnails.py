"""Thumbnails and their sheet, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.image import imread, imsave

from MedGenLib.imaging.volume import Volume
from MedGenLib.visual.thumbnails import SIDE, contact_sheet, write_thumbnail


def test_a_thumbnail_shows_three_planes_at_their_proportions(tmp_path):
    values = np.full((40, 40, 20), -1000.0, np.float32)
    values[10:30, 10:30, 5:15] = 40.0
    write_thumbnail(Volume(values, np.eye(4), "CT", "HU"), tmp_path / "t.png")
    gray = imread(tmp_path / "t.png")[..., 0]
    assert gray.shape == (SIDE, 3 * SIDE) and gray[SIDE // 2, SIDE // 2] > 0.4
    sizes = [[np.ptp(np.flatnonzero(plane.any(axis))) + 1 for axis in (1, 0)] for plane in np.hsplit(gray, 3)]
    (axial, *others) = [rows / columns for rows, columns in sizes]
    assert abs(axial - 1) < 0.05 and all(abs(other - 0.5) < 0.05 for other in others)


def test_a_sheet_holds_the_thumbnails_and_marks_names(tmp_path):
    for name, red in (("a", 255), ("b", 0)):
        pixels = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
        pixels[..., 0], pixels[..., 2] = red, 255 - red
        imsave(tmp_path / f"{name}.png", pixels)
    files = [(name, tmp_path / f"{name}.png", name == "b") for name in ("a", "b")]
    sheet = imread(io.BytesIO(contact_sheet(files)))[..., :3]
    red, blue = ((sheet == np.array(color)).all(-1) for color in ((1, 0, 0), (0, 0, 1)))
    assert red.sum() == blue.sum() == 3 * SIDE * SIDE
    assert np.flatnonzero(red.any(0)).max() < np.flatnonzero(blue.any(0)).min()
    caption = sheet[: np.flatnonzero(red.any(1)).min()]
    inks = [caption[:, : sheet.shape[1] // 2], caption[:, sheet.shape[1] // 2 :]]
    dark, marked = (ink[ink.min(-1) < 0.9] for ink in inks)
    assert len(dark) and len(marked) and (marked[:, 0] - marked[:, 2]).max() > 0.3 > (dark[:, 0] - dark[:, 2]).max()
