"""The working grid of a mask, and the latent flow on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .conditioning import coordinate_channels, label_channels, noise_scalar, spacing_scalar
from .diffusion import SAMPLERS, FlowDenoiser, evaluations
from .errors import InputError, MemoryPlanError, PackageError
from .grids import working_geometry
from .intensity import CODECS, Affine, TissueRange, TissueStandard
from .loading import bfloat16_pays, network, precision
from .orientation import Turn
from .packages.manifest import Manifest
from .progress import ProgressCallback, Stage
from .quality.finding import Finding
from .resample import resample_to
from .runtime import free_memory
from .tiling import Box, Windows, blend, decode_tiled, tile_count
from .volume import LabelMap, Volume, crop, whole_numbers

MARGIN = 8
"""Voxels kept around the labels: what lies further outside is background anyway."""
SLAB = 32
"""Planes whose intensities are computed at once."""
THIN_SLAB = 16
"""An axis of one voxel is repeated to so many, and the middle one is kept."""
BYTES_PER_VOXEL = 100
"""Memory per voxel of the working grid outside the networks: arrays, latents, mask features."""
BYTES_PER_ORIGINAL_VOXEL = 40
"""Memory per voxel of the input's grid: the result and its checks."""
BYTES_PER_LATENT_VOXEL = 3000
"""Memory of the velocity network per latent voxel of one window, measured at 128^3."""
WHOLE, WINDOW, OVERLAP, TILE = 80, 64, 16, 64
"""Latent voxels: largest grid sampled at once, window, overlap of windows, decoder's tile."""
SMALL_WINDOW, SMALL_TILE = 40, 32
"""The same for memory="small": about a quarter of the networks' memory."""


