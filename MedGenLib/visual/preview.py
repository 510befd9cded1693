"""Preview pictures: input and output in three planes, before and after a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import temporary_output
from MedGenLib.io.provenance import NOTE
from MedGenLib.visual.grid import Tile, draw, label_colors, row
from MedGenLib.visual.views import LUNG, SOFT_TISSUE, View, Window, default_windows


def preview(input: Volume | LabelMap, output: Volume, path: str | Path, title: str = "") -> None:
    """Write a PNG with the input above the output, in the planes through the body's center.

    A mask is shown filled and as contours over the output, which is repeated without contours (CT in a lung or bone
    window). A volume of one slice is shown in its own plane only.

    Parameters
    ----------
    input: mask or source image, on the same grid as the output.
    output: the synthetic volume.
    path: of the PNG file, written completely or not at all.
    title: heading, for instance the model and the seed.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be written.
    """
    if input.shape != output.shape:
        raise InputError(
            f"The input has {input.shape} voxels and the output {output.shape}; a preview needs both on one grid."
        )
    windows = default_windows(output)
    name = f"Output: synthetic {output.modality or 'image'}"
    if isinstance(input, LabelMap):
        view = View.of(output, input.array > 0)
        first = f"{name}, {windows[0]}, mask as contours"
        rows = [
            row(view, "Input: mask", labels=input.array, opacity=1),
            row(view, first, output.array, windows[0].limits, labels=input.array),
            row(view, f"{name}, {windows[-1]}", output.array, windows[-1].limits),
        ]
        _write(rows, path, title, label_colors(input.array, input.colors), input.names)
        return
    view, source = View.of(output), default_windows(input)[0]
    rows = [row(view, f"Input: {input.modality or 'image'}, {source}", input.array, source.limits)]
    rows += [row(view, f"{name}, {window}", output.array, window.limits) for window in windows]
    _write(rows, path, title)


def preview_change(before: Volume, after: Volume, change: LabelMap, path: str | Path, title: str = "") -> None:
    """Write a PNG of a changed region: before, after, and after with the region's outline.

    Shows the surroundings of the region in the planes through its middle; CT in the lung window if the region is or was
    lung.

    Parameters
    ----------
    before, after: the image without and with the change.
    change: above 0 in the changed region; not empty.
    path: of the PNG file, written completely or not at all.
    title: heading.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be written.
    """
    region = change.array > 0
    view, window = _change(before, after, change, region, "change")
    if after.modality == "CT" and min(np.median(image.array[region]) for image in (before, after)) < -500:
        window = LUNG
    rows = [
        row(view, f"Before, {window}", before.array, window.limits),
        row(view, f"After, {window}", after.array, window.limits),
        row(view, "After, with the changed region", after.array, window.limits, labels=change.array),
    ]
    _write(rows, path, title, label_colors(change.array))


def preview_edit(
    before: Volume, labels: LabelMap, after: Volume, path: str | Path, box: Sequence[Sequence[int]], title: str = ""
) -> None:
    """Write a PNG of an edit: before, before with contours of the new labels, and after.

    Parameters
    ----------
    before, after: the image without and with the change.
    labels: the new mask, on the same grid.
    box: first and one past the last changed voxel of each axis; its surroundings are shown.
    path, title: as of `preview_change`.

    Raises
    ------
    InputError: the grids differ, no axis pair is longer than one voxel, or the file cannot be written.
    """
    changed = np.zeros(after.shape, bool)
    changed[tuple(slice(*ends) for ends in box)] = True
    view, window = _change(before, after, labels, changed, "edit")
    rows = [
        row(view, f"Before, {window}", before.array, window.limits),
        row(view, "The new mask", before.array, window.limits, labels=labels.array),
        row(view, f"After, {window}", after.array, window.limits),
    ]
    _write(rows, path, title, label_colors(view.array(labels.array), labels.colors), labels.names)


def preview_breathing(before: Volume, after: Volume, lungs: LabelMap, path: str | Path) -> None:
    """Write a PNG of two phases of a breathing series and of their difference, where the lungs change most.

    Parameters
    ----------
    before, after: the first phase and the one farthest from it, on one grid.
    lungs: in the first phase.
    path: of the PNG file, written completely or not at all.

    Raises
    ------
    InputError: no axis pair is longer than one voxel, or the file cannot be written.
    """
    difference = after.array.astype(np.float32) - before.array
    view = View.of(before, weight=np.abs(difference) * (lungs.array > 0))
    rows = [
        row(view, f"First phase, {LUNG}", before.array, LUNG.limits),
        row(view, f"Farthest phase, {LUNG}", after.array, LUNG.limits),
        row(view, f"Farthest phase, {SOFT_TISSUE}", after.array, SOFT_TISSUE.limits),
        row(view, "Farthest - first phase, -500 to 500 HU", difference, (-500, 500)),
    ]
    _write(rows, path, "Breathing series")


def _change(before: Volume, after: Volume, mask: LabelMap, region: np.ndarray, what: str) -> tuple[View, Window]:
    """The surroundings of a region and the gray window; InputError if the grids differ."""
    if not before.shape == after.shape == mask.shape:
        raise InputError(
            f"The image has {before.shape} voxels before and {after.shape} after the {what} and the "
            f"mask {mask.shape}; a preview needs all on one grid."
        )
    view = View.of(after, region, close=True)
    return view, default_windows(Volume(view.array(after.array), np.eye(4), after.modality, after.unit))[0]


def _write(
    rows: Sequence[Sequence[Tile]],
    path: str | Path,
    title: str,
    colors: Mapping[int, str] | None = None,
    names: Mapping[int, str] | None = None,
) -> None:
    figure = draw(rows, colors, names, title=title or "MedGen preview")
    with temporary_output(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": NOTE})
