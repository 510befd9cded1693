"""The working grid of a mask, and the latent flow on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from MedGenLib.devices import MIB, free_memory
from MedGenLib.diffusion import DENOISERS, SAMPLERS, Denoiser
from MedGenLib.diffusion.guidance import ClassifierGuidance
from MedGenLib.diffusion.inpainting import Known
from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.normalization import CODECS, Affine, TissueRange, TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, crop, occupied, whole_numbers
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import FlowPreset
from MedGenLib.packages.settings import LatentFlowSettings
from MedGenLib.pipelines.conditioning import coordinate_channels, label_channels, noise_scalar, spacing_scalar
from MedGenLib.pipelines.loading import bfloat16_pays, network, precision
from MedGenLib.pipelines.memory_plan import BASE_MIB, LAYOUTS, OVERLAP, SMALL_PLAN, MemoryDemand, Plan, choose, plans
from MedGenLib.pipelines.windows import Windows, blend, decode_tiled, tile_count
from MedGenLib.pipelines.working_grid import working_geometry
from MedGenLib.progress import ProgressCallback, Stage

MARGIN = 8
"""Voxels kept around the labels: what lies further outside is background anyway."""
SLAB = 32
"""Planes whose intensities are computed at once."""
THIN_SLAB = 16
"""An axis of one voxel is repeated to so many, and the middle one is kept."""
LARGEST_GUIDANCE = 10
"""Weight of classifier-free guidance beyond which nothing but artefacts can come."""
LARGEST_CLASSIFIER_GUIDANCE = 1
"""The same of classifier guidance, which adds up the gradients of thousands of voxels."""


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
    reorientation: Reorientation
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
        if self.manifest.settings.coordinates:
            coordinates = coordinate_channels(self.labels, self.spacing)
            maps = np.concatenate([maps, coordinates[(slice(None), *box)]])
        if self.manifest.settings.outside == "anatomy":
            # In training, padding beyond the crop is no background but nothing at all.
            known = np.zeros(self.labels.shape, np.float32)
            known[self._inside] = 1
            maps = maps * known[box]
        return maps

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the padded working grid."""
        return self.labels.shape

    @property
    def _inside(self) -> Box:
        """The grid without its padding."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.inner, strict=True))

    def finish(self, x: np.ndarray) -> Volume:
        """Network values on the padded working grid -> volume on the input's grid.

        The standardised values are resampled, not the intensities: with the input's own labels
        they become intensities whose borders lie on the mask's, whatever the working grid.
        """
        values = _middle(self.reorientation.undo(x[self._inside]), self.grid.shape)
        output = self.manifest.output
        volume = Volume(values.astype(np.float32), self.grid.affine, output.modality, output.unit)
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
        limits = self.manifest.settings.tissue_range
        return None if limits is None else TissueRange(**vars(limits))

    @property
    def _reach(self) -> int:
        """Voxels over which intensities depend on each other: one a pass of a median of three."""
        return self._limits.passes if self._limits else 0

    def _covered(self) -> np.ndarray:
        """Voxels of the input's grid that are anatomy and not background."""
        if self.manifest.settings.outside == "background":
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
            np.linalg.solve(self.original.affine[:3, :3], self.region.origin - self.original.origin)
        ).astype(int)
        planes = []
        for axis, latent_index in borders:
            index = 2 * latent_index - self.before[axis]
            if axis in self.reorientation.flips:
                index = self.inner[axis] - index
            stored = self.reorientation.order[axis]
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
    """Image voxels per coarsest cell of the velocity network."""
    return manifest.settings.latent_stride * network(manifest, "flow", device).stride


