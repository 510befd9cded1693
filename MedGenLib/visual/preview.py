"""Preview pictures: input and output in three planes, as they are looked at in radiology.

Patient's right is on the viewer's left, anterior is up (axial) or left (sagittal), superior is up;
all panels have one scale in mm. Oblique volumes are shown along their own axes, with the letters
of the nearest anatomical directions. Matplotlib is imported when a picture is made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import temporary_output
from MedGenLib.report import NOTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
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
)
"""Of the first labels; fat, soft tissue, bone and lung get what atlases use."""
_BACKGROUND, _TEXT, _MUTED, _FRAME = "#000000", "#f0f0f0", "#a0a0a0", "#3a3a3a"
_WIDTH, _ROW_HEIGHT = 10.0, 3.6  # inches: of the picture, and at most of a row
_MARGIN, _GAP, _TITLE, _CAPTION, _LEGEND_LINE = 0.15, 0.12, 0.42, 0.24, 0.22
_DPI = 150
_SURROUNDINGS_MM = 100.0  # shown of a changed region
_LEGEND_COLUMNS = 5
_LEGEND_MOST = 20


@dataclass(frozen=True)
class Window:
    """Grey values shown: black at level - width / 2, white at level + width / 2."""

    name: str
    width: float
    level: float

    @property
    def limits(self) -> tuple[float, float]:
        return self.level - self.width / 2, self.level + self.width / 2

    def __str__(self) -> str:
        return f"{self.name} (W {self.width:.4g} L {self.level:.4g})".lstrip()


SOFT_TISSUE = Window("soft-tissue window", 400, 40)
LUNG = Window("lung window", 1500, -600)
BONE = Window("bone window", 1800, 400)


@dataclass(frozen=True)
class Plane:
    """A plane of a RAS array: sliced along `axis`, shown with `across` and `up` on the screen.

    Both screen axes run against the array: towards the patient's left or back, and downwards.
    """

    name: str
    axis: int
    across: int
    up: int
    letters: str  # left, right, top, bottom edge of the screen


PLANES = (Plane("axial", 2, 0, 1, "RLAP"), Plane("coronal", 1, 0, 2, "RLSI"), Plane("sagittal", 0, 1, 2, "APSI"))


@dataclass(frozen=True)
class _Row:
    """One row of the picture: grey values, labels, or labels as contours on grey values."""

    caption: str
    grey: NDArray | None = None
    window: Window | None = None
    labels: NDArray | None = None

    @property
    def image(self) -> NDArray:
        return self.labels if self.grey is None else self.grey

    def cropped(self, box: tuple[slice, ...]) -> _Row:
        grey, labels = (None if a is None else a[box] for a in (self.grey, self.labels))
        return replace(self, grey=grey, labels=labels)


@dataclass(frozen=True)
class _Scene:
    """What is to be drawn; arrays, centre and spacing in RAS order."""

    rows: list[_Row]
    planes: list[Plane]
    centre: NDArray[np.int64]
    spacing: NDArray
    colours: dict[int, str]

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm."""
        extent = self.rows[0].image.shape * self.spacing
        return float(extent[plane.across]), float(extent[plane.up])

    @property
    def bar(self) -> float:
        """Length of the scale bars in mm, one for all panels."""
        return round_length(min(self.size(plane)[0] for plane in self.planes) / 3)


