"""Slice-wise translation of volumes in up to three planes, fused.

The variation between the views of a voxel (planes, and mirrored or shifted slices) is the uncertainty of the result
(test-time augmentation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.devices import free_memory
from MedGenLib.errors import MemoryPlanError
from MedGenLib.findings import Finding
from MedGenLib.imaging.body import head_from_image
from MedGenLib.imaging.normalization import HeadMR, bright_end, slice_codec
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import Volume, occupied, whole_numbers
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import SlicePreset
from MedGenLib.pipelines.loading import bfloat16_pays, network, precision
from MedGenLib.pipelines.plane_fusion import fill_gaps, fused, total_weight, weighted_mean
from MedGenLib.pipelines.working_grid import slice_axes, slice_spacing
from MedGenLib.progress import ProgressCallback, Stage

SLICE_AXIS = {2: 0, 1: 1, 0: 2}
"""Axis of the LPS grid normal to the slices -> plane index (axial, coronal, sagittal)."""
MARGIN = 12
"""Voxels around the head that the network sees; the fusion reads fewer slices than this on either side."""
PIXELS_PER_BATCH = 8 * 192 * 192
BYTES_PER_VOXEL = 40
SPREAD_BYTES_PER_VOXEL = 20
"""Additional memory of an uncertainty: four sums, and the volume on the whole grid."""
BYTES_PER_PIXEL = 800
"""Memory of the network per pixel of a batch, measured."""
SHIFT = (3, 11)
"""Rows and columns by which a slice is shifted for another view; not multiples of a pooling size."""


@dataclass(frozen=True)
class Translation:
    """The fused planes, within the box of the head.

    Attributes
    ----------
    values: network values.
    known: voxels of the head in slices that were translated.
    spread: standard deviation of the views; None unless requested.
    """

    values: np.ndarray
    known: np.ndarray
    spread: RunningSpread | None


@dataclass
class SliceRun:
    """One volume on the working grid of the network, ready to run.

    The grid is reoriented to LPS (x left, y posterior, z superior), the order in which the training slices are stored,
    and resampled to the model's spacing except along thick axes.
    """

    volume: Volume
    manifest: Manifest
    device: torch.device
    net: nn.Module
    grid: Volume
    reorientation: Reorientation
    source: np.ndarray
    head: np.ndarray
    axes: tuple[int, ...]
    preset: SlicePreset
    reference: float
    bfloat16: bool
    memory: str
    uncertain: bool = False
    sampler: None = None
    steps: None = None
    seams: tuple = ()

    @classmethod
    def of(
        cls,
        volume: Volume,
        manifest: Manifest,
        device: torch.device,
        preset: SlicePreset,
        memory: str = "normal",
        uncertain: bool = False,
    ) -> SliceRun:
        """Prepare a run, with uncertainty if `uncertain`.

        Raises
        ------
        InputError: an image without a head.
        MemoryPlanError: insufficient memory.
        """
        axes = slice_axes(volume, manifest)
        spacing = list(slice_spacing(volume, manifest.spacing))
        memory = _fitting_plan(volume, spacing, memory, uncertain)
        grid = resample(volume, spacing)
        whole = not manifest.needs_head
        head = None if whole else resample_to(head_from_image(volume), grid.geometry)
        reorientation = Reorientation.to(grid.geometry, "LPS")
        source = reorientation.apply(grid.array.astype(np.float32))
        inside = np.ones(source.shape, bool) if head is None else reorientation.apply(head.array) > 0
        axes = tuple(i for i in range(3) if reorientation.order[i] in axes)
        axes = tuple(i for i in axes if SLICE_AXIS[i] in manifest.settings.planes) or axes
        if preset.planes == 1 and len(axes) > 1:
            axes = axes[-1:]
        reference = 1.0
        if manifest.input.modality != "CT":
            reference = bright_end(source) if whole else HeadMR.reference(source, inside)
            source = source / reference * inside
        else:
            source = np.where(inside, source, -1000.0)
        return cls(
            volume,
            manifest,
            device,
            network(manifest, "translator", device),
            grid,
            reorientation,
            source,
            inside,
            axes,
            preset,
            reference,
            bfloat16_pays(device),
            memory,
            uncertain,
        )

    @property
    def findings(self) -> list[Finding]:
        return []

    @property
    def own_grid(self) -> bool:
        return self.grid.geometry.is_close(self.volume.geometry)

    @property
    def parameters(self) -> dict[str, Any]:
        planes = ("axial", "coronal", "sagittal")
        return {
            "planes": [planes[SLICE_AXIS[axis]] for axis in self.axes],
            "mirrored_passes": self.preset.mirror,
            "every_nth_slice": [self._step(axis) for axis in self.axes],
            "uncertainty": self.uncertain,
            "working_spacing_mm": [round(s, 4) for s in self.grid.spacing],
            "working_shape": list(self.grid.shape),
            "source_reference": round(self.reference, 4),
            "memory": self.memory,
            "precision": "bfloat16" if self.bfloat16 else "float32",
        }

    @torch.inference_mode()
    def sample(self, seed: int | None = None, progress: ProgressCallback | None = None) -> Translation:
        """Translate all slices. The translation is deterministic; the seed is ignored."""
        source, head = self.source[self._box], self.head[self._box]
        areas = {axis: _areas(head, axis) for axis in self.axes}
        chosen = {axis: _every(areas[axis], self._step(axis)) for axis in self.axes}
        batches = [
            batch
            for axis in self.axes
            for batch in _batches(chosen[axis], head, axis, self.net.stride, batch_pixels(self.memory))
        ]
        stage = Stage("translating slices", sum(self._passes(batch.axis) for batch in batches), progress)
        planes = {axis: np.zeros(source.shape, np.float32) for axis in self.axes}
        # Squared, as slices at the edge of the head are tangential to the bone and unreliable.
        weights = {axis: np.where(area > 0, (area / area.max()) ** 2 + 1e-3, 0) for axis, area in areas.items()}
        spread = RunningSpread(source.shape) if self.uncertain else None
        for batch in batches:
            views = self._views(source, batch, stage)
            images = (views[0] + views[1]) / 2 if self._is_mirrored(batch.axis) else views[0]
            for number, (index, image) in enumerate(zip(batch.indices, images, strict=True)):
                position = batch.position(index)
                planes[batch.axis][position] = image
                for view in views if spread else ():
                    spread.add(position, self._in_units(view[number]), weights[batch.axis][index])
        for axis, indices in chosen.items():
            fill_gaps(planes[axis], axis, indices)
        combined = fused if self.manifest.needs_head else weighted_mean
        known = total_weight(weights, source.shape) > 0
        return Translation(combined(planes, weights), known & head, spread)

    def decode(self, made: Translation, progress: ProgressCallback | None = None) -> np.ndarray:
        """Values in the output's unit within the box of the head."""
        return np.where(made.known, self._in_units(made.values), self.manifest.output.background)

    def finish(self, values: np.ndarray) -> Volume:
        """Values of the box as a volume on the input's grid."""
        volume = self._place(values, self.manifest.output.background)
        return volume.with_array(whole_numbers(np.clip(volume.array, *self.manifest.output.range)))

    def uncertainty(self, made: Translation) -> Volume | None:
        """Standard deviation of the views on the input's grid; None unless the run is `uncertain`."""
        if made.spread is None:
            return None
        return self._place(np.where(made.known, made.spread.deviation(), 0.0), 0.0)

    def _step(self, axis: int) -> int:
        """Every how many slices across an axis one is translated: each for an uncertainty, or with one plane."""
        distance = self.reorientation.axes(self.grid.spacing)[axis]
        return 1 if self.uncertain or len(self.axes) == 1 else self.preset.step(distance)

    def _is_mirrored(self, axis: int) -> bool:
        """Axial and coronal slices have a left-right axis, along their rows; sagittal ones have none."""
        return self.preset.mirror and axis != 0

    def _passes(self, axis: int) -> int:
        return 2 if self.uncertain or self._is_mirrored(axis) else 1

    def _views(self, source: np.ndarray, batch: Batch, stage: Stage) -> list[np.ndarray]:
        """Network values of one or two views of a batch.

        Each view is (n, rows, columns). The second one is mirrored, or shifted in sagittal slices.
        """
        slices = np.moveaxis(source, batch.axis, 0)[(slice(None), *batch.window)][batch.indices]
        views = [self._evaluate(slices, batch.axis)]
        stage.advance()
        if self._passes(batch.axis) > 1:
            if batch.axis != 0:
                second = self._evaluate(slices[:, ::-1], batch.axis)[:, ::-1]
            else:
                rows, columns = SHIFT
                moved = np.pad(slices, ((0, 0), (rows, 0), (columns, 0)), "edge")
                second = self._evaluate(moved, batch.axis)[:, rows:, columns:]
            views.append(second)
            stage.advance()
        return views

    def _evaluate(self, slices: np.ndarray, axis: int) -> np.ndarray:
        channels = slice_codec(self.manifest.input.modality).as_input(slices)[:, : self.net.arguments["channels_in"]]
        x = torch.from_numpy(np.ascontiguousarray(channels)).to(self.device)
        padded, cut = pad(x, self.net.stride)
        plane = torch.full((len(x),), SLICE_AXIS[axis], device=self.device)
        with precision(self.device, self.bfloat16):
            y = self.net(padded.contiguous(memory_format=torch.channels_last), plane)
        return y[(slice(None), 0, *cut)].float().cpu().numpy()

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        """The head with a margin; whole axes of one voxel."""
        index = np.nonzero(self.head)
        return tuple(
            slice(max(0, int(i.min()) - MARGIN), min(n, int(i.max()) + 1 + MARGIN))
            for i, n in zip(index, self.head.shape, strict=True)
        )

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """Network values -> the output's unit."""
        modality = self.manifest.output.modality
        scale = 1.0 if modality == "CT" else 1000.0
        return slice_codec(modality).from_target(values) * scale

    def _place(self, values: np.ndarray, background: float) -> Volume:
        """Values of the box in the output's unit -> a volume on the input's grid."""
        output = self.manifest.output
        array = np.full(self.source.shape, background, np.float32)
        array[self._box] = values
        volume = Volume(self.reorientation.undo(array), self.grid.affine, output.modality, output.unit)
        return resample_to(volume, self.volume.geometry, order=1, fill=background)