def prepare(labels: LabelMap, manifest: Manifest, stride: int, noise_hu: float | None = None) -> Scene:
    """Cut out, resample, reorient and pad a mask as the package asks.

    ``stride`` is what the sides of the padded grid are multiples of, in voxels.

    Raises
    ------
    InputError: a mask of one voxel, or labels that reach beyond the field of view.
    MemoryPlanError: the working grid does not fit into free memory.
    """
    settings = manifest.settings
    findings: list[Finding] = []
    if settings.outside == "background":
        region = _around_labels(labels, MARGIN)
    else:
        region = _field_of_view(labels, manifest, findings)
    grid = _working_grid(region, manifest, labels.array.size)
    reorientation = Reorientation.to(grid.geometry, "RAS")
    array = reorientation.apply(grid.array)
    spacing = _known_spacing(reorientation.axes(grid.spacing), array.shape)
    inner = tuple(THIN_SLAB if n == 1 else n for n in array.shape)
    for axis, n in enumerate(array.shape):
        if n == 1:
            array = np.repeat(array, THIN_SLAB, axis)
    before, after = _padding(inner, stride)
    array = np.pad(array, list(zip(before, after, strict=True)))
    scalars, conditions = _scalars(settings, spacing, noise_hu, manifest.output.unit)
    codec = CODECS[settings.name](**settings.codec)
    return Scene(
        manifest,
        labels,
        region,
        grid,
        reorientation,
        array.astype(np.uint8),
        before,
        inner,
        spacing,
        codec,
        scalars,
        conditions,
        findings,
    )


def _around_labels(labels: LabelMap, margin: int) -> LabelMap:
    box = occupied(labels.array)
    low = [max(0, start - margin) for start, _ in box]
    high = [min(n, stop + margin) for (_, stop), n in zip(box, labels.shape, strict=True)]
    return crop(labels, low, high)


def _field_of_view(labels: LabelMap, manifest: Manifest, findings: list[Finding]) -> LabelMap:
    """The whole mask, or a box of the trained field of view about the labels' middle."""
    order = Reorientation.to(labels.geometry, "RAS").order
    longest = [manifest.field_of_view.max[order.index(axis)] for axis in range(3)]
    box = occupied(labels.array)
    low, high = [], []
    for (start, stop), n, s, limit in zip(box, labels.shape, labels.spacing, longest, strict=True):
        size = min(n, max(1, round(limit / s)))
        first = round((start + stop - size) / 2)
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
    _require_memory(manifest, target.shape, original_voxels)
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
        slice(v // 2, v // 2 + 1) if n == 1 and v > 1 else slice(None) for v, n in zip(values.shape, shape, strict=True)
    )
    return values[index]


def _scalars(
    settings: LatentFlowSettings, spacing: tuple[float, ...], noise_hu: float | None, unit: str
) -> tuple[list[float], dict[str, Any]]:
    """Scalar conditions of the network and, in words, what they were set to.

    The noise is in the image's ``unit``: HU in CT, grey values in MR.
    """
    if settings.noise_hu is None:
        if noise_hu is not None:
            raise InputError("This model has no noise setting; leave noise_hu out.")
        return [], {}
    mean_spacing = float(np.exp(np.mean(np.log(spacing))))
    if noise_hu is None:
        known, levels = zip(*settings.noise_hu, strict=True)
        noise_hu = float(np.interp(mean_spacing, known, levels))
    if not 1 <= noise_hu <= 50:
        raise InputError(f"The noise is {noise_hu:g} {unit}; choose 1 to 50 {unit}.")
    return ([spacing_scalar(mean_spacing), noise_scalar(noise_hu)], {"noise_hu": round(noise_hu, 2)})


