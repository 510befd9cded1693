"""Pictures of a report in three planes: image, reference and difference; expected and found labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.metrics.compare import Comparison
from MedGenLib.visual import figures
from MedGenLib.visual.grid import PAPER, draw, label_colors, round_length, row
from MedGenLib.visual.views import View, default_windows

_TINT = 0.55


def difference_planes(image: Volume, comparison: Comparison, *, worst: bool = False) -> bytes:
    """Image, reference (same window), and their difference with a color bar, below each other.

    Red: the image is above the reference; blue: below; white: equal.

    Parameters
    ----------
    worst: show the planes with the largest sum of absolute errors instead of the middle planes.
    """
    region, reference, difference = comparison.region, comparison.reference.array, comparison.difference
    error = np.abs(difference.array)
    view = View.of(image, region, weight=error if worst and error.any() else None)
    window, reach = default_windows(comparison.reference)[0], difference_limit(comparison)
    compared = np.ma.array(difference.array, mask=~region)
    title = f"image - reference in {difference.unit}"
    rows = [
        row(view, f"Image, {window}", image.array, window.limits),
        row(view, "Reference, same window", reference, window.limits),
        row(
            view,
            f"Image - reference in {difference.unit}; gray: not compared",
            compared,
            (-reach, reach),
            color_map="RdBu_r",
        ),
    ]
    return figures.png(draw(rows, style=PAPER, color_bar=title))


def difference_limit(comparison: Comparison) -> float:
    """End of the color scale: the 99th percentile of absolute errors, rounded up to 1, 2 or 5."""
    errors = np.abs(comparison.difference.array[comparison.region])
    most = float(np.percentile(errors, 99))
    # 1 / (largest round number below 1 / most) is the smallest round number above most.
    return 1 / round_length(1 / most) if most > 1e-6 else 1.0


def label_planes(image: Volume, wanted: LabelMap, found: LabelMap) -> bytes:
    """The labels of the mask above those found in the image, as overlays."""
    view, window = View.of(image, wanted.array > 0), default_windows(image)[0]
    colors = label_colors(np.union1d(wanted.values(), found.values()).astype(int), wanted.colors)
    rows = [row(view, f"Image, {window}", image.array, window.limits)]
    for caption, labels in (("Labels of the mask", wanted), ("Labels found in the image", found)):
        rows.append(row(view, caption, image.array, window.limits, labels=labels.array, opacity=_TINT))
    return figures.png(draw(rows, colors, {**found.names, **wanted.names}, style=PAPER))


def pair_planes(mask: LabelMap, real: Volume, made: Volume) -> bytes:
    """A mask, the real image and an image generated from the mask, on one grid, in planes through the mask's middle."""
    view = View.of(made, mask.array > 0)
    window, own = default_windows(real)[0], default_windows(made)[0]
    rows = [
        row(view, "Mask", labels=mask.array, opacity=1),
        row(view, f"Real image, {window}", real.array, window.limits),
        row(view, f"Generated image, {own}", made.array, own.limits),
    ]
    return figures.png(draw(rows, label_colors(mask.array, mask.colors), mask.names, style=PAPER))


def translation_planes(images: Mapping[str, Volume]) -> bytes:
    """Images on one grid, each with its caption and its own window, in planes through the middle."""
    view = View.of(next(iter(images.values())))
    rows = []
    for caption, image in images.items():
        window = default_windows(image)[0]
        rows.append(row(view, f"{caption}, {window}", image.array, window.limits))
    return figures.png(draw(rows, style=PAPER))