@dataclass
class RunningSpread:
    """Weighted standard deviation of several views of each voxel, by running sums.

    Source: West, Updating mean and variance estimates, CACM 22 (1979), unbiased for reliability weights.
    """

    shape: tuple[int, ...]
    mean: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)
    weights_squared: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        for name in ("mean", "squares", "weights", "weights_squared"):
            setattr(self, name, np.zeros(self.shape, np.float32))

    def add(self, position: tuple, values: np.ndarray, weight: float) -> None:
        """Add one view of the voxels at an index."""
        self.weights[position] += weight
        self.weights_squared[position] += weight * weight
        step = values - self.mean[position]
        self.mean[position] += step * (weight / self.weights[position])
        self.squares[position] += weight * step * (values - self.mean[position])

    def deviation(self) -> np.ndarray:
        """Standard deviation; 0 for fewer than two views."""
        known = np.maximum(self.weights, 1e-6)
        freedom = known - self.weights_squared / known
        return np.sqrt(np.where(freedom > 0, self.squares / np.maximum(freedom, 1e-6), 0))


def _areas(head: np.ndarray, axis: int) -> np.ndarray:
    """Number of head voxels in each slice across ``axis``."""
    return head.sum(axis=tuple(a for a in range(3) if a != axis)).astype(np.float32)