def preview(input: Volume | LabelMap, output: Volume, path: str | Path, title: str = "") -> None:
    """Write a PNG with the input above the output, in the planes through the body's centre.

    A mask is shown filled, and as contours over the output, which is shown once more without
    them: in a lung or bone window if it is a CT. A volume of a single slice is shown in its own
    plane only.

    Parameters
    ----------
    input: mask or source image, on the same grid as the output.
    output: the synthetic volume.
    path: of the PNG file, written completely or not at all.
    title: heading, for instance the model and the seed.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be
        written.
    """
    if input.shape != output.shape:
        raise InputError(
            f"The input has {input.shape} voxels and the output {output.shape}; a preview needs both on one grid."
        )
    reorientation, spacing, planes = _views(output)
    rows = _rows(input, output, reorientation)
    labels = rows[0].labels
    body = foreground(output, rows[-1].grey)
    subject = body if labels is None else labels > 0
    box = box_round(subject | body)
    rows = [row.cropped(box) for row in rows]
    scene = _Scene(rows, planes, centre_of(subject[box]), np.array(spacing), label_colours(labels))
    figure = _draw(scene, _shown_names(scene, input), title or "MedGen preview")
    with temporary_output(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": NOTE})


def preview_change(before: Volume, after: Volume, change: LabelMap, path: str | Path, title: str = "") -> None:
    """Write a PNG of a changed region: before, after, and after with the region's outline.

    Shown are the surroundings of the region, in the planes through its middle; a CT in the lung
    window where the region is or was lung.

    Parameters
    ----------
    before, after: the image without and with the change.
    change: above 0 in the region that was changed; it must not be empty.
    path: of the PNG file, written completely or not at all.
    title: heading.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be
        written.
    """
    if not before.shape == after.shape == change.shape:
        raise InputError(
            f"The image has {before.shape} voxels before and {after.shape} after the change and "
            f"the mask {change.shape}; a preview needs all on one grid."
        )
    reorientation, spacing, planes = _views(after)
    box = _surroundings(reorientation.apply(change.array) > 0, spacing)
    old, new, region = (reorientation.apply(image.array)[box] for image in (before, after, change))
    window = default_windows(Volume(new, np.eye(4), after.modality, after.unit))[0]
    if after.modality == "CT" and min(np.median(image[region > 0]) for image in (old, new)) < -500:
        window = LUNG
    rows = [
        _Row(f"Before, {window}", old, window),
        _Row(f"After, {window}", new, window),
        _Row("After, with the changed region", new, window, region),
    ]
    scene = _Scene(rows, planes, centre_of(region > 0), spacing, label_colours(region))
    with temporary_output(path) as temporary:
        figure = _draw(scene, {}, title or "MedGen preview")
        figure.savefig(temporary, format="png", metadata={"Description": NOTE})


def _views(image: Volume) -> tuple[Reorientation, np.ndarray, list[Plane]]:
    """The reorientation to RAS, the spacing after it in mm, and the planes longer than one voxel.

    Raises InputError where there is no such plane.
    """
    reorientation = Reorientation.to(image.geometry, "RAS")
    shape, spacing = reorientation.axes(image.shape), np.array(reorientation.axes(image.spacing))
    planes = [plane for plane in PLANES if shape[plane.across] > 1 and shape[plane.up] > 1]
    if not planes:
        raise InputError(f"An image of {image.shape} voxels has no plane to show; load a slice.")
    return reorientation, spacing, planes


def preview_edit(
    before: Volume, labels: LabelMap, after: Volume, path: str | Path, box: Sequence[Sequence[int]], title: str = ""
) -> None:
    """Write a PNG of an edit: before, the new labels painted over that, and after.

    Parameters
    ----------
    before, after: the image without and with the change.
    labels: the new mask, on the same grid.
    box: first and one past the last changed voxel of each axis; shown are its surroundings.
    path, title: as of `preview_change`.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be
        written.
    """
    if not before.shape == after.shape == labels.shape:
        raise InputError(
            f"The image has {before.shape} voxels before and {after.shape} after the edit and the "
            f"mask {labels.shape}; a preview needs all on one grid."
        )
    reorientation, spacing, planes = _views(after)
    changed = np.zeros(labels.shape, bool)
    changed[tuple(slice(*ends) for ends in box)] = True
    changed = reorientation.apply(changed)
    part = _surroundings(changed, spacing)
    old, new, mask = (reorientation.apply(image.array)[part] for image in (before, after, labels))
    window = default_windows(Volume(new, np.eye(4), after.modality, after.unit))[0]
    rows = [
        _Row(f"Before, {window}", old, window),
        _Row("The new mask", old, window, mask),
        _Row(f"After, {window}", new, window),
    ]
    scene = _Scene(rows, planes, centre_of(changed[part]), spacing, label_colours(mask))
    with temporary_output(path) as temporary:
        names = {value: labels.names.get(value, str(value)) for value in scene.colours}
        figure = _draw(scene, names, title or "MedGen preview")
        figure.savefig(temporary, format="png", metadata={"Description": NOTE})


def _surroundings(region: NDArray, spacing: NDArray) -> tuple[slice, ...]:
    """A cube about a region, half as wide again as it or at least `_SURROUNDINGS_MM`."""
    index = np.nonzero(region)
    extents = [(int(i.max()) - int(i.min()) + 1) * s for i, s in zip(index, spacing, strict=True)]
    side = max(_SURROUNDINGS_MM, 1.5 * max(extents))
    box = []
    for i, n, s in zip(index, region.shape, spacing, strict=True):
        size = min(n, max(1, round(side / s)))
        first = round((int(i.min()) + int(i.max()) + 1 - size) / 2)
        first = min(max(0, first), n - size)
        box.append(slice(first, first + size))
    return tuple(box)


def default_windows(volume: Volume) -> list[Window]:
    """How to look at a volume: soft tissue and lung or bone for CT, percentiles otherwise."""
    values = volume.array[tuple(slice(None, None, max(n // 64, 1)) for n in volume.shape)]
    if volume.modality == "CT":
        air = np.count_nonzero((values > -950) & (values < -600))
        body = np.count_nonzero(values > -200)
        return [SOFT_TISSUE, LUNG if air > 0.15 * body else BONE]
    body = values[foreground(volume, values)]
    low, high = np.percentile(body if body.size else values, [1, 98.5])
    # MR has no negative signal, and its background should look black.
    low = min(low, 0.0) if values.min() >= 0 else low
    width = max(float(high - low), 1e-6)
    return [Window("window", width, float(low) + width / 2)]


def _rows(input: Volume | LabelMap, output: Volume, reorientation: Reorientation) -> list[_Row]:
    grey, windows = reorientation.apply(output.array), default_windows(output)
    name = f"Output: synthetic {output.modality or 'image'}"
    first = f"{name}, {windows[0]}"
    if isinstance(input, LabelMap):
        labels = reorientation.apply(input.array)
        rows = [_Row("Input: mask", labels=labels), _Row(f"{first}, mask as contours", grey, windows[0], labels)]
        return [*rows, _Row(f"{name}, {windows[-1]}", grey, windows[-1])]
    source = default_windows(input)[0]
    rows = [_Row(f"Input: {input.modality or 'image'}, {source}", reorientation.apply(input.array), source)]
    return [*rows, *(_Row(f"{name}, {window}", grey, window) for window in windows)]


def foreground(output: Volume, grey: NDArray) -> NDArray:
    """Rough silhouette of the body, good enough to frame it."""
    if output.modality == "CT":
        return grey > -400
    return grey > grey.min() + 0.1 * (np.percentile(grey, 99) - grey.min())


def box_round(inside: NDArray) -> tuple[slice, ...]:
    """The box round the non-zero voxels with a margin of 4 %, or everything if there are none."""
    if not inside.any():
        return tuple(slice(0, length) for length in inside.shape)
    box = []
    for profile in _profiles(inside):
        span = np.flatnonzero(profile)
        margin = 1 + round(0.04 * (span[-1] - span[0]))
        box.append(slice(max(span[0] - margin, 0), span[-1] + 1 + margin))
    return tuple(box)


def centre_of(inside: NDArray) -> NDArray[np.int64]:
    """Median position of the non-zero voxels along each axis: its plane always meets some."""
    if not inside.any():
        return np.array(inside.shape) // 2
    totals = [profile.cumsum() for profile in _profiles(inside)]
    return np.array([np.searchsorted(total, total[-1] / 2) for total in totals])


def _profiles(inside: NDArray) -> list[NDArray]:
    """Number of non-zero voxels in each plane, for each axis."""
    return [np.count_nonzero(inside, axis=other) for other in ((1, 2), (0, 2), (0, 1))]


def section(array: NDArray, plane: Plane, centre: Sequence[int]) -> NDArray:
    """2-D array (row, column) as on the screen, top row first."""
    flat = array.take(int(centre[plane.axis]), plane.axis)  # (across, up)
    return flat[::-1, ::-1].T


def label_colours(labels: NDArray | None) -> dict[int, str]:
    """Colour per label, from the list as far as that reaches."""
    values = [] if labels is None else [int(value) for value in np.unique(labels) if value]
    if not values or values[-1] <= len(COLOURS):
        return {value: COLOURS[value - 1] for value in values}
    return {value: _spread_colour(order) for order, value in enumerate(values)}


def _spread_colour(order: int) -> str:
    """Any number of colours: neighbours in the list differ in hue, saturation and brightness."""
    from matplotlib.colors import hsv_to_rgb, to_hex

    hue = order * 0.618034 % 1  # the golden ratio never comes back to the same hue
    return to_hex(hsv_to_rgb((hue, (0.75, 0.4)[order % 2], (1.0, 0.8, 0.9)[order % 3])))


def _shown_names(scene: _Scene, input: Volume | LabelMap) -> dict[int, str]:
    """Names of the labels that can be seen in the planes."""
    labels = scene.rows[0].labels
    if labels is None:
        return {}
    shown = [section(labels, plane, scene.centre).ravel() for plane in scene.planes]
    values = [int(value) for value in np.unique(np.concatenate(shown)) if value]
    return {value: input.names.get(value, f"label {value}") for value in values}


@dataclass(frozen=True)
class _Layout:
    """Positions in inches from the top left corner."""

    widths: list[float]
    heights: list[float]
    row_height: float
    legend: float
    height: float


def _lay_out(scene: _Scene, n_names: int) -> _Layout:
    widths, heights = np.transpose([scene.size(plane) for plane in scene.planes])
    room = _WIDTH - 2 * _MARGIN - _GAP * (len(widths) - 1)
    scale = min(room / widths.sum(), _ROW_HEIGHT / heights.max())  # inches per mm
    row = float(heights.max() * scale)
    legend = _LEGEND_LINE * -(-min(n_names, _LEGEND_MOST + 1) // _LEGEND_COLUMNS)
    rows = len(scene.rows) * (_CAPTION + row + _GAP)
    height = _TITLE + rows + legend + _LEGEND_LINE + _MARGIN
    return _Layout(list(widths * scale), list(heights * scale), row, legend, height)


def _draw(scene: _Scene, names: dict[int, str], title: str) -> Figure:
    from matplotlib.figure import Figure

    layout = _lay_out(scene, len(names))
    figure = Figure((_WIDTH, layout.height), dpi=_DPI, facecolor=_BACKGROUND)
    _text(figure, layout, _MARGIN, _TITLE / 2, title, 12, "bold")
    for row, top in zip(scene.rows, _row_tops(layout), strict=False):
        _text(figure, layout, _MARGIN, top - _CAPTION / 2, row.caption, 9)
        left = _first_left(layout)
        for plane, width, height in zip(scene.planes, layout.widths, layout.heights, strict=True):
            below = top + (layout.row_height - height) / 2
            _draw_panel(_axes(figure, layout, left, below, width, height), scene, row, plane)
            left += width + _GAP
    _draw_legend(figure, layout, names, scene.colours)
    bottom = layout.height - _MARGIN - _LEGEND_LINE / 2
    _text(figure, layout, _MARGIN, bottom, NOTE, 8, colour=_MUTED)
    return figure


def _row_tops(layout: _Layout) -> Iterator[float]:
    top = _TITLE + _CAPTION
    while True:
        yield top
        top += layout.row_height + _GAP + _CAPTION


def _first_left(layout: _Layout) -> float:
    used = sum(layout.widths) + _GAP * (len(layout.widths) - 1)
    return (_WIDTH - used) / 2


def _axes(figure: Figure, layout: _Layout, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the top left corner, without frame or ticks."""
    bottom = layout.height - top - height
    axes = figure.add_axes((left / _WIDTH, bottom / layout.height, width / _WIDTH, height / layout.height))
    axes.set(xticks=[], yticks=[], facecolor=_BACKGROUND)
    for spine in axes.spines.values():
        spine.set(color=_FRAME, linewidth=0.5)
    return axes


def _draw_panel(axes: Axes, scene: _Scene, row: _Row, plane: Plane) -> None:
    shown = section(row.image, plane, scene.centre)
    width, height = scene.size(plane)
    extent = (0, width, height, 0)  # mm, first row on top
    if row.grey is None:
        axes.imshow(_painted(shown, scene.colours), extent=extent, interpolation="nearest")
    else:
        low, high = row.window.limits
        axes.imshow(shown, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
        if row.labels is not None:
            labels = section(row.labels, plane, scene.centre)
            draw_contours(axes, labels, (width, height), scene.colours)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    draw_letters(axes, plane.letters)
    draw_scale(axes, (width, height), scene.bar)


def _painted(labels: NDArray, colours: dict[int, str]) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    picture = np.zeros((*labels.shape, 3))
    for value, colour in colours.items():
        picture[labels == value] = to_rgb(colour)
    return picture


def draw_contours(axes: Axes, labels: NDArray, size: tuple[float, float], colours: dict[int, str]) -> None:
    """The outline of each label of a section, in axes in mm of a size (across, down)."""
    # A border of background closes contours that run along the edge of the picture.
    padded = np.pad(labels, 1)
    x = (np.arange(padded.shape[1]) - 0.5) * size[0] / labels.shape[1]
    y = (np.arange(padded.shape[0]) - 0.5) * size[1] / labels.shape[0]
    for value in np.unique(labels[labels > 0]):
        axes.contour(x, y, padded == value, levels=[0.5], colors=[colours[int(value)]], linewidths=0.6)


def draw_letters(axes: Axes, letters: str) -> None:
    """The directions at the left, right, top and bottom edge."""
    places = ((0, 0.5, "left", "center"), (1, 0.5, "right", "center"))
    places += ((0.5, 1, "center", "top"), (0.5, 0, "center", "bottom"))
    inward = ((3, 0), (-3, 0), (0, -3), (0, 3))  # points
    for letter, (x, y, across, up), shift in zip(letters, places, inward, strict=True):
        axes.annotate(
            letter,
            (x, y),
            xycoords="axes fraction",
            xytext=shift,
            textcoords="offset points",
            ha=across,
            va=up,
            fontsize=9,
            color=_TEXT,
            path_effects=_outline(),
        )


def draw_scale(axes: Axes, size: tuple[float, float], length: float) -> None:
    """A bar of a length in mm at the lower right of a panel of a size in mm."""
    right, bottom = size[0] * 0.97, size[1] - size[0] * 0.03
    axes.plot(
        [right - length, right],
        [bottom, bottom],
        color=_TEXT,
        linewidth=1.8,
        solid_capstyle="butt",
        path_effects=_outline(),
    )
    axes.annotate(
        f"{length:g} mm",
        (right - length / 2, bottom),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
        color=_TEXT,
        path_effects=_outline(),
    )


def round_length(most: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def _outline() -> list:
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2, foreground=_BACKGROUND)]


def _draw_legend(figure: Figure, layout: _Layout, names: dict[int, str], colours: dict[int, str]) -> None:
    from matplotlib.patches import Rectangle

    entries = [(name, colours[value]) for value, name in names.items()]
    more = len(entries) - _LEGEND_MOST
    if more > 0:
        entries = [*entries[:_LEGEND_MOST], (f"and {more} more", _BACKGROUND)]
    top = layout.height - _MARGIN - _LEGEND_LINE - layout.legend
    step = (_WIDTH - 2 * _MARGIN) / _LEGEND_COLUMNS
    for number, (name, colour) in enumerate(entries):
        line, column = divmod(number, _LEGEND_COLUMNS)
        x, y = _MARGIN + column * step, top + (line + 0.5) * _LEGEND_LINE
        figure.add_artist(
            Rectangle(
                (x / _WIDTH, 1 - (y + 0.05) / layout.height),
                0.14 / _WIDTH,
                0.1 / layout.height,
                transform=figure.transFigure,
                color=colour,
            )
        )
        _text(figure, layout, x + 0.2, y, textwrap.shorten(name, 32, placeholder=" ..."), 8)


def _text(
    figure: Figure,
    layout: _Layout,
    x: float,
    y: float,
    text: str,
    size: float,
    weight: str = "normal",
    colour: str = _TEXT,
) -> None:
    """Text whose left middle is at a place in inches from the top left corner."""
    figure.text(
        x / _WIDTH,
        1 - y / layout.height,
        text,
        fontsize=size,
        weight=weight,
        color=colour,
        va="center",
        parse_math=False,
    )
