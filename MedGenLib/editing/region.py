"""Regeneration of the regions of an image whose labels have changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from MedGenLib.diffusion.inpainting import Known
from MedGenLib.editing.blending import FAR, falling, undescribed, without_specks
from MedGenLib.editing.field_of_view import PlacedFieldOfView
from MedGenLib.editing.grid_map import GridMap
from MedGenLib.editing.history import Change, History, HistoryStep
from MedGenLib.editing.latent_cache import LatentCache
from MedGenLib.editing.noise import NoiseField
from MedGenLib.editing.organs import OrganEdits
from MedGenLib.editing.window import GROW, WindowScene, about, grown, pieces
from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box, common, contains, inside, placed, scaled, shrunk, tight, union, volume, wider
from MedGenLib.imaging.normalization import Affine, TissueRange, TissueStandard
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import FlowPreset
from MedGenLib.pipelines.estimate import EditTime
from MedGenLib.pipelines.flow_sampling import Sampling
from MedGenLib.pipelines.latent_flow import network_role
from MedGenLib.pipelines.memory_plan import network_stride
from MedGenLib.progress import ProgressCallback

LABELS = 256
"""More than the labels of a model."""
WATCHED = 6
"""Steps of the sampler that are shown at most."""
FEWEST_VOXELS = 200
"""Voxels of a tissue below which its mean is not checked."""


@dataclass
class RegionEditor:
    """An image, its mask and its latent: the image and the latent follow the mask.

    Attributes
    ----------
    image: (i, j, k) voxels, changed in place.
    labels: the mask in the labels of the model, uint8; mask: in the numbers that were given.
    spacing, scalars: conditions of the networks on the working grid.
    limits: range of each tissue, for models that have it.
    allowed: least and largest value that is written.
    organs: HU of organs; None for masks and models without.
    view: field of view of a model of one structure; None for models of whole bodies.
    conditions: other conditions of the networks, for the report.
    watch: called at some steps of the sampler with the number of the step, that of all, a box, and its voxels as the
        sampler estimates them then. Each costs one more decoding.
    """

    manifest: Manifest
    device: torch.device
    memory: str
    grid_map: GridMap
    cache: LatentCache
    spacing: tuple[float, float, float]
    scalars: list[float]
    limits: TissueRange | None
    allowed: tuple[float, float]
    view: PlacedFieldOfView | None
    image: NDArray
    labels: NDArray[np.uint8]
    mask: NDArray
    conditions: dict[str, Any] = field(default_factory=dict)
    organs: OrganEdits | None = None
    history: History = field(default_factory=History)
    watch: Callable[[int, int, Box, NDArray], None] | None = None
    _parts: list[tuple[str, Any, NDArray, NDArray]] = field(default_factory=list)
    _encoded: list[tuple[Box, NDArray]] = field(default_factory=list)

    @property
    def halo(self) -> tuple[int, int, int]:
        """Voxels of the image along each axis beyond which a change of the mask has no effect."""
        return self.grid_map.reach(FAR)

    def other_noise(self, seed: int) -> NoiseField:
        """Noise of another seed."""
        return NoiseField(seed, self.manifest.settings.latent_channels)

    def require_room(self, mask: NDArray) -> None:
        """Make room for larger numbers than those of the first mask."""
        if mask.max() > np.iinfo(self.mask.dtype).max:
            self.mask = self.mask.astype(np.int64)

    def change(
        self,
        box: Box,
        mask: NDArray,
        labels: NDArray,
        plan: FlowPreset,
        noise: NoiseField | None,
        progress: ProgressCallback | None,
        names: Mapping[int, str] | None = None,
    ) -> Change:
        """Follow a block of the mask; ``names`` are those of its numbers."""
        numbers = None
        changed = self.labels[box] != labels
        if self.organs is not None:
            numbers = self.organs.following(box, self.mask[box], mask, labels, names)
            changed |= self.organs.numbers[box] != numbers
        count = int(np.count_nonzero(changed))
        if not count:  # other numbers for the same labels
            self.mask[box] = mask
            return Change()
        key = self._key_after(box, changed, labels, numbers)
        state = self.history.find(key)
        if state is not None:
            written = self.go(state)
            self.mask[box] = mask
            return Change(union([written, box]), count)
        given, (box, cut) = (box, mask), tight(changed, box)
        labels, changed = labels[cut], changed[cut]
        cells_box, cells = self.grid_map.cells_of(changed, box)
        with self._transaction():
            findings = self._move_view(box, labels)
            parts = self._plan(cells_box, cells)
            cells_in_all = sum(volume(window) for window, _, _ in parts)
            work = EditTime(self.manifest, str(self.device), cells_in_all * self.grid_map.cell**3, plan.steps)
            work.announce(progress)
            start = time.perf_counter()
            self._encode([window for window, _, _ in parts], plan)
            before = self._state(box)
            self._write("labels", box, labels)
            if numbers is not None:
                self._write("numbers", box, numbers[cut])
            self._write("mask", box, mask[cut])
            written = []
            for part in parts:
                place, found = self._redraw(*part, plan, noise or self.cache.noise, box, before, progress)
                written.append(place)
                findings += found
            findings += self._check(box, changed)
            whole = union([box, *written])
            beyond = self._beyond(box, changed)
            self.history.add(HistoryStep(self._parts, whole, count), key)
            work.remember(time.perf_counter() - start)
        self.mask[given[0]] = given[1]  # elsewhere only numbers changed, not what they mean
        return Change(whole, count, *beyond, findings)

    def put(self, box: Box, values: NDArray) -> Box:
        """Replace voxels of the image; their latent is encoded again when it is needed."""
        cells, _ = self.grid_map.cells_of(np.ones(values.shape, bool), box)
        with self._transaction():
            self._write("image", box, self._as_voxels(values))
            self._write("known", cells, np.zeros(self.cache.known[cells].shape, bool))
            self.history.add(HistoryStep(self._parts, box, 0), self.history.key)
        return box

    def go(self, state: int) -> Box:
        """Go to another state of the history; returns the box in which the image changed."""
        boxes, history = [], self.history
        while history.place > state:
            history.place -= 1
            step = history.steps[history.place]
            for name, index, before, _ in reversed(step.parts):
                self._array(name)[index] = before
            boxes.append(step.box)
        while history.place < state:
            step = history.steps[history.place]
            for name, index, _, after in step.parts:
                self._array(name)[index] = after
            boxes.append(step.box)
            history.place += 1
        return union(boxes)

    # Planning

    def _plan(self, box: Box, cells: NDArray) -> list[tuple[Box, Box, NDArray]]:
        """Windows, and in each the box and the marks of the cells to regenerate."""
        shape = self.cache.known.shape
        if self.view is not None:
            window = shrunk(self.view.window, self.grid_map.cell)
            free, marks = grown(cells, box, GROW, shape)
            seen = common(free, window)
            return [(window, seen, marks[inside(seen, free)])]
        parts = []
        for place, marks in pieces(box, cells, shape, self._stride):
            free, marks = grown(marks, place, GROW, shape)
            parts.append((about(free, shape, self._stride), free, marks))
        return parts

    def _move_view(self, box: Box, labels: NDArray) -> list[Finding]:
        """Move the field of view where a change lies outside of it."""
        if self.view is None:
            return []
        cells, _ = self.grid_map.cells_of(np.ones(labels.shape, bool), box)
        if contains(self.view.box, scaled(cells, self.grid_map.cell)):
            return []
        before = self.labels[box].copy()
        self.labels[box] = labels  # for the extent of all labels
        index = np.nonzero(self.labels)
        self.labels[box] = before
        if len(index[0]):
            box = union([box, tuple(slice(int(i.min()), int(i.max()) + 1) for i in index)])
        shape = [part.stop - part.start for part in box]
        cells, _ = self.grid_map.cells_of(np.ones(shape, bool), box)
        self.view = self.view.about(
            scaled(cells, self.grid_map.cell), self.grid_map.cell * self._stride, self.grid_map.shape, self.manifest
        )
        sentence = (
            "The labels left the part of the image that the model sees at once, so it looks at "
            "another part now; the border between the two may show."
        )
        return [Finding("warning", "field-of-view", sentence)]

    @property
    def _stride(self) -> int:
        """Cells that windows are multiples of."""
        return network_stride(self.manifest)

    # Doing

    def _encode(self, windows: list[Box], plan: FlowPreset) -> None:
        """Encode the windows while the labels are still those of the image."""
        for window in windows:
            sampling = self._sampling(window, plan)
            self._encoded.append((window, self.cache.known[window].copy()))
            codec = sampling.autoencoder, self.device, sampling.bfloat16
            self.cache.encode(window, self.image, self.labels, *codec, self.organs)

    def _sampling(self, window: Box, plan: FlowPreset) -> Sampling:
        place = scaled(window, self.grid_map.cell)
        labels = self.grid_map.labels(self.labels, place).astype(np.uint8)
        seen = None if self.view is None else inside(self.view.box, place)
        scene = WindowScene(self.manifest, labels, self.spacing, self.scalars, seen)
        role = network_role(self.manifest, plan)
        return Sampling.of(self.manifest, self.device, None, plan.steps, scene, self.memory, role)

    def _redraw(
        self,
        window: Box,
        box: Box,
        marks: NDArray,
        plan: FlowPreset,
        noise: NoiseField,
        where: Box,
        before: NDArray,
        progress: ProgressCallback | None,
    ) -> tuple[Box, list[Finding]]:
        """Regenerate the marked cells of a window; returns the box of the image that changed, and findings.

        ``before`` are the former states (`_state`) of the box ``where``.
        """
        sampling, cache = self._sampling(window, plan), self.cache
        free = torch.zeros(1, 1, *(part.stop - part.start for part in window), dtype=torch.bool)
        free[(0, 0, *inside(box, window))] = torch.from_numpy(marks)
        if self.view is not None:  # unknown cells cannot be kept
            free |= torch.from_numpy(~cache.known[window])
        known = torch.from_numpy(cache.latent[(slice(None), *window)])[None].to(self.device)
        place = free.to(self.device)
        watch = None if self.watch is None else self._watcher(sampling, window, box)
        latent = sampling.integrate(noise.read(window).to(self.device), progress, None, Known(known, place), watch)
        latent = torch.where(place, latent, known)
        values = sampling.decode(latent, progress)
        written = self._blend(
            values, scaled(window, self.grid_map.cell), scaled(box, self.grid_map.cell), where, before
        )
        self._keep(latent[0].cpu().numpy(), free[0, 0].numpy(), window, box)
        return written, sampling.scene.findings

    def _watcher(self, sampling: Sampling, window: Box, box: Box) -> Callable[[int, int, torch.Tensor], None]:
        """Shows `watch` the box of cells at some steps, evenly spaced, with the last one."""
        voxels = self.grid_map.voxels_in(scaled(box, self.grid_map.cell))
        start = tuple(part.start for part in scaled(window, self.grid_map.cell))

        def shown(number: int, total: int, estimate: torch.Tensor) -> None:
            if number in np.linspace(1, total, min(WATCHED, total)).round():
                x = self.grid_map.back(sampling.decode(estimate), start, voxels)
                values = self.cache.intensities(x, self.labels[voxels], voxels, self.limits)
                self.watch(number, total, voxels, values.clip(*self.allowed).astype(np.float32))

        return shown

    def _keep(self, latent: NDArray, free: NDArray, window: Box, box: Box) -> None:
        """Store the new latent of a window where the image does not show it; elsewhere it is encoded when needed."""
        box = box if self.view is None else window
        free, content = free[inside(box, window)], self.cache.content[box].copy()
        self._write("latent", (slice(None), *box), latent[(slice(None), *inside(box, window))])
        self._write("known", box, np.where(free, ~content, self.cache.known[box]))
        self._write("content", box, content | free)

    def _blend(self, values: NDArray, window: Box, box: Box, where: Box, before: NDArray) -> Box:
        """Blend the network values of a window into the image; returns the box that was written."""
        start = tuple(part.start for part in window)
        box = self.grid_map.voxels_in(box)
        outer = wider(box, self.limits.passes if self.limits else 0, self.image.shape)
        labels = self.labels[outer]
        x = self.grid_map.back(values, start, outer)
        made = self.cache.intensities(x, labels, outer, self.limits)
        cut = inside(box, outer)
        made, labels, old = made[cut].clip(*self.allowed), labels[cut], self.image[box]
        if self.limits:
            made = without_specks(made, labels, self.limits)
        former, state = self._state(box), self._state(box)
        there = common(where, box)
        former[inside(there, box)] = before[inside(there, where)]
        changed = former != state
        weight = falling(changed, self.grid_map.steps)
        if isinstance(self.cache.codec, TissueStandard):
            known = old if self.organs is None else self.organs.plain(old, former // LABELS)
            known = self.cache.in_model_units(known, former % LABELS, box)
            weight *= 1 - undescribed(known, former % LABELS, labels, self.cache.codec, self.limits)
        if self.organs is not None:
            made = self.organs.added(made, box).clip(*self.allowed)
        if self.cache.filled:
            made[labels == 0] = self.manifest.output.background * self.cache.scale
            weight[(labels == 0) & ~changed] = 0
        new = self._as_voxels(old + weight * (made - old))
        self._write("image", box, np.where(weight > 0, new, old))
        return box

    def _beyond(self, box: Box, changed: NDArray) -> tuple[int, float]:
        """Number of voxels that this edit wrote outside of the changed labels, and the largest difference of one."""
        count, farthest = 0, 0.0
        for name, place, before, after in self._parts:
            if name == "image":
                same_label = ~placed(changed, box, place)
                difference = np.abs(after[same_label].astype(np.float64) - before[same_label])
                count += np.count_nonzero(difference)
                farthest = max(farthest, float(difference.max(initial=0)))
        return int(count), farthest

    def _check(self, box: Box, changed: NDArray) -> list[Finding]:
        """Findings on new voxels whose mean is outside of the range of the model card for their tissue."""
        if isinstance(self.cache.codec, Affine):  # arbitrary units
            return []
        values, labels, findings = self.image[box], self.labels[box][changed], []
        values = (values if self.organs is None else self.organs.removed(values, box))[changed]
        for value, tissue in self.manifest.statistics.tissues.items():
            inside = values[labels == value]
            if inside.size < FEWEST_VOXELS:
                continue
            mean = float(inside.mean()) / self.cache.scale
            if not tissue.low <= mean <= tissue.high:
                sentence = (
                    f"The mean of the new {tissue.name} is {mean:.0f} {self.manifest.output.unit}, outside of "
                    f"{tissue.low:g} to {tissue.high:g} as seen in training; try another seed."
                )
                findings.append(Finding("warning", "tissue-mean", sentence))
        return findings

    def _as_voxels(self, values: NDArray) -> NDArray:
        """Values in the image's number format."""
        if not np.issubdtype(self.image.dtype, np.integer):
            return values.astype(self.image.dtype)
        limits = np.iinfo(self.image.dtype)
        return np.rint(values).clip(limits.min, limits.max).astype(self.image.dtype)

    # Keeping

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Undo all writes of the block where it raises.

        Cells that it encoded become unknown again: a cell's latent depends, in its last bits, on the cells that are
        encoded with it.
        """
        self._parts, self._encoded, view = [], [], self.view
        try:
            yield
        except BaseException:
            for name, index, before, _ in reversed(self._parts):
                self._array(name)[index] = before
            for window, known in self._encoded:
                self.cache.known[window] &= known
            self.view = view
            raise
        finally:
            self._parts, self._encoded = [], []

    def _write(self, name: str, index: Any, after: NDArray) -> None:
        array = self._array(name)
        before = array[index].copy()
        array[index] = after
        self._parts.append((name, index, before, array[index].copy()))

    def _array(self, name: str) -> NDArray:
        if name == "numbers":
            return self.organs.numbers
        return getattr(self if name in ("image", "labels", "mask") else self.cache, name)

    def _state(self, box: Box) -> NDArray[np.int64]:
        """Label and number of the part of each voxel in one number."""
        state = self.labels[box].astype(np.int64)
        return state if self.organs is None else state + LABELS * self.organs.numbers[box].astype(np.int64)

    def _key_after(self, box: Box, changed: NDArray, labels: NDArray, numbers: NDArray | None) -> int:
        places = [i + part.start for i, part in zip(np.nonzero(changed), box, strict=True)]
        index = np.ravel_multi_index(places, self.labels.shape)
        after = labels.astype(np.int64) if numbers is None else labels + LABELS * numbers.astype(np.int64)
        return self.history.key_after(index, self._state(box)[changed], after[changed])