def _every(area: np.ndarray, step: int) -> list[int]:
    """Every so many of the slices that contain part of the head, with the first and the last."""
    filled = np.flatnonzero(area).tolist()
    return list(dict.fromkeys([*filled[::step], filled[-1]]))


@dataclass(frozen=True)
class Batch:
    """Slices across ``axis``, and the rows and columns that the network sees of them."""

    axis: int
    indices: list[int]
    window: tuple[slice, slice]

    def position(self, index: int) -> tuple[int | slice, ...]:
        """Index of the window of a slice in the volume."""
        inside = iter(self.window)
        return tuple(index if axis == self.axis else next(inside) for axis in range(3))


def _batches(indices: Sequence[int], head: np.ndarray, axis: int, stride: int, most: int) -> Iterator[Batch]:
    """Slices in batches with a maximum number of pixels, each with the window of the head around it.

    Windows begin at multiples of the stride, as the result depends on the place of a pixel within it. They have few
    sizes, because freed memory of one size does not serve another well.
    """
    grain = 2 * stride
    pixels = np.prod([-(-n // stride) * stride for a, n in enumerate(head.shape) if a != axis])
    size = max(1, int(most // pixels))
    along = np.moveaxis(head, axis, 0)
    for first in range(0, len(indices), size):
        part = list(indices[first : first + size])
        # The fusion reads neighboring slices too, in which the head may be wider.
        near = along[max(0, part[0] - MARGIN) : part[-1] + MARGIN + 1].any(0)
        window = tuple(
            slice(max(0, start - MARGIN) // grain * grain, min(n, -(-(stop + MARGIN) // grain) * grain))
            for (start, stop), n in zip(occupied(near), near.shape, strict=True)
        )
        yield Batch(axis, part, window)


def pad(x: Tensor, stride: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Pad (n, c, h, w) to whole strides by repeating the border; and the slices that undo it."""
    h, w = x.shape[-2:]
    padded = nn.functional.pad(x, (0, -w % stride, 0, -h % stride), mode="replicate")
    return padded, (slice(0, h), slice(0, w))


def batch_pixels(memory: str) -> int:
    return PIXELS_PER_BATCH // (4 if memory == "small" else 1)


def _fitting_plan(volume: Volume, spacing: list[float], memory: str, uncertain: bool) -> str:
    """The requested plan, or for "auto" the first that fits into the free memory."""
    names = ("normal", "small") if memory == "auto" else (memory,)
    for name in names[:-1]:
        with suppress(MemoryPlanError):
            _require_memory(volume, spacing, batch_pixels(name), uncertain)
            return name
    _require_memory(volume, spacing, batch_pixels(names[-1]), uncertain)
    return names[-1]


def _require_memory(volume: Volume, spacing: list[float], batch: int, uncertain: bool) -> None:
    sides = [max(1.0, n * s / t) for n, s, t in zip(volume.shape, volume.spacing, spacing, strict=True)]
    voxels = max(float(np.prod(sides)), volume.array.size)
    pixels = max(batch, float(np.prod(sorted(sides)[1:])))
    per_voxel = BYTES_PER_VOXEL + (SPREAD_BYTES_PER_VOXEL if uncertain else 0)
    needed = voxels * per_voxel + pixels * BYTES_PER_PIXEL
    free = free_memory()
    if needed > 0.9 * free:
        raise MemoryPlanError(
            f"The translation needs about {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB "
            "are free; crop the image or close other programs."
        )