def _require_memory(manifest: Manifest, shape: tuple[int, ...], original_voxels: int) -> None:
    """Refuse a grid whose arrays alone do not fit, before any of them is made."""
    latent = tuple(-(-n // 2) for n in shape)
    job = MemoryDemand(manifest, original_voxels, latent, bfloat16=True, gpu=True)
    needed = job.need(LAYOUTS["small"], keep=False).process - BASE_MIB
    free = free_memory() / MIB
    if needed > 0.9 * free:
        raise _too_little(math.prod(shape), needed, free, smallest=True)


def _too_little(voxels: int, needed: float, free: float, smallest: bool) -> MemoryPlanError:
    """``needed`` and ``free`` in MiB."""
    plan = "Even the smallest plan" if smallest else "The usual plan"
    way = "" if smallest else "take the small plan (--memory small), "
    return MemoryPlanError(
        f"{plan} for a grid of {voxels / 1e6:.1f} million voxels needs about "
        f"{needed / 1024:.1f} GiB, but {free / 1024:.1f} GiB are free; {way}crop the mask, give "
        "it larger voxels or close other programs."
    )


def network_role(
    manifest: Manifest,
    preset: FlowPreset,
    sampler: str | None = None,
    guidance: float | None = None,
    steps: int | None = None,
) -> str:
    """Role of the network that a preset samples with: "flow", or what its `network` names.

    A student for few steps knows only the equal steps of the package's own sampler, at most
    `most_steps` of them, and was never without its mask; with another sampler, with more steps or
    with guidance the main network is taken.
    """
    if sampler not in (None, manifest.sampler.name) or guidance not in (None, 1):
        return "flow"
    if steps is not None and preset.most_steps is not None and steps > preset.most_steps:
        return "flow"
    return preset.network


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
    plan: Plan
    role: str = "flow"
    guidance: float = 1.0
    classifier_guidance: float = 0.0

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        device: torch.device,
        sampler: str | None,
        steps: int | None,
        scene: Scene,
        memory: str = "normal",
        role: str = "flow",
        guidance: float | None = None,
        classifier_guidance: float = 0.0,
    ) -> Sampling:
        """``role`` is the network's, as `network_role` tells; ``guidance`` None is 1.

        Raises InputError for an unknown sampler, a number of steps below 1, a guidance that is
        not 0 to 10, or classifier guidance of a package without a classifier.
        """
        name = sampler or manifest.sampler.name
        SAMPLERS.require(name)
        if not steps or steps < 1:
            raise InputError(f"The number of steps is {steps}; choose at least 1.")
        weight = 1.0 if guidance is None else guidance
        if not 0 <= weight <= LARGEST_GUIDANCE:
            raise InputError(f"The guidance is {weight:g}; choose 0 to {LARGEST_GUIDANCE}.")
        _check_classifier(manifest, classifier_guidance)
        flow = network(manifest, role, device)
        autoencoder = network(manifest, "autoencoder", device)
        fast = bfloat16_pays(device)
        plan = _plan(scene, device, memory, fast)
        windows = _windows(scene, flow.stride, plan)
        return cls(
            scene, flow, autoencoder, device, name, steps, fast, windows, plan, role, weight, classifier_guidance
        )

    @property
    def small(self) -> bool:
        """Whether the plan for little memory was taken."""
        return self.plan.layout.name == "small"

    @property
    def window_count(self) -> int:
        return len(list(self.windows))

    @property
    def number_format(self) -> str:
        """In which the networks compute."""
        return "bfloat16" if self.bfloat16 else "float32"

    @property
    def denoiser(self) -> type:
        """What turns the flow network's answer into an estimate of the data."""
        return DENOISERS[self.scene.manifest.sampler.prediction]

    @property
    def borders(self) -> list[tuple[int, int]]:
        return self.windows.borders

    @torch.inference_mode()
    def latent(self, seed: int, progress: ProgressCallback | None) -> Tensor:
        """Sample the latent (1, 8, i, j, k) of the scene."""
        generator = torch.Generator().manual_seed(seed)
        noise = self.noise(generator).to(self.device)
        return self.sample(noise, progress, generator)

    def noise(self, generator: torch.Generator) -> Tensor:
        """The noise (1, 8, i, j, k) that a sample starts from, on the CPU."""
        return torch.randn((1, 8, *self.windows.shape), generator=generator)

    @torch.inference_mode()
    def sample(
        self,
        noise: Tensor,
        progress: ProgressCallback | None,
        generator: torch.Generator | None = None,
        known: Known | None = None,
    ) -> Tensor:
        """Sample the latent that a noise leads to; where it is `known`, it stays what it is."""
        boxes = list(self.windows)
        kept = None if not self.plan.keep else list(self._features(boxes, progress))
        scalars = None
        if self.scene.scalars:
            scalars = torch.tensor([self.scene.scalars], device=self.device)
        evaluated = SAMPLERS[self.sampler].total(self.steps) * self.window_count
        stage = Stage("sampling", evaluated, progress)

        # A student for few steps has to know how long a step of the path is.
        step = ()
        if self.flow.arguments.get("step_size"):
            step = (torch.full((1,), 1 / self.steps, device=self.device),)

        @lru_cache(maxsize=1)
        def unmasked(shape: torch.Size) -> list[Tensor]:
            """Features of the mask that training dropped: guidance leads away from these."""
            size = (1, self.flow.arguments["maps"], *(2 * n for n in shape[2:]))
            return self.flow.encode_mask(torch.zeros(size, device=self.device))

        def velocity(x: Tensor, t: float) -> Tensor:
            time = torch.full((1,), t, device=self.device)

            def evaluate(number: int, part: Tensor) -> Tensor:
                features = self._read(boxes[number]) if kept is None else kept[number]
                part = part.contiguous(memory_format=torch.channels_last_3d)
                with precision(self.device, self.bfloat16):
                    result = self.flow(part, time, features, scalars, *step)
                    if self.guidance != 1:
                        free = self.flow(part, time, unmasked(part.shape), scalars, *step)
                        result = free + self.guidance * (result - free)
                stage.advance()
                return result

            return blend(evaluate, x, self.windows)

        denoise = self._classified(self.denoiser(velocity))
        return SAMPLERS[self.sampler](
            denoise if known is None else known.kept_by(denoise), noise, self.steps, generator=generator
        )

    def _classified(self, denoise: Denoiser) -> Denoiser:
        """The denoiser guided by the package's classifier, where that is wanted."""
        if not self.classifier_guidance:
            return denoise
        with torch.inference_mode(False):  # weights loaded in it would refuse a gradient
            classifier = network(self.scene.manifest, "classifier", self.device)
        maps = torch.from_numpy(self.scene.maps())[None, : classifier.arguments["labels"]]
        wanted = avg_pool3d(maps, 2).to(self.device)

        def logits(x: Tensor, t: float) -> Tensor:
            return classifier(x, torch.full((1,), t, device=self.device))

        return ClassifierGuidance(denoise, logits, wanted, self.classifier_guidance)

    def _features(self, boxes: list[Box], progress: ProgressCallback | None) -> Iterator[list[Tensor]]:
        """Mask features of every window, computed once per sample."""
        stage = Stage("reading the mask", len(boxes), progress)
        for box in boxes:
            yield self._read(box)
            stage.advance()

    def _read(self, box: Box) -> list[Tensor]:
        """Mask features of one window. Where they are not kept, every step reads them again."""
        image_box = tuple(slice(2 * s.start, 2 * s.stop) for s in box)
        maps = torch.from_numpy(self.scene.maps(image_box))[None].to(self.device)
        with precision(self.device, self.bfloat16):
            return self.flow.encode_mask(maps)

    @torch.inference_mode()
    def decode(self, latent: Tensor, progress: ProgressCallback | None) -> np.ndarray:
        """Latent -> network values (i, j, k) on the padded working grid."""
        tile = self.plan.layout.tile
        stage = Stage("decoding", tile_count(latent.shape[2:], tile), progress)

        def run(part: Tensor) -> Tensor:
            with precision(self.device, self.bfloat16):
                return self.autoencoder.decode(part)

        image = decode_tiled(run, latent, tile, self.autoencoder.halo // 2, lambda done: stage.advance())
        return image[0, 0].numpy()


def _check_classifier(manifest: Manifest, weight: float) -> None:
    if not 0 <= weight <= LARGEST_CLASSIFIER_GUIDANCE:
        raise InputError(f"The classifier guidance is {weight:g}; choose 0 to {LARGEST_CLASSIFIER_GUIDANCE}.")
    if weight and "classifier" not in manifest.networks:
        raise InputError(
            f"The model '{manifest.name}' has no classifier to guide it; leave the classifier guidance out."
        )


def _plan(scene: Scene, device: torch.device, memory: str, bfloat16: bool) -> Plan:
    """The fastest plan of those asked for that fits into the memory which is free.

    Raises
    ------
    MemoryPlanError: none of them does.
    """
    gpu = device.type == "cuda"
    # A window of an edit has no grid of its own to come back to.
    original = getattr(scene, "original", scene.labels)
    shape = tuple(n // 2 for n in scene.labels.shape)
    job = MemoryDemand(scene.manifest, math.prod(original.shape), shape, bfloat16, gpu)
    options = plans(job, memory)
    free, on_device = free_memory() / MIB, free_memory(device) / MIB
    chosen = choose(options, BASE_MIB + 0.9 * free, 0.9 * on_device)
    if chosen is None:
        least = options[-1].need
        short = least.device > 0.9 * on_device
        needed = least.device if short else least.process - BASE_MIB
        smallest = options[-1].layout.name == "small"
        raise _too_little(job.voxels, needed, on_device if short else free, smallest)
    if memory == "auto" and chosen.layout.name != "normal":
        scene.findings.append(Finding("warning", "small-plan", SMALL_PLAN))
    return chosen


def _windows(scene: Scene, stride: int, plan: Plan) -> Windows:
    shape = tuple(n // 2 for n in scene.labels.shape)
    return Windows(shape, plan.layout.window_shape(shape), OVERLAP, stride)
