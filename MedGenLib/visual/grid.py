"""Grids of image panels with one scale in mm, labels, and a legend.

    view = View.of(image)
    figure = draw([row(view, "Image", image.array, window.limits), row(view, "Mask", labels=mask.array, opacity=1)])

Matplotlib is imported on first use.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.colors import rgb
from MedGenLib.io.provenance import NOTE
from MedGenLib.visual.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLORS = (
    "#f2c84b",
    "#e4604e",
    "#f7f3df",
    "#4fb3e8",
    "#67c26b",
    "#c77bd6",
    "#f08f3c",
    "#5fd4c4",
    "#a8a4f0",
    "#d9e15a",
    "#e88fb4",
    "#9c7a5b",
    "#5a1fff",
    "#1fff1f",
    "#ff1ff0",
    "#ff1f96",
    "#1f69ff",
    "#2e6969",
    "#4b691f",
    "#ff1f1f",
    "#1fff87",
    "#962ec3",
    "#784b69",
    "#c3ff1f",
    "#1f5ab4",
    "#b42e5a",
    "#5ac31f",
    "#3dffc3",
    "#a51f87",
    "#ff1f5a",
    "#c3ffc3",
    "#b4b469",
)
"""Colors of labels: fat, soft tissue, bone and lung as in atlases; any two differ by at least 22 in CIELAB."""
_NEAR = 100
"""Sum of the differences of red, green and blue up to which two colors are alike."""
_WIDTH = 10.0  # inches, as all lengths of a picture
_TITLE, _LINE, _BAR = 0.42, 0.22, 0.95
_LEGEND_COLUMNS, _LEGEND_MOST = 5, 20
_BRIGHT, _BLACK, _NOT_MEASURED = "#f0f0f0", "#000000", "#e9edf0"


@dataclass(frozen=True)
class Style:
    """Colors, lengths in inches and font size in points of a picture.

    Attributes
    ----------
    panel: maximum height of a row's panels.
    caption, rise: height of the line of captions, and of its middle above the panels.
    below: space under a row.
    edge: color around the patches of a legend; None for the patch color.
    """

    ground: str
    text: str
    muted: str
    frame: str
    dpi: int
    panel: float
    margin: float
    gap: float
    caption: float
    rise: float
    below: float
    size: float
    interpolation: str
    edge: str | None = None


SCREEN = Style(_BLACK, _BRIGHT, "#a0a0a0", "#3a3a3a", 150, 3.6, 0.15, 0.12, 0.24, 0.12, 0.12, 9, "bilinear")
"""A standalone picture on black, as in a radiology viewer."""
PAPER = Style(
    "white", "#1c2733", "#7a8793", "#7a8793", 130, 3.4, 0.08, 0.1, 0.28, 0.28 / 2.4, 0, 10, "nearest", "#7a8793"
)
"""A picture on a white page."""


@dataclass(frozen=True)
class Tile:
    """A cut through an image, through labels, or through labels on an image.

    Attributes
    ----------
    image: gray values, or values of the color map; masked voxels were not measured.
    limits: values of black and white, or of the ends of the color map.
    size: width and height in mm.
    letters: directions at the left, right, top and bottom edge.
    labels, opacity: labels filled with this opacity, or outlined if it is None.
    """

    image: NDArray | None
    limits: tuple[float, float]
    size: tuple[float, float]
    letters: str
    caption: str = ""
    color_map: str = "gray"
    labels: NDArray | None = None
    opacity: float | None = None


def row(
    view: View,
    caption: str,
    image: NDArray | None = None,
    limits: tuple[float, float] = (0, 1),
    *,
    labels: NDArray | None = None,
    opacity: float | None = None,
    color_map: str = "gray",
) -> list[Tile]:
    """One panel per plane of a view; arrays are in the voxel order of the image."""
    panels = []
    for plane in view.planes:
        values, marked = (None if array is None else view.cut(array, plane) for array in (image, labels))
        text = "" if panels else caption
        panels.append(Tile(values, limits, view.size(plane), plane.letters, text, color_map, marked, opacity))
    return panels


def label_colors(labels: NDArray, stated: Mapping[int, str] | None = None) -> dict[int, str]:
    """Color per label above 0: the stated one, else one that is unlike the stated ones."""
    values = [int(value) for value in np.unique(labels) if value]
    known = {value: color for value, color in (stated or {}).items() if value in values}
    if not known:
        return _own_colors(values)
    free = [
        color for color in COLORS if min(np.abs(np.subtract(rgb(color), rgb(k))).sum() for k in known.values()) > _NEAR
    ]
    others = [value for value in values if value not in known]
    chosen = free if len(others) <= len(free) else map(_spread_color, range(len(others)))
    return {**known, **dict(zip(others, chosen, strict=False))}


def _own_colors(values: list[int]) -> dict[int, str]:
    """Colors of labels of which none is stated, first from the fixed list."""
    if not values or values[-1] <= len(COLORS):
        return {value: COLORS[value - 1] for value in values}
    if len(values) <= len(COLORS):
        return dict(zip(values, COLORS, strict=False))
    return {value: _spread_color(order) for order, value in enumerate(values)}


def _spread_color(order: int) -> str:
    """The n-th of any number of colors; successive ones differ in hue, saturation and brightness."""
    from matplotlib.colors import hsv_to_rgb, to_hex

    hue = order * 0.618034 % 1  # multiples of the golden ratio do not repeat a hue
    return to_hex(hsv_to_rgb((hue, (0.75, 0.4)[order % 2], (1.0, 0.8, 0.9)[order % 3])))


def draw(
    rows: Sequence[Sequence[Tile]],
    colors: Mapping[int, str] | None = None,
    names: Mapping[int, str] | None = None,
    *,
    title: str = "",
    style: Style = SCREEN,
    color_bar: str = "",
    scale_bar: bool = True,
) -> Figure:
    """A figure of rows of panels; all rows have the panel sizes of the first.

    Parameters
    ----------
    colors: color per label.
    names: label names; the legend lists those visible. None omits it.
    title: heading; a picture with a heading also states at the bottom that it is synthetic.
    color_bar: label of the color bar beside the last row.
    scale_bar: whether each panel shows a scale bar in mm.
    """
    colors = colors or {}
    sizes = np.array([panel.size for panel in rows[0]])
    bar = round_length(sizes[:, 0].min() / 3) if scale_bar else 0.0
    gaps, beside = style.gap * (len(sizes) - 1), _BAR if color_bar else 0.0
    room = _WIDTH - 2 * style.margin - gaps - beside
    factor = min(room / sizes[:, 0].sum(), style.panel / sizes[:, 1].max())  # inches per mm
    widths, heights = (sizes * factor).T
    tall = heights.max()
    entries = [] if names is None else _legend(rows, colors, names)
    head, note = (_TITLE, _LINE) if title else (0.0, 0.0)
    legend = _LINE * -(-len(entries) // _LEGEND_COLUMNS)
    above = style.gap - style.below if entries else 0.0
    sheet = _Sheet(
        style, head + len(rows) * (style.caption + tall + style.below) + above + legend + note + style.margin
    )
    if title:
        sheet.text(style.margin, head / 2, title, 12, weight="bold")
    top = head + style.caption
    for panels in rows:
        left = (_WIDTH - beside - (widths.sum() + gaps)) / 2
        for panel, width, height in zip(panels, widths, heights, strict=True):
            if panel.caption:
                x = style.margin if title and panel is panels[0] else left
                sheet.text(x, top - style.rise, panel.caption, style.size)
            axes = sheet.axes(left, top + (tall - height) / 2, width, height)
            shown = _draw_panel(axes, panel, colors, style.interpolation, bar)
            left += width + style.gap
        top += tall + style.below + style.caption
    if color_bar:
        sheet.color_bar(shown, color_bar, left, top - style.caption - style.below - tall, tall)
    sheet.legend(entries, sheet.height - style.margin - note - legend)
    if title:
        sheet.text(style.margin, sheet.height - style.margin - note / 2, NOTE, 8, color=style.muted)
    return sheet.figure


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def _legend(
    rows: Sequence[Sequence[Tile]], colors: Mapping[int, str], names: Mapping[int, str]
) -> list[tuple[str, str]]:
    """Name and color of the visible labels; of many, the first ones and the number of others."""
    shown = [panel.labels.ravel() for panels in rows for panel in panels if panel.labels is not None]
    values = [int(value) for value in np.unique(np.concatenate(shown)) if value] if shown else []
    entries = [(names.get(value) or f"label {value}", colors[value]) for value in values]
    more = len(entries) - _LEGEND_MOST
    return entries if more <= 0 else [*entries[:_LEGEND_MOST], (f"and {more} more", "")]


class _Sheet:
    """An empty figure; positions are in inches from the top left corner."""

    def __init__(self, style: Style, height: float) -> None:
        from matplotlib.figure import Figure

        self.style, self.height = style, height
        self.figure = Figure((_WIDTH, height), dpi=style.dpi, facecolor=style.ground)

    def text(self, x: float, y: float, text: str, size: float, **how: str) -> None:
        """Text with its left middle at a position."""
        how = {"color": self.style.text, **how}
        self.figure.text(x / _WIDTH, 1 - y / self.height, text, size=size, va="center", parse_math=False, **how)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without ticks."""
        bottom = self.height - top - height
        place = (left / _WIDTH, bottom / self.height, width / _WIDTH, height / self.height)
        axes = self.figure.add_axes(place, xticks=[], yticks=[], facecolor=_BLACK)
        axes.spines[:].set(color=self.style.frame, linewidth=0.5)
        return axes

    def color_bar(self, shown: AxesImage, title: str, left: float, top: float, height: float) -> None:
        bar = self.figure.colorbar(shown, cax=self.axes(left, top, 0.16, height), extend="both")
        bar.set_label(title, fontsize=9, color=self.style.text)
        bar.ax.tick_params(labelsize=8, colors=self.style.text)
        bar.outline.set(edgecolor=self.style.muted, linewidth=0.5)

    def legend(self, entries: Sequence[tuple[str, str]], top: float) -> None:
        """Names beside their colors in five columns, line by line."""
        from matplotlib.patches import Rectangle

        for number, (name, color) in enumerate(entries):
            line, column = divmod(number, _LEGEND_COLUMNS)
            x = self.style.margin + column * (_WIDTH - 2 * self.style.margin) / _LEGEND_COLUMNS
            y = top + (line + 0.5) * _LINE
            if color:
                corner, size = (x / _WIDTH, 1 - (y + 0.05) / self.height), (0.14 / _WIDTH, 0.1 / self.height)
                colors = {"facecolor": color, "edgecolor": self.style.edge or color}
                self.figure.add_artist(Rectangle(corner, *size, transform=self.figure.transFigure, **colors))
            self.text(x + 0.2, y, textwrap.shorten(name, 32, placeholder=" ..."), 8)


