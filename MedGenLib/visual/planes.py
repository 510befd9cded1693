"""Pictures of a report in three planes: image, reference and difference; labels wanted and found.

Drawn as `pictures.preview` draws: patient's right on the viewer's left, one scale in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.metrics.compare import Comparison
from MedGenLib.visual import figures
from MedGenLib.visual.preview import (
    PLANES,
    Plane,
    Window,
    box_round,
    centre_of,
    default_windows,
    draw_letters,
    draw_scale,
    foreground,
    label_colours,
    round_length,
    section,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIFFERENCE_COLOURS = "RdBu_r"
"""Red where the image is above the reference, blue where below, white where they are equal."""
_WIDTH, _MOST_HEIGHT = 10.0, 3.4  # inches: of the picture, and at most of a row
_MARGIN, _GAP, _CAPTION, _BAR = 0.08, 0.1, 0.28, 0.95
_TINT = 0.55
_MOST_NAMES = 12

Draw = Callable[["Axes", Plane], object]
"""Draws what one panel shows; returns an image that has a colour bar, or anything else."""


@dataclass(frozen=True)
class _View:
    """Where to look: planes through a point of arrays in RAS order, cropped to a box."""

    reorientation: Reorientation
    box: tuple[slice, ...]
    spacing: NDArray
    point: NDArray[np.int64]  # in the box
    planes: list[Plane]

    def array(self, stored: NDArray) -> NDArray:
        return self.reorientation.apply(stored)[self.box]

    def shown(self, stored: NDArray, plane: Plane) -> NDArray:
        return section(self.array(stored), plane, self.point)

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm."""
        extent = [(s.stop - s.start) for s in self.box] * self.spacing
        return float(extent[plane.across]), float(extent[plane.up])


def difference_planes(image: Volume, comparison: Comparison, *, worst: bool = False) -> bytes:
    """Image above reference, in one window, above their difference with its colour bar.

    Parameters
    ----------
    worst: planes with the largest sum of absolute errors, instead of those through the middle of
        the region.
    """
    error = np.abs(comparison.difference.array)
    view = _view(image, comparison.region, error if worst and error.any() else comparison.region)
    window = default_windows(comparison.reference)[0]
    reach = difference_limit(comparison)
    unit = comparison.difference.unit

    def coloured(axes: Axes, plane: Plane) -> object:
        outside = ~view.shown(comparison.region, plane)
        values = np.ma.array(view.shown(comparison.difference.array, plane), mask=outside)
        axes.set_facecolor("#e9edf0")
        return _show(axes, values, view.size(plane), cmap=DIFFERENCE_COLOURS, vmin=-reach, vmax=reach)

    rows: list[tuple[str, Draw]] = [
        (f"Image, {window}", _grey(view, image.array, window)),
        ("Reference, same window", _grey(view, comparison.reference.array, window)),
        (f"Image - reference in {unit}; grey: not compared", coloured),
    ]
    return figures.png(_draw(view, rows, f"image - reference in {unit}"))


def difference_limit(comparison: Comparison) -> float:
    """End of the colour scale: what 99 % of the absolute errors stay below, to 1, 2 or 5."""
    errors = np.abs(comparison.difference.array[comparison.region])
    most = float(np.percentile(errors, 99))
    # The inverse of the largest round number below 1 / most is the smallest one above most.
    return 1 / round_length(1 / most) if most > 1e-6 else 1.0


def label_planes(image: Volume, wanted: LabelMap, found: LabelMap) -> bytes:
    """The labels of the mask above those found in the image, as tints over it."""
    view = _view(image, wanted.array > 0, wanted.array > 0)
    window = default_windows(image)[0]
    colours = label_colours(np.union1d(wanted.values(), found.values()).astype(int))
    rows: list[tuple[str, Draw]] = [
        (f"Image, {window}", _grey(view, image.array, window)),
        ("Labels of the mask", _grey(view, image.array, window, wanted.array, colours)),
        ("Labels found in the image", _grey(view, image.array, window, found.array, colours)),
    ]
    names = {**found.names, **wanted.names}
    told = [(names.get(v) or f"label {v}", colour) for v, colour in colours.items()]
    return figures.png(_draw(view, rows, "", told))


def _view(image: Volume, region: NDArray, weight: NDArray) -> _View:
    """Frames the body and the region; looks where the sum of `weight` is largest, or its middle."""
    reorientation = Reorientation.to(image.geometry, "RAS")
    shape = reorientation.axes(image.shape)
    inside, weight = reorientation.apply(region), reorientation.apply(weight)
    box = box_round(inside | foreground(image, reorientation.apply(image.array)))
    weight = weight[box]
    if weight.dtype == bool:
        point = centre_of(weight)
    else:
        sums = [weight.sum(axis=other, dtype=float) for other in ((1, 2), (0, 2), (0, 1))]
        point = np.array([profile.argmax() for profile in sums])
    planes = [plane for plane in PLANES if shape[plane.across] > 1 and shape[plane.up] > 1]
    return _View(reorientation, box, np.array(reorientation.axes(image.spacing)), point, planes)


