"""Editing of a volume by editing its mask: only the window around the change is regenerated.

    changed mask -> window -> known latent + noise -> latent flow inside -> decode -> blended block

A `Canvas` holds an image and its mask. Every `edit` replaces the voxels whose label changes and blends them into a thin
rim; each voxel farther away than `Canvas.halo_voxels` stays unchanged, bit for bit, and so do structures that the mask
does not describe where the new label allows them.

>>> with Canvas.of_image("ct.nii.gz", "tissues.nii.gz", seed=1) as canvas:      # doctest: +SKIP
...     done = canvas.edit("tissues_with_lesion.nii.gz")
...     done.box, canvas.volume
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib import devices
from MedGenLib.editing.history import Change
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes
from MedGenLib.imaging.boxes import Box, tight
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.volume import LabelMap, Volume, by_axis
from MedGenLib.io.files import read_label_map
from MedGenLib.options import CanvasOptions, EditOptions, RedrawOptions, documented
from MedGenLib.progress import ProgressCallback, announce
from MedGenLib.report import Report
from MedGenLib.result import Result

if TYPE_CHECKING:
    from MedGenLib.editing.opening import Opened
    from MedGenLib.editing.region import RegionEditor


@dataclass(frozen=True)
class Edit:
    """The result of one change: all that a client needs to update its copy of the image.

    Attributes
    ----------
    box: slices on the grid of the input; no voxel outside of it changed.
    values: voxels of the box after the change, in the unit and number format of the image.
    mask: mask of the box after the change, in the numbers of the mask that was given.
    changed: voxels of the mask that changed; where it is 0 and voxels were not `put` in, nothing
        changed and the box is empty.
    beyond, farthest: voxels of the image with a new value whose label did not change, and the largest difference among
        them; 0 where a state of the history was restored.
    halo_voxels: how far along each axis from a changed voxel the image may differ.
    halo_mm: the same in mm, the largest of the three.
    seconds: wall time.
    findings: what the user should know.
    """

    box: Box
    values: NDArray
    mask: NDArray
    changed: int
    halo_voxels: tuple[int, int, int]
    halo_mm: float
    seconds: float
    beyond: int = 0
    farthest: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class Canvas:
    """An image with its mask and its latent, ready to be edited region by region.

    Made by `generate` or `of_image`; `close` frees the memory, as does the end of a ``with`` block.

    Attributes
    ----------
    seed: of the initial noise, which every place of the image keeps.
    halo_voxels, halo_mm: how far from a changed voxel of the mask the image may change.
    result: the `Result` of `generate`; None for `of_image`.
    findings: what the user should know about image and mask.
    """

    def __init__(self, opened: Opened) -> None:
        self._editor: RegionEditor | None = opened.editor
        self._reader, self._source, self._image = opened.reader, opened.mask, opened.volume
        self.result, self.findings, self.seed = opened.result, opened.findings, opened.seed
        self.halo_voxels = opened.editor.halo
        self.halo_mm = max(n * mm for n, mm in zip(self.halo_voxels, opened.volume.spacing, strict=True))

    @classmethod
    @documented("generate", "canvas")
    def generate(
        cls,
        mask: str | Path | LabelMap,
        model: str = "ct-tissue",
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[CanvasOptions],
    ) -> Canvas:
        """Generate a volume as `MedGenLib.generate` does, and keep its latent for edits.

        Parameters
        ----------
        {options}
        progress: called at every step; what it raises stops the generation.
        """
        from MedGenLib.editing import opening

        return cls(opening.generated(mask, model, options, progress))

    @classmethod
    @documented("edit", "canvas")
    def of_image(
        cls,
        volume: str | Path | Volume,
        mask: str | Path | LabelMap,
        model: str = "ct-tissue",
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[EditOptions],
    ) -> Canvas:
        """Open any image, real or synthetic, with its mask on the same grid.

        No network runs yet; windows are encoded at their first edit. An MR image keeps its scale, an image of whole
        numbers its number format, and a CT its noise level.

        Parameters
        ----------
        {options}
        progress: called at every step; what it raises stops the opening.

        Raises
        ------
        InputError, PackageError, LicenseError: one sentence, nothing was done.
        """
        from MedGenLib.editing import opening

        return cls(opening.of_image(volume, mask, model, options, progress))

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def volume(self) -> Volume:
        """The image as it is now, on the input's grid. Its array changes with the next edit."""
        return self._image.with_array(_locked(self._open.image))

    @property
    def labels(self) -> LabelMap:
        """The mask as it is now, in the model's labels."""
        editor = self._open
        names = {value: label.name for value, label in editor.manifest.input.labels.items()}
        return self._source.with_array(_locked(editor.labels), names, self._reader.colors_of(self._source.colors))

    @property
    def mask(self) -> LabelMap:
        """The mask as it is now, in the numbers and names of the mask that was given."""
        return self._source.with_array(_locked(self._open.mask))

    @documented("redraw", "canvas")
    def edit(
        self,
        mask: str | Path | LabelMap | NDArray,
        box: Box | None = None,
        *,
        progress: ProgressCallback | None = None,
        watch: Callable[[int, int, Box, NDArray], None] | None = None,
        **options: Unpack[RedrawOptions],
    ) -> Edit:
        """Make the image follow a changed mask.

        A mask that the canvas has had before restores exactly the voxels of that state. An edit that fails or is
        stopped leaves the canvas unchanged.

        Parameters
        ----------
        mask: the new mask, whole or only its part `box`, in the numbers of the mask that the
            canvas was made with (a LabelMap may bring names; its grid has to be the canvas').
        box: which part of the input's grid `mask` is; None is all of it.
        {options}
        progress: called at every step; what it raises stops the edit.
        watch: called at up to six steps of the sampler with the number of the step, that of all, a box, and its voxels
            as the sampler estimates them then (float32). Each costs one more decoding.

        Raises
        ------
        InputError: another grid, unknown labels, no such preset, or a canvas that was closed.
        MemoryPlanError: the memory is not enough for the window.
        """
        start, editor = time.perf_counter(), self._open
        label, seed = options["label"], options["seed"]
        plan = editor.manifest.preset(options["preset"])
        noise = None if seed is None else editor.other_noise(seed)
        mask = read_label_map(mask) if isinstance(mask, str | Path) else mask
        if box is None and isinstance(mask, LabelMap):
            mask = extended(mask, self._image.geometry)
        found = notes(mask) if isinstance(mask, LabelMap) else []
        block, box = self._block(mask, box)
        if label is not None:
            block = np.where(block > 0, self._reader.number_of(label), editor.mask[box])
        different = block != editor.mask[box]
        if not different.any():
            return self._edit(Change(findings=found), start)
        announce((finding.sentence for finding in found), progress)
        box, part = tight(different, box)
        names = mask.names if isinstance(mask, LabelMap) else None
        labels = self._reader.read(block[part], box, names)
        if editor.organs is not None:  # the marrow of a bone stays
            labels = np.where(different[part], labels, editor.labels[box])
        editor.require_room(block[part])
        editor.watch = watch
        change = editor.change(box, block[part], labels, plan, noise, progress, self._reader.names)
        return self._edit(replace(change, findings=[*found, *change.findings]), start)

    def put(self, values: NDArray, box: Box) -> Edit:
        """Replace the voxels of a box, as an edit that can be undone.

        Raises InputError for values that do not fit the box or are not finite.
        """
        start, editor = time.perf_counter(), self._open
        box, values = _checked(box, editor.image.shape), np.asarray(values)
        if values.shape != editor.image[box].shape or not np.isfinite(values).all():
            raise InputError("The voxels to put in do not fit the box or are not finite; give a number each.")
        return self._edit(Change(editor.put(box, values)), start)

    def report(self, done: Edit, preset: str = "draft") -> Report:
        """The report of an edit; ``preset`` is the one that it had."""
        editor = self._open
        manifest, plan = editor.manifest, editor.manifest.preset(preset)
        return Report(
            model=manifest.name,
            version=manifest.version,
            task="edit",
            seed=self.seed,
            preset=preset,
            sampler=manifest.sampler.name,
            steps=plan.steps,
            parameters={
                "changed_voxels": done.changed,
                "changed_beyond": done.beyond,
                "largest_change_beyond": done.farthest,
                "box": [[part.start, part.stop] for part in done.box],
                "halo_voxels": done.halo_voxels,
                "halo_mm": round(done.halo_mm, 3),
                **editor.conditions,
            },
            software=devices.software_versions(),
            device=devices.describe_device(editor.device),
            timings={"editing": round(done.seconds, 3)},
            peak_memory_mib=round(devices.peak_memory_mib(), 1),
            input_findings=[*self.findings, *done.findings],
        )

    def undo(self) -> Edit | None:
        """Undo the last edit; None without one."""
        return self._go(-1) if self.can_undo else None

    def redo(self) -> Edit | None:
        """Redo the edit that `undo` took back; None without one."""
        return self._go(1) if self.can_redo else None

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to undo."""
        return self._open.history.place > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to redo."""
        history = self._open.history
        return history.place < len(history.steps)

    def close(self) -> None:
        """Free image, latent and history; other methods raise InputError afterwards."""
        self._editor = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._editor is None

    @property
    def _open(self) -> RegionEditor:
        if self._editor is None:
            raise InputError("This canvas was closed; open the image and its mask again.")
        return self._editor

    def _go(self, direction: int) -> Edit:
        start, editor = time.perf_counter(), self._open
        history = editor.history
        step = history.steps[history.place - (direction < 0)]
        return self._edit(Change(editor.go(history.place + direction), step.changed), start)

    def _block(self, mask: LabelMap | NDArray, box: Box | None) -> tuple[NDArray, Box]:
        """The part of the mask and where it lies."""
        shape = self._open.image.shape
        box = _checked(tuple(slice(0, n) for n in shape) if box is None else box, shape)
        array = mask.array if isinstance(mask, LabelMap) else np.asarray(mask)
        size = tuple(part.stop - part.start for part in box)
        if array.shape != size:
            raise InputError(
                f"The new mask has {by_axis(array.shape)} voxels, but the part of the image that it "
                f"is for has {by_axis(size)}; give one of that size."
            )
        place = self._image.geometry.moved([part.start for part in box], size)
        if not isinstance(mask, LabelMap):
            return LabelMap(array, place.affine).array, box
        if not mask.geometry.is_close(place):
            raise InputError("The new mask does not lie on the image's grid; resample it onto the image first.")
        return array, box

    def _edit(self, change: Change, start: float) -> Edit:
        editor = self._open
        return Edit(
            change.box,
            editor.image[change.box].copy(),
            editor.mask[change.box].copy(),
            change.changed,
            self.halo_voxels,
            self.halo_mm,
            time.perf_counter() - start,
            change.beyond,
            change.farthest,
            change.findings,
        )