def _draw_panel(axes: Axes, panel: Tile, colors: Mapping[int, str], interpolation: str, bar: float) -> AxesImage:
    """Draw a panel in mm with a scale bar of a length in mm; returns the image with the color scale."""
    from matplotlib import colormaps

    width, height = panel.size
    shown, extent = None, (0, width, height, 0)  # first row on top
    if panel.image is not None:
        color_map = colormaps[panel.color_map].with_extremes(bad=_NOT_MEASURED)
        scale = {"cmap": color_map, "vmin": panel.limits[0], "vmax": panel.limits[1]}
        shown = axes.imshow(panel.image, extent=extent, interpolation=interpolation, **scale)
    if panel.labels is not None and panel.opacity is None:
        _outline(axes, panel, colors)
    elif panel.labels is not None:
        filled = _filled(panel.labels, colors, panel.opacity)
        shown = axes.imshow(filled, extent=extent, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    _draw_letters(axes, panel.letters)
    if bar:
        _draw_scale(axes, panel.size, bar)
    return shown


def _filled(labels: NDArray, colors: Mapping[int, str], opacity: float) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    picture = np.zeros((*labels.shape, 4))
    for value, color in colors.items():
        picture[labels == value] = to_rgba(color, opacity)
    return picture


def _outline(axes: Axes, panel: Tile, colors: Mapping[int, str]) -> None:
    # A border of background closes contours at the edge of the picture.
    padded = np.pad(panel.labels, 1)
    y, x = ((np.arange(n) - 0.5) * mm / (n - 2) for n, mm in zip(padded.shape, panel.size[::-1], strict=True))
    for value in np.unique(panel.labels[panel.labels > 0]):
        axes.contour(x, y, padded == value, levels=[0.5], colors=[colors[int(value)]], linewidths=0.6)


def _draw_letters(axes: Axes, letters: str) -> None:
    """Draw the directions at the left, right, top and bottom edge."""
    places = ((0, 0.5, "left", "center"), (1, 0.5, "right", "center"))
    places += ((0.5, 1, "center", "top"), (0.5, 0, "center", "bottom"))
    inward = ((3, 0), (-3, 0), (0, -3), (0, 3))  # points
    for letter, (x, y, across, up), shift in zip(letters, places, inward, strict=True):
        _annotate(axes, letter, (x, y), shift, 9, xycoords="axes fraction", ha=across, va=up)


def _draw_scale(axes: Axes, size: tuple[float, float], length: float) -> None:
    """Draw a bar of a length in mm at the lower right of a panel of a size in mm."""
    right, bottom = size[0] * 0.97, size[1] - size[0] * 0.03
    line = axes.plot([right - length, right], [bottom, bottom], color=_BRIGHT, linewidth=1.8)[0]
    line.set(solid_capstyle="butt", path_effects=_halo())
    _annotate(axes, f"{length:g} mm", (right - length / 2, bottom), (0, 2), 7, ha="center", va="bottom")


def _annotate(axes: Axes, text: str, place: tuple, shift: tuple, size: float, **how: str) -> None:
    """Bright text with a dark halo, shifted from a position by points."""
    how |= {"textcoords": "offset points", "color": _BRIGHT, "path_effects": _halo()}
    axes.annotate(text, place, xytext=shift, fontsize=size, **how)


def _halo() -> list:
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2, foreground=_BLACK)]
