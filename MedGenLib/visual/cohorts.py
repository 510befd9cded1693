"""Plots of a comparison of cohorts, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.metrics.distribution import CohortComparison
from MedGenLib.metrics.features import Features
from MedGenLib.metrics.memorization import Memorization
from MedGenLib.visual.figures import FIRST, MUTED, SECOND, new_figure, png
from MedGenLib.visual.grid import PAPER, Tile, draw
from MedGenLib.visual.views import PLANES

_SHOWN = 6
"""Number of most similar pairs that are shown."""


def principal_axes(vectors: NDArray, reference: NDArray) -> NDArray[np.float64]:
    """Coordinates (n, 2) on the first two principal axes of `reference`."""
    mean = reference.mean(0)
    axes = np.linalg.svd(reference - mean, full_matrices=False)[2][:2]
    return (vectors - mean) @ axes.T


def map_picture(real: Sequence[Features], synthetic: Sequence[Features]) -> bytes:
    """Every volume as a point on the first two principal axes of the real ones."""
    first = np.stack([f.vector for f in real])
    second = np.stack([f.vector for f in synthetic])
    figure, axes = new_figure()
    for vectors, color, name, mark in ((first, FIRST, "real", "o"), (second, SECOND, "synthetic", "^")):
        x, y = principal_axes(vectors, first).T
        axes.scatter(x, y, s=28, c=color, marker=mark, label=name, alpha=0.75, linewidths=0)
    axes.set(xlabel="first principal axis of the real volumes' features", ylabel="second principal axis")
    axes.legend(frameon=False)
    return png(figure)


def curve_picture(result: CohortComparison) -> bytes:
    """Frechet distance over 1 / volumes, and its extrapolation to infinitely many."""
    sizes, values = np.array(result.curve).T
    figure, axes = new_figure()
    axes.plot(1 / sizes, values, "o", color=SECOND)
    for size, value in result.curve:
        axes.annotate(
            f"{size:.0f} volumes", (1 / size, value), (0, -14), ha="center", textcoords="offset points", fontsize=8
        )
    limit = next(m for m in result.measures if m.name == "FID infinity")
    if limit.value is not None:
        axes.plot([0, 1 / sizes[-1]], [limit.value, values[-1]], "--", color=SECOND)
        error = [[limit.value - limit.low], [limit.high - limit.value]]
        axes.errorbar([0], [limit.value], error, fmt="s", color=SECOND, capsize=4, label="infinitely many, 95 %")
    floor = result.value("FID of real halves")
    if floor is not None:
        axes.axhline(floor, color=FIRST, linewidth=1, label="two halves of the real cohort")
    axes.set(xlabel="1 / volumes of a cohort", ylabel="2.5-D Frechet distance")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.margins(x=0.1)
    axes.legend(frameon=False)
    return png(figure)


def neighbors_picture(found: Memorization) -> bytes:
    """Distance and correlation to the nearest training image: of real and synthetic images."""
    figure, axes = new_figure()
    axes.scatter(*found.real.T, s=22, c=FIRST, label="real, to others", alpha=0.6, linewidths=0)
    points = np.array([(n.distance, n.correlation) for n in found.neighbors])
    axes.scatter(*points.T, s=30, c=SECOND, marker="^", label="synthetic, to training", linewidths=0)
    if found.distance_limit is not None:
        axes.axvline(found.distance_limit, color=MUTED, linestyle="--", linewidth=1)
        axes.axhline(found.correlation_limit, color=MUTED, linestyle="--", linewidth=1, label="limits of chance")
    axes.set(
        xlabel="distance to the nearest training image (features)", ylabel="highest correlation with a training image"
    )
    axes.legend(frameon=False)
    return png(figure)


def pairs_picture(found: Memorization, synthetic: Sequence[Features], training: Sequence[Features]) -> bytes:
    """Middle slices of the synthetic volumes most similar to a training image, above that image."""
    cubes = {f.name: f.cube for f in [*synthetic, *training]}
    chosen = sorted(found.neighbors, key=lambda n: -n.correlation)[:_SHOWN]
    above = [_middle(cubes[n.name], _short(n.name)) for n in chosen]
    below = [_middle(cubes[n.by_voxels], f"{_short(n.by_voxels)}\nr = {n.correlation:.3f}") for n in chosen]
    style = replace(PAPER, panel=1.6, caption=0.4, rise=0.19, size=8)
    return png(draw([above, below], style=style, scale_bar=False))


def _middle(cube: NDArray, caption: str) -> Tile:
    """The middle axial slice of a downsampled volume, without a scale in mm."""
    axial = PLANES[0]
    image = axial.cut(cube, cube.shape[2] // 2)
    return Tile(image, (image.min(), image.max()), (1, 1), axial.letters, caption)


def _short(name: str, most: int = 22) -> str:
    """The file name without its cohort, shortened to its end."""
    name = name.split("/")[-1]
    return name if len(name) <= most else f"…{name[1 - most :]}"