def _grey(
    view: _View, array: NDArray, window: Window, labels: NDArray | None = None, colours: dict[int, str] | None = None
) -> Draw:
    low, high = window.limits

    def draw(axes: Axes, plane: Plane) -> None:
        _show(axes, view.shown(array, plane), view.size(plane), cmap="gray", vmin=low, vmax=high)
        if labels is not None:
            _tint(axes, view.shown(labels, plane), view.size(plane), colours or {})

    return draw


def _tint(axes: Axes, labels: NDArray, size: tuple[float, float], colours: dict[int, str]) -> None:
    from matplotlib.colors import to_rgba

    picture = np.zeros((*labels.shape, 4))
    for value, colour in colours.items():
        picture[labels == value] = to_rgba(colour, _TINT)
    _show(axes, picture, size)


def _show(axes: Axes, values: NDArray, size: tuple[float, float], **how) -> object:
    return axes.imshow(values, extent=(0, size[0], size[1], 0), interpolation="nearest", **how)


def _draw(view: _View, rows: Sequence[tuple[str, Draw]], bar: str, names: Sequence[tuple[str, str]] = ()) -> Figure:
    """A grid of panels; `bar` names the colours of the last row, `names` those of labels."""
    from matplotlib.figure import Figure

    sizes = np.array([view.size(plane) for plane in view.planes])
    beside = _BAR if bar else 0.0
    room = _WIDTH - 2 * _MARGIN - _GAP * (len(sizes) - 1) - beside
    scale = min(room / sizes[:, 0].sum(), _MOST_HEIGHT / sizes[:, 1].max())  # inches per mm
    widths, heights = (sizes * scale).T
    row_height = heights.max()
    legend = _CAPTION if names else 0.0
    height = len(rows) * (_CAPTION + row_height) + _MARGIN + legend
    figure = Figure((_WIDTH, height), dpi=100, facecolor="white")
    first = (_WIDTH - beside - widths.sum() - _GAP * (len(widths) - 1)) / 2
    scale_bar = round_length(sizes[:, 0].min() / 3)
    coloured = None
    for number, (caption, draw) in enumerate(rows):
        top = number * (_CAPTION + row_height) + _CAPTION
        figure.text(
            first / _WIDTH,
            1 - (top - _CAPTION / 2.4) / height,
            caption,
            fontsize=10,
            va="center",
            color=figures.DARK,
            parse_math=False,
        )
        left = first
        for plane, width, tall in zip(view.planes, widths, heights, strict=True):
            below = height - top - (row_height + tall) / 2
            axes = figure.add_axes((left / _WIDTH, below / height, width / _WIDTH, tall / height))
            axes.set(xticks=[], yticks=[], facecolor="black")
            axes.spines[:].set(color=figures.MUTED, linewidth=0.5)
            coloured = draw(axes, plane)
            size = view.size(plane)
            axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
            draw_letters(axes, plane.letters)
            draw_scale(axes, size, scale_bar)
            left += width + _GAP
    if bar:
        _colour_bar(figure, coloured, bar, left, height - top - row_height, row_height, height)
    _name_colours(figure, names, first, height)
    return figure


def _colour_bar(
    figure: Figure, coloured: object, title: str, left: float, bottom: float, tall: float, height: float
) -> None:
    """Beside the last row; places in inches."""
    axes = figure.add_axes((left / _WIDTH, bottom / height, 0.16 / _WIDTH, tall / height))
    bar = figure.colorbar(coloured, cax=axes, extend="both")
    bar.set_label(title, fontsize=9, color=figures.DARK)
    bar.ax.tick_params(labelsize=8, colors=figures.DARK)
    bar.outline.set(edgecolor=figures.MUTED, linewidth=0.5)


def _name_colours(figure: Figure, names: Sequence[tuple[str, str]], left: float, height: float) -> None:
    from matplotlib.patches import Patch

    if names:
        shown = [
            Patch(facecolor=colour, edgecolor=figures.MUTED, linewidth=0.5, label=name)
            for name, colour in names[:_MOST_NAMES]
        ]
        figure.legend(
            handles=shown,
            loc="lower left",
            bbox_to_anchor=(left / _WIDTH, 0),
            ncols=min(len(shown), 6),
            frameon=False,
            fontsize=8,
        )
