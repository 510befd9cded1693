"""Plots of reports as PNG: label errors, agreement, histogram, uncertainty, cohorts.

All share one style with a white background. Matplotlib is imported on first use; no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from MedGenLib.metrics.compare import Comparison, ImageMeasure
    from MedGenLib.metrics.uncertainty import Calibration

FIRST, SECOND, DARK, MUTED = "#2c6fad", "#d1602b", "#1c2733", "#7a8793"
"""Colors of the reference, of the image, of lines and of secondary marks, distinguishable with color blindness."""
_DPI = 130
_MOST_VOXELS, _MOST_BARS = 500_000, 30
_LIMITS = 1.96
"""Standard deviations on each side that contain 95 % of a normal distribution."""


def new_figure(width: float = 6.4, height: float = 4.2, grid: str = "both") -> tuple[Figure, Axes]:
    """An empty plot with a size in inches, and grid lines of "both", "x" or "y" axes."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=DARK, labelsize=9)
    axes.grid(axis=grid, color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def pixel_figure(width: int, height: int) -> Figure:
    """An empty picture with a size in pixels."""
    from matplotlib.figure import Figure

    return Figure((width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")


def png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def label_errors(rows: Sequence[ImageMeasure]) -> bytes | None:
    """MAE as a bar and bias as a marker for each label; None without labels.

    Of more than 30 labels, those with the largest MAE are shown.
    """
    errors = {row.label: row.value for row in rows if row.label and row.name == "MAE"}
    biases = {row.label: row.value for row in rows if row.label and row.name == "Bias"}
    shown = sorted((n for n, v in errors.items() if v is not None), key=lambda n: errors[n])
    shown = shown[-_MOST_BARS:]
    if not shown:
        return None
    unit = next(row.unit for row in rows if row.label and row.name == "MAE")
    figure, axes = new_figure(height=1.4 + 0.3 * len(shown), grid="x")
    axes.barh(shown, [errors[name] for name in shown], color=FIRST, height=0.62, label="MAE")
    axes.plot(
        [biases[name] for name in shown], shown, "D", color=SECOND, markersize=6, markeredgecolor="white", label="bias"
    )
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_xlabel(f"error in {unit}")
    axes.set_ylim(-0.6, len(shown) - 0.4)
    _legend_above(axes, 2)
    return png(figure)


def dice_bars(values: Sequence[tuple[str, float]]) -> bytes:
    """Dice of each label, (name, value)."""
    names, dice = zip(*values, strict=True)
    figure, axes = new_figure(height=1.2 + 0.3 * len(names), grid="x")
    bars = axes.barh(names, dice, color=FIRST, height=0.62)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9, color=DARK)
    axes.set(xlim=(0, 1.08), xticks=np.arange(0, 1.01, 0.2), xlabel="Dice (1 is best)")
    axes.set_ylim(len(names) - 0.4, -0.6)
    return png(figure)


def bland_altman(comparison: Comparison) -> bytes:
    """Difference over mean of image and reference for voxels of the region, with bias and limits of agreement.

    Bland and Altman, Statistical methods for assessing agreement between two methods of clinical measurement, Lancet
    1986. Bias and limits are of all voxels; at most 500,000 are plotted.
    """
    index = comparison.sample(_MOST_VOXELS)
    difference = comparison.difference.array.ravel()[index].astype(np.float64)
    mean = comparison.reference.array.ravel()[index] + difference / 2
    inside = comparison.difference.array[comparison.region]
    bias, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    unit = comparison.difference.unit
    figure, axes = new_figure()
    reach = 1.1 * max(np.percentile(np.abs(difference), 99.9), _LIMITS * sd + abs(bias), 1e-6)
    low, high = _axis_range(mean)
    shown = {"extent": (low, high, -reach, reach), "gridsize": 70, "mincnt": 1, "bins": "log"}
    cells = axes.hexbin(mean, difference, cmap="Blues", linewidths=0, **shown)
    for value, name, style in (
        (bias, "bias", "-"),
        (bias + _LIMITS * sd, "+1.96 SD", "--"),
        (bias - _LIMITS * sd, "-1.96 SD", "--"),
    ):
        _mark_height(axes, value, f"{name} {value:+.3g}", linestyle=style, fontsize=8)
    axes.set(
        xlim=(low, high), ylim=(-reach, reach), xlabel=f"mean of both in {unit}", ylabel=f"image - reference in {unit}"
    )
    figure.colorbar(cells, label="voxels plotted", pad=0.02).outline.set_visible(False)
    return png(figure)


def histogram(comparison: Comparison) -> bytes:
    """Histogram of the region's voxels, of the image and of the reference."""
    index = comparison.sample(_MOST_VOXELS)
    reference = comparison.reference.array.ravel()[index].astype(np.float64)
    image = reference + comparison.difference.array.ravel()[index]
    low, high = _axis_range(np.concatenate([image, reference]))
    edges = np.linspace(low, high, 121)
    figure, axes = new_figure()
    for values, color, name in ((reference, FIRST, "reference"), (image, SECOND, "image")):
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, color=color, label=name, linewidth=1.6)
        if name == "reference":
            axes.stairs(share, edges, color=color, fill=True, alpha=0.15)
    axes.set(
        xlim=(low, high),
        yscale="log",
        xlabel=f"value in {comparison.difference.unit}",
        ylabel="share of the voxels in %",
    )
    _legend_above(axes, 2)
    return png(figure)


def uncertainty_bins(calibration: Calibration, unit: str) -> bytes:
    """Mean absolute error over mean uncertainty, for tenths of the voxels from certain to uncertain."""
    spread = [part.spread for part in calibration.bins]
    error = [part.error for part in calibration.bins]
    figure, axes = new_figure()
    # The mean absolute value of a normal error is sqrt(2 / pi) of its standard deviation.
    most = max(spread) or 1.0
    axes.plot(
        [0, most],
        [0, most * np.sqrt(2 / np.pi)],
        "--",
        color=MUTED,
        linewidth=1.2,
        label="uncertainty equal to the error's SD",
    )
    axes.plot(spread, error, "o-", color=FIRST, linewidth=1.6, label="tenths of the voxels")
    axes.set(xlim=(0, 1.05 * most), xlabel=f"mean uncertainty in {unit}", ylabel=f"mean absolute error in {unit}")
    axes.set_ylim(bottom=0)
    _legend_above(axes, 1)
    return png(figure)


def case_bars(values: Sequence[tuple[str, float]], name: str, mean: float) -> bytes:
    """One bar per case (name, value) in the given order, and their mean as a line."""
    names, heights = zip(*values, strict=True)
    figure, axes = new_figure(width=10, height=3.4, grid="y")
    places = np.arange(len(names))
    axes.bar(places, heights, color=FIRST, width=0.7)
    _mark_height(axes, mean, f"mean {mean:.4g}")
    step = -(-len(names) // _MOST_BARS)
    shown = [n if len(n) <= 24 else f"{n[:23]}…" for n in names[::step]]
    axes.set_xticks(places[::step], shown, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set(ylabel=name, xlim=(-0.7, len(names) - 0.3))
    return png(figure)


def case_boxes(values: dict[str, Sequence[float]], name: str) -> bytes:
    """Box plot per label over the cases, with a marker per case."""
    figure, axes = new_figure(height=1.2 + 0.42 * len(values), grid="x")
    for place, found in enumerate(values.values()):
        low, median, high = np.percentile(found, (25, 50, 75))
        axes.barh(place, high - low, left=low, height=0.6, color="#d6e4f2", edgecolor=FIRST)
        axes.plot([median] * 2, [place - 0.3, place + 0.3], color=SECOND, linewidth=2)
        axes.plot(found, [place] * len(found), "o", color=DARK, markersize=3.5, alpha=0.6)
    axes.set_yticks(range(len(values)), list(values), parse_math=False)
    axes.set(xlabel=name, ylim=(len(values) - 0.4, -0.6))
    return png(figure)


def _mark_height(axes: Axes, value: float, text: str, linestyle: str = "-", fontsize: float = 9) -> None:
    """A horizontal line with text at its right end."""
    axes.axhline(value, color=SECOND, linewidth=1.3, linestyle=linestyle)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (-3, 3), "textcoords": "offset points"}
    axes.annotate(text, (1, value), **place, ha="right", fontsize=fontsize, color=SECOND)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9)


def _axis_range(values: NDArray) -> tuple[float, float]:
    """A non-empty range that contains nearly all values."""
    low, high = (float(v) for v in np.percentile(values, (0.02, 99.98)))
    margin = max(0.02 * (high - low), 1e-6 * max(abs(high), 1.0))
    return low - margin, high + margin