@dataclass
class Scene:
    """A mask on the grid that the networks work on.

    Attributes
    ----------
    original: the mask as given, in the model's labels.
    region: part of `original` that is generated; elsewhere the output is background.
    grid: `region` at the working spacing, in its stored orientation.
    labels: (i, j, k) array of `grid`, turned to RAS and padded to whole network strides.
    before: padding before each axis.
    """

    manifest: Manifest
    original: LabelMap
    region: LabelMap
    grid: LabelMap
    turn: Turn
    labels: np.ndarray
    before: tuple[int, int, int]
    inner: tuple[int, int, int]
    spacing: tuple[float, float, float]
    codec: TissueStandard | Affine
    scalars: list[float]
    conditions: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    def maps(self, box: Box | None = None) -> np.ndarray:
        """Conditioning maps (channels, ...) of the whole working grid or of a box of it."""
        box = box or (slice(None),) * 3
        maps = label_channels(self.labels[box], max(self.manifest.input.labels))
        if self.manifest.preprocessing.get("coordinates"):
            coordinates = coordinate_channels(self.labels, self.spacing)
            maps = np.concatenate([maps, coordinates[(slice(None), *box)]])
        if self.manifest.preprocessing["outside"] == "anatomy":
            # In training, padding beyond the crop is no background but nothing at all.
            known = np.zeros(self.labels.shape, np.float32)
            known[self._inside] = 1
            maps = maps * known[box]
        return maps

    @property
    def _inside(self) -> Box:
        """The grid without its padding."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.inner, strict=True))

    def finish(self, x: np.ndarray) -> Volume:
        """Network values on the padded working grid -> volume on the input's grid.

        The standardised values are resampled, not the intensities: with the input's own labels
        they become intensities whose borders lie on the mask's, whatever the working grid.
        """
        values = _middle(self.turn.undo(x[self._inside]), self.grid.shape)
        output = self.manifest.output
        volume = Volume(
            values.astype(np.float32), self.grid.affine, output.modality, output.unit
        )
        volume = resample_to(volume, self.original.geometry, order=1, fill=0.0)
        covered = self._covered()
        array = np.empty(volume.shape, np.float32)
        for inner, outer, cut in _slabs(len(array), self._reach):
            values = self._intensities(volume.array[outer], self.original.array[outer])[cut]
            values = np.clip(values, *output.range)
            array[inner] = np.where(covered[inner], values, output.background)
        return volume.with_array(whole_numbers(array))

    def _intensities(self, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Standardised values -> intensities."""
        array = self.codec.decode(x, labels)
        limits = self._limits
        return array if limits is None else limits.enforce(array, labels)

    @property
    def _limits(self) -> TissueRange | None:
        spec = self.manifest.preprocessing
        return TissueRange(**spec["tissue_range"]) if "tissue_range" in spec else None

    @property
    def _reach(self) -> int:
        """Voxels over which intensities depend on each other: one a pass of a median of three."""
        return self._limits.passes if self._limits else 0

    def _covered(self) -> np.ndarray:
        """Voxels of the input's grid that are anatomy and not background."""
        if self.manifest.preprocessing["outside"] == "background":
            return self.original.array > 0
        ones = self.region.with_array(np.ones(self.region.shape, np.uint8))
        return resample_to(ones, self.original.geometry).array > 0

    @property
    def own_grid(self) -> bool:
        """Whether the networks work on the input's voxels, without resampling."""
        return self.grid is self.region

    def seams(self, borders: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Window borders of the working grid as planes of the input's, where both agree."""
        if not self.own_grid:
            return []
        offset = np.rint(
            np.linalg.solve(
                self.original.affine[:3, :3], self.region.origin - self.original.origin
            )
        ).astype(int)
        planes = []
        for axis, latent_index in borders:
            index = 2 * latent_index - self.before[axis]
            if axis in self.turn.flips:
                index = self.inner[axis] - index
            stored = self.turn.order[axis]
            if 0 < index < self.region.shape[stored]:
                planes.append((stored, int(index + offset[stored])))
        return planes


def _slabs(length: int, reach: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slabs of the first axis: the slab, it with `reach` more on both sides, and the cut of that.

    What takes many times an array's memory is done slab by slab, with the same result.
    """
    for start in range(0, length, SLAB):
        stop = min(start + SLAB, length)
        first, last = max(0, start - reach), min(length, stop + reach)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)


def stride(manifest: Manifest, device: torch.device) -> int:
    """Image voxels per coarsest cell of the velocity network.

    Raises
    ------
    PackageError: the package's networks and settings contradict each other.
    """
    flow = network(manifest, "flow", device)
    spec, arguments = manifest.preprocessing, flow.arguments
    count, limits = max(manifest.input.labels) + 1, spec.get("tissue_range", {})
    if (
        spec["name"] not in CODECS
        or spec.get("outside") not in ("background", "anatomy")
        or arguments["maps"] != count + 3 * bool(spec.get("coordinates"))
        or arguments["scalars"] != 2 * ("noise_hu" in spec)
        or any(len(spec[key]) != count for key in ("centres", "scales") if key in spec)
        or any(len(limits.get(key, ())) != count for key in ("low", "high") if limits)
    ):
        raise PackageError(
            f"The settings of the model '{manifest.name}' contradict each other; install the "
            "model again."
        )
    return 2 * flow.stride


def prepare(
    labels: LabelMap, manifest: Manifest, stride: int, noise_hu: float | None = None
) -> Scene:
    """Cut out, resample, turn and pad a mask as the package asks.

    ``stride`` is what the sides of the padded grid are multiples of, in voxels.

    Raises
    ------
    InputError: a mask of one voxel, or labels that reach beyond the field of view.
    MemoryPlanError: the working grid does not fit into free memory.
    """
    spec = manifest.preprocessing
    findings: list[Finding] = []
    if spec["outside"] == "background":
        region = _around_labels(labels, MARGIN)
    else:
        region = _field_of_view(labels, manifest, findings)
    grid = _working_grid(region, manifest, labels.array.size)
    turn = Turn.to(grid.geometry, "RAS")
    array = turn.apply(grid.array)
    spacing = _known_spacing(turn.axes(grid.spacing), array.shape)
    inner = tuple(THIN_SLAB if n == 1 else n for n in array.shape)
    for axis, n in enumerate(array.shape):
        if n == 1:
            array = np.repeat(array, THIN_SLAB, axis)
    before, after = _padding(inner, stride)
    array = np.pad(array, list(zip(before, after, strict=True)))
    scalars, conditions = _scalars(spec, spacing, noise_hu)
    arguments = {k: spec[k] for k in ("centres", "scales", "mean", "sd") if k in spec}
    codec = CODECS[spec["name"]](**arguments)
    return Scene(
        manifest, labels, region, grid, turn, array.astype(np.uint8), before, inner, spacing,
        codec, scalars, conditions, findings,
    )  # fmt: skip


def _around_labels(labels: LabelMap, margin: int) -> LabelMap:
    index = np.nonzero(labels.array)
    low = [max(0, int(i.min()) - margin) for i in index]
    high = [min(n, int(i.max()) + 1 + margin) for i, n in zip(index, labels.shape, strict=True)]
    return crop(labels, low, high)


def _field_of_view(labels: LabelMap, manifest: Manifest, findings: list[Finding]) -> LabelMap:
    """The whole mask, or a box of the trained field of view about the labels' middle."""
    order = Turn.to(labels.geometry, "RAS").order
    longest = [manifest.field_of_view.max[order.index(axis)] for axis in range(3)]
    index = np.nonzero(labels.array)
    low, high = [], []
    for i, n, s, limit in zip(index, labels.shape, labels.spacing, longest, strict=True):
        size = min(n, max(1, round(limit / s)))
        first = round((int(i.min()) + int(i.max()) + 1 - size) / 2)
        first = min(max(0, first), n - size)
        low.append(first)
        high.append(first + size)
    region = crop(labels, low, high)
    if region.shape != labels.shape:
        size = " x ".join(f"{n:.0f}" for n in region.field_of_view)
        findings.append(
            Finding(
                "warning",
                "field-of-view",
                f"The mask is larger than the model's field of view, so only {size} mm around "
                f"the labels are generated; the rest is {manifest.output.background:g}.",
            )
        )
    missed = int(np.count_nonzero(labels.array) - np.count_nonzero(region.array))
    if missed:
        raise InputError(
            f"The labels reach over more than the {' x '.join(f'{n:g}' for n in longest)} mm that "
            f"the model '{manifest.name}' generates at once; crop the mask to one structure."
        )
    return region


def _working_grid(region: LabelMap, manifest: Manifest, original_voxels: int) -> LabelMap:
    """The region itself where its spacing suits the model, else resampled to isotropic voxels."""
    target = working_geometry(region.geometry, manifest)
    _require_memory(math.prod(target.shape), original_voxels)
    return region if target.is_close(region.geometry) else resample_to(region, target)


def _known_spacing(spacing: tuple[float, ...], shape: tuple[int, ...]) -> tuple[float, ...]:
    """Spacing of the repeated slab: the thickness of a lone slice says nothing about it."""
    thick = [s for s, n in zip(spacing, shape, strict=True) if n > 1]
    mean = float(np.mean(thick))
    return tuple(s if n > 1 else mean for s, n in zip(spacing, shape, strict=True))


def _padding(shape: tuple[int, ...], stride: int) -> tuple[tuple, tuple]:
    missing = [-n % stride for n in shape]
    before = tuple(m // 4 * 2 for m in missing)
    return before, tuple(m - b for m, b in zip(missing, before, strict=True))


def _middle(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle slice of a slab, along axes where one voxel is wanted."""
    index = tuple(
        slice(v // 2, v // 2 + 1) if n == 1 and v > 1 else slice(None)
        for v, n in zip(values.shape, shape, strict=True)
    )
    return values[index]


def _scalars(
    spec: dict[str, Any], spacing: tuple[float, ...], noise_hu: float | None
) -> tuple[list[float], dict[str, Any]]:
    """Scalar conditions of the network and, in words, what they were set to."""
    if "noise_hu" not in spec:
        if noise_hu is not None:
            raise InputError("This model has no noise setting; leave noise_hu out.")
        return [], {}
    mean_spacing = float(np.exp(np.mean(np.log(spacing))))
    if noise_hu is None:
        known, levels = zip(*spec["noise_hu"], strict=True)
        noise_hu = float(np.interp(mean_spacing, known, levels))
    if not 1 <= noise_hu <= 50:
        raise InputError(f"The noise is {noise_hu:g} HU; choose 1 to 50 HU.")
    return (
        [spacing_scalar(mean_spacing), noise_scalar(noise_hu)],
        {"noise_hu": round(noise_hu, 2)},
    )


def _require_memory(voxels: int, original_voxels: int) -> None:
    needed = voxels * BYTES_PER_VOXEL + original_voxels * BYTES_PER_ORIGINAL_VOXEL
    free = free_memory()
    if needed > 0.9 * free:
        raise MemoryPlanError(
            f"The working grid of {voxels / 1e6:.0f} million voxels needs about "
            f"{needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free; "
            "crop the mask or give it a coarser spacing."
        )


@dataclass
class Sampling:
    """Networks, sampler and windows for one scene."""

    scene: Scene
    flow: nn.Module
    autoencoder: nn.Module
    device: torch.device
    sampler: str
    steps: int
    bfloat16: bool
    windows: Windows
    small: bool

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        device: torch.device,
        sampler: str | None,
        steps: int | None,
        scene: Scene,
        memory: str = "normal",
    ) -> Sampling:
        """Raises InputError for an unknown sampler or a number of steps below 1."""
        name = sampler or manifest.sampler.name
        if name not in SAMPLERS:
            raise InputError(f"There is no sampler '{name}'; choose {', '.join(SAMPLERS)}.")
        if not steps or steps < 1:
            raise InputError(f"The number of steps is {steps}; choose at least 1.")
        flow = network(manifest, "flow", device)
        autoencoder = network(manifest, "autoencoder", device)
        windows = _windows(scene, flow.stride, device, memory)
        fast = bfloat16_pays(device)
        small = memory == "small"
        return cls(scene, flow, autoencoder, device, name, steps, fast, windows, small)

    @property
    def window_count(self) -> int:
        return len(list(self.windows))

    @property
    def borders(self) -> list[tuple[int, int]]:
        return self.windows.borders

    @torch.inference_mode()
    def latent(self, seed: int, progress: ProgressCallback | None) -> Tensor:
        """Sample the latent (1, 8, i, j, k) of the scene."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((1, 8, *self.windows.shape), generator=generator).to(self.device)
        boxes = list(self.windows)
        kept = None if self.small else list(self._features(boxes, progress))
        scalars = None
        if self.scene.scalars:
            scalars = torch.tensor([self.scene.scalars], device=self.device)
        evaluated = evaluations(self.sampler, self.steps) * self.window_count
        stage = Stage("sampling", evaluated, progress)

        def velocity(x: Tensor, t: float) -> Tensor:
            time = torch.full((1,), t, device=self.device)

            def evaluate(number: int, part: Tensor) -> Tensor:
                features = self._read(boxes[number]) if kept is None else kept[number]
                part = part.contiguous(memory_format=torch.channels_last_3d)
                with precision(self.device, self.bfloat16):
                    result = self.flow(part, time, features, scalars)
                stage.advance()
                return result

            return blend(evaluate, x, self.windows)

        return SAMPLERS[self.sampler](
            FlowDenoiser(velocity),
            noise,
            self.steps,
            generator=generator,
        )

    def _features(
        self, boxes: list[Box], progress: ProgressCallback | None
    ) -> Iterator[list[Tensor]]:
        """Mask features of every window, computed once per sample."""
        stage = Stage("reading the mask", len(boxes), progress)
        for box in boxes:
            yield self._read(box)
            stage.advance()

    def _read(self, box: Box) -> list[Tensor]:
        """Mask features of one window. With little memory they are not kept but read again."""
        image_box = tuple(slice(2 * s.start, 2 * s.stop) for s in box)
        maps = torch.from_numpy(self.scene.maps(image_box))[None].to(self.device)
        with precision(self.device, self.bfloat16):
            return self.flow.encode_mask(maps)

    @torch.inference_mode()
    def decode(self, latent: Tensor, progress: ProgressCallback | None) -> np.ndarray:
        """Latent -> network values (i, j, k) on the padded working grid."""
        tile = SMALL_TILE if self.small else TILE
        stage = Stage("decoding", tile_count(latent.shape[2:], tile), progress)

        def run(part: Tensor) -> Tensor:
            with precision(self.device, self.bfloat16):
                return self.autoencoder.decode(part)

        image = decode_tiled(
            run, latent, tile, self.autoencoder.halo // 2, lambda done: stage.advance()
        )
        return image[0, 0].numpy()


def _windows(scene: Scene, stride: int, device: torch.device, memory: str) -> Windows:
    """One window for a small grid, cubes for a large one.

    The layout depends on the grid alone and not on the memory that happens to be free: it changes
    the last digits of the result, and the same seed has to give the same volume.
    """
    shape = tuple(n // 2 for n in scene.labels.shape)
    whole, side = (SMALL_WINDOW,) * 2 if memory == "small" else (WHOLE, WINDOW)
    window = shape if max(shape) <= whole else (side,) * 3
    largest = math.prod(min(w, n) for w, n in zip(window, shape, strict=True))
    needed, free = largest * BYTES_PER_LATENT_VOXEL, free_memory(device)
    if needed > 0.9 * free:
        raise MemoryPlanError(
            f"The network needs about {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are "
            "free; close other programs or choose another device."
        )
    return Windows(shape, window, OVERLAP, stride)
