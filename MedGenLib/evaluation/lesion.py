"""A page that explains how one lesion was made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.evaluation.html import Picture, Section, Table, page

if TYPE_CHECKING:
    from MedGenLib.editing.lesions import Insertion


def explained(made: Insertion) -> str:
    """The page as HTML: what was chosen, which voxels changed and why, and pictures."""
    report, parts = made.report, ("texture", "mass_effect")
    choices = {"model": f"{report.model} {report.version}", "seed": report.seed}
    choices |= {name: value for name, value in report.parameters.items() if name not in parts}
    for part in parts:
        choices |= {f"{part}: {name}": value for name, value in report.parameters.get(part, {}).items()}
    rows = [(name.replace("_", " "), _cell(value)) for name, value in choices.items()]
    times = [frame.report.parameters for frame in made.frames if made.later]
    growth = [tuple(time[name] for name in ("day", "size_mm", "volume_ml")) for time in times]
    sections = [
        Section("How it was made", [Table(("Choice", "Value"), rows)]),
        Section("Growth", [Table(("Day", "Size, mm", "Volume, ml"), growth)] if growth else []),
        Section("Which voxels changed", [_changes(made)]),
        Section("Steps of the sampler", _steps(made)),
        Section("Pictures", [_picture(frame) for frame in (made, *made.later[-1:])]),
    ]
    return page("One lesion", sections)


def _cell(value: object) -> str | int | float | None:
    return value if isinstance(value, (str, int, float, type(None))) else ", ".join(map(str, value))


def _changes(made: Insertion) -> Table:
    """Changed voxels by the reason."""
    before, after, lesion = made.source.array, made.volume.array, made.lesion.array > 0
    moved = before if made.push is None else made.push.warp(before, made.source.geometry)
    changed, difference = after != before, np.abs(after.astype(np.float64) - before)
    reasons = {
        "inside the lesion: its tissue, contrast and texture": lesion,
        "around it: voxels that it fills in part, strands, and the rim that the model blends": ~lesion
        & (after != moved),
        "surroundings that the mass effect moved": ~lesion & (after == moved),
    }
    shown = {reason: difference[changed & where] for reason, where in reasons.items()}
    rows = [(reason, one.size, float(one.mean()), float(one.max())) for reason, one in shown.items() if one.size]
    unit = made.volume.unit
    return Table(("Voxels", "Changed", "Mean change", "Largest change"), rows, f"In {unit}; no other voxel changed.")


def _steps(made: Insertion) -> list[str | Picture]:
    """One plane through the lesion at some steps of the sampler; empty where no tissue was made."""
    from MedGenLib.visual.figures import png
    from MedGenLib.visual.grid import draw, row
    from MedGenLib.visual.views import View, default_windows

    if not made.steps:
        return []
    view, limits = View.of(made.volume, made.lesion.array > 0, close=True), default_windows(made.volume)[0].limits
    tiles, shown = [], made.source.array.astype(np.float32)
    for number, total, box, values in made.steps:
        shown[box] = values
        tile = row(view, f"Step {number} of {total}", shown, limits)[0]
        tiles.append(replace(tile, image=tile.image.copy()))
    sentence = (
        "What the sampler expects the result to be, from noise to the last step, in the box that it made again; "
        "contrast and texture are added after it, and the border is blended."
    )
    return [sentence, Picture(png(draw([tiles])), wide=True)]


def _picture(made: Insertion) -> Picture:
    from MedGenLib.visual.figures import png
    from MedGenLib.visual.grid import draw, label_colors, row
    from MedGenLib.visual.views import View, default_windows

    lesion, before, after = made.lesion.array, made.source.array, made.volume.array
    view, window = View.of(made.volume, lesion > 0, close=True), default_windows(made.volume)[0]
    difference = after.astype(np.float32) - before
    most = float(np.abs(difference).max()) or 1.0
    rows = [
        row(view, f"Before, {window}", before, window.limits),
        row(view, f"After, {window}", after, window.limits, labels=lesion),
        row(view, f"Difference, {-most:.0f} to {most:.0f} {made.volume.unit}", difference, (-most, most)),
    ]
    day = made.report.parameters.get("day")
    return Picture(png(draw(rows, label_colors(lesion))), "" if day is None else f"Day {day:g}", wide=True)