@documented("edit")
def edit_image(
    volume: str | Path | Volume,
    mask: str | Path | LabelMap,
    new_mask: str | Path | LabelMap,
    model: str = "ct-tissue",
    *,
    progress: ProgressCallback | None = None,
    **options: Unpack[EditOptions],
) -> Result:
    """Make an image follow a changed mask: one edit of a canvas, with a report.

    Parameters
    ----------
    {options}
    progress: called at every step; what it raises stops the edit.

    Returns
    -------
    The `Result` holds the changed image and as source the new mask in the model's labels.

    Raises
    ------
    InputError: also for masks between which nothing changed.
    """
    preset = options.pop("preset")
    with Canvas.of_image(volume, mask, model, progress=progress, **options) as canvas:
        done = canvas.edit(new_mask, preset=preset, progress=progress)
        if not done.changed:
            raise InputError("The new mask is the same as the old one; change some voxels of it.")
        return Result([canvas.volume], canvas.report(done, preset), canvas.labels)


def _locked(array: NDArray) -> NDArray:
    """A read-only view."""
    view = array.view()
    view.setflags(write=False)
    return view


def _checked(box: Box, shape: tuple[int, ...]) -> Box:
    """The box with integer bounds; InputError where it does not lie inside the image."""
    found = []
    for part, n in zip(box, shape, strict=True):
        start = 0 if part.start is None else int(part.start)
        stop = n if part.stop is None else int(part.stop)
        if not 0 <= start < stop <= n:
            raise InputError(
                f"The voxels {start} to {stop} of the new mask do not lie inside of the image, "
                f"which has {by_axis(shape)}; give a part of it."
            )
        found.append(slice(start, stop))
    return tuple(found)
