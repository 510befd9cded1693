"""Sampling of a flow network on one scene, window by window, and decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from MedGenLib.devices import MIB, free_memory
from MedGenLib.diffusion import DENOISERS, SAMPLERS, Denoiser
from MedGenLib.diffusion.guidance import ClassifierGuidance
from MedGenLib.diffusion.inpainting import Known
from MedGenLib.errors import InputError, PackageError
from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box, scaled
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.generation import GenerationRun
from MedGenLib.pipelines.loading import bfloat16_pays, network, precision
from MedGenLib.pipelines.memory_plan import BASE_MIB, OVERLAP, SMALL_PLAN, MemoryDemand, Plan, choose, plans, too_little
from MedGenLib.pipelines.tissue_levels import at_voxels, voxel_inputs
from MedGenLib.pipelines.windows import Windows, blend, decode_tiled, tile_count
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from MedGenLib.pipelines.scene import Scene

LEVELS, VOXEL_LEVELS = "levels", "voxel_levels"
"""Roles of the networks of `tissue_levels`, for cells and for voxels."""
LEVEL_OVERLAP = 8
"""Overlap of the windows of these networks, in cells and in voxels."""
LARGEST_GUIDANCE = 10
"""Above this weight, artifacts dominate."""


class FlowScene(Protocol):
    """Input of a flow: a whole mask (`scene.Scene`) or the window of an edit.

    Attributes
    ----------
    labels: (i, j, k) labels of the padded working grid.
    scalars: scalar conditions of the network.
    output_voxels: number of voxels of the result's grid.
    """

    manifest: Manifest
    labels: np.ndarray
    scalars: list[float]
    findings: list[Finding]
    output_voxels: int

    def maps(self, box: Box | None = None) -> np.ndarray:
        """Conditioning maps (channels, ...) of a box of the grid."""


@dataclass
class Sampling(GenerationRun):
    """Networks, sampler and windows for one scene."""

    scene: FlowScene
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
        scene: FlowScene,
        memory: str = "normal",
        role: str = "flow",
        guidance: float | None = None,
        classifier_guidance: float = 0.0,
    ) -> Sampling:
        """``role`` is that of `latent_flow.network_role`; ``guidance`` None stands for 1.

        Raises
        ------
        InputError: an unknown sampler, a guidance out of range, or classifier guidance without a classifier.
        PackageError: the autoencoder's latent differs from the package's settings.
        MemoryPlanError: the scene does not fit into memory.
        """
        name = sampler or manifest.sampler.name
        SAMPLERS.require(name)
        weight = 1.0 if guidance is None else guidance
        if not 0 <= weight <= LARGEST_GUIDANCE:
            raise InputError(f"The guidance is {weight:g}; choose 0 to {LARGEST_GUIDANCE}.")
        _check_classifier(manifest, classifier_guidance)
        flow = network(manifest, role, device)
        autoencoder = network(manifest, "autoencoder", device)
        _check_latent(manifest, autoencoder)
        fast = bfloat16_pays(device)
        plan = _plan(scene, device, memory, fast)
        shape = _latent_shape(scene)
        windows = Windows(shape, plan.layout.window_shape(shape), OVERLAP, flow.stride)
        return cls(
            scene, flow, autoencoder, device, name, steps, fast, windows, plan, role, weight, classifier_guidance
        )

    @property
    def small(self) -> bool:
        """Whether the small memory plan is used."""
        return self.plan.layout.name == "small"

    @property
    def number_format(self) -> str:
        """Number format of the networks' computations."""
        return "bfloat16" if self.bfloat16 else "float32"

    @property
    def denoiser(self) -> type:
        """Class that converts the network's prediction into an estimate of the data."""
        return DENOISERS[self.scene.manifest.sampler.prediction]

    @torch.inference_mode()
    def sample(self, seed: int, progress: ProgressCallback | None = None) -> Tensor:
        """Sample the latent (1, c, i, j, k) of the scene, which then is that `of_seed`."""
        self.scene = self.of_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        noise = self.noise(generator).to(self.device)
        return self.integrate(noise, progress, generator)

    def of_seed(self, seed: int) -> Scene:
        """The scene with the contrast of a seed, and the levels of its tissues with that noise."""
        scene = self.scene.of_seed(seed)
        if scene.voxel_levels is None or scene.scalars != self.scene.scalars:
            scene = with_levels(scene, self.device, self.plan.layout.levels)
        return scene

    def drawn(self, seed: int) -> dict[str, float]:
        return self.scene.drawn(seed)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Initial noise (1, c, i, j, k) of a sample, on the CPU."""
        return torch.randn((1, self.settings.latent_channels, *self.windows.shape), generator=generator)

    @torch.inference_mode()
    def integrate(
        self,
        noise: Tensor,
        progress: ProgressCallback | None,
        generator: torch.Generator | None = None,
        known: Known | None = None,
        watch: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Sample the latent from a noise; the part that is `known` is kept.

        ``watch(number, of_all, estimate)`` gets the estimate of the latent at each evaluation, from 1.
        """
        boxes = list(self.windows)
        kept = None if not self.plan.keep else list(self._features(boxes, progress))
        scalars = torch.tensor([self.scene.scalars], device=self.device) if self.scene.scalars else None
        evaluated = SAMPLERS[self.sampler].total(self.steps) * self.window_count
        stage = Stage("sampling", evaluated, progress)

        # A few-step student is conditioned on the length of its steps.
        step = ()
        if self.flow.arguments.get("step_size"):
            step = (torch.full((1,), 1 / self.steps, device=self.device),)

        @lru_cache(maxsize=1)
        def unmasked(shape: torch.Size) -> list[Tensor]:
            """Features of a dropped mask, for classifier-free guidance."""
            size = (1, self.flow.arguments["maps"], *(self.settings.latent_stride * n for n in shape[2:]))
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
        if known is not None:
            denoise = known.kept_by(denoise)
        if watch is not None:
            total = SAMPLERS[self.sampler].total(self.steps)
            denoise = _watched(denoise, lambda number, estimate: watch(number, total, estimate))
        return SAMPLERS[self.sampler](denoise, noise, self.steps, generator=generator)

    def _classified(self, denoise: Denoiser) -> Denoiser:
        """The denoiser, guided by the package's classifier if requested."""
        if not self.classifier_guidance:
            return denoise
        with torch.inference_mode(False):  # weights loaded in inference mode have no gradient
            classifier = network(self.scene.manifest, "classifier", self.device)
        maps = torch.from_numpy(self.scene.maps())[None, : classifier.arguments["labels"]]
        target = avg_pool3d(maps, self.settings.latent_stride).to(self.device)

        def logits(x: Tensor, t: float) -> Tensor:
            return classifier(x, torch.full((1,), t, device=self.device))

        return ClassifierGuidance(denoise, logits, target, self.classifier_guidance)

    def _features(self, boxes: list[Box], progress: ProgressCallback | None) -> Iterator[list[Tensor]]:
        """Mask features of every window, computed once per sample."""
        stage = Stage("reading the mask", len(boxes), progress)
        for box in boxes:
            yield self._read(box)
            stage.advance()

    def _read(self, box: Box) -> list[Tensor]:
        """Mask features of one window; recomputed at every step if not kept."""
        image_box = scaled(box, self.settings.latent_stride)
        maps = torch.from_numpy(self.scene.maps(image_box))[None].to(self.device)
        with precision(self.device, self.bfloat16):
            return self.flow.encode_mask(maps)

    @torch.inference_mode()
    def decode(self, latent: Tensor, progress: ProgressCallback | None = None) -> np.ndarray:
        """Latent -> network values (i, j, k) on the padded working grid."""
        tile = self.plan.layout.tile
        stage = Stage("decoding", tile_count(latent.shape[2:], tile), progress)

        def run(part: Tensor) -> Tensor:
            with precision(self.device, self.bfloat16):
                return self.autoencoder.decode(part)

        stride = self.settings.latent_stride
        halo = self.autoencoder.halo // stride
        image = decode_tiled(run, latent, tile, halo, stride, lambda done: stage.advance())
        return image[0, 0].numpy()


def _watched(denoise: Denoiser, watch: Callable[[int, Tensor], None]) -> Denoiser:
    numbers = count(1)

    def seen(x: Tensor, *scales: float, **options: object) -> Tensor:
        data = denoise(x, *scales, **options)
        watch(next(numbers), data)
        return data

    return seen


@torch.inference_mode()
def with_levels(scene: Scene, device: torch.device, longest: int) -> Scene:
    """The scene with the usual levels of its tissues, if the model has the networks for them.

    A single slice has no shapes to judge by. ``longest`` is the longest side of a window.
    """
    if VOXEL_LEVELS not in scene.manifest.networks or 1 in scene.grid.shape:
        return scene
    cells = None
    if LEVELS in scene.manifest.networks:
        cells = cell_levels(scene.manifest, scene.shares, device, longest)
    net = network(scene.manifest, VOXEL_LEVELS, device)
    labels, tissues = scene.inner_labels, net.arguments["tissues"]
    padded = np.pad(labels, [(0, -n % net.stride) for n in labels.shape])
    windows = _windows(padded.shape, longest, net.stride)

    def evaluate(number: int, part: Tensor) -> Tensor:
        box = list(windows)[number]
        levels = None if cells is None else at_voxels(cells, labels.shape, box)
        known = voxel_inputs(padded[box], tissues, levels, scene.scalars)
        found = net(torch.from_numpy(known)[None].to(device))
        own = torch.from_numpy(padded[box].astype(np.int64) - 1).clamp(min=0).to(device)
        return found.gather(2, own.expand(1, 3, 1, *own.shape))[:, :, 0].to(part)

    # The windows' sum is in single precision; what is kept is not.
    found = blend(evaluate, torch.zeros((1, 3, *padded.shape)), windows)
    found[:, 2] *= scene.manifest.settings.coarse_texture
    size = tuple(slice(0, n) for n in labels.shape)
    return replace(scene, cell_levels=cells, voxel_levels=found[(0, slice(None), *size)].half().numpy())


@torch.inference_mode()
def cell_levels(manifest: Manifest, shares: np.ndarray, device: torch.device, longest: int) -> np.ndarray:
    """Usual level of each tissue in each cell, (tissues, cells), from the shares of the tissues; see `with_levels`."""
    levels = network(manifest, LEVELS, device)
    known = torch.from_numpy(shares)[None].to(device)
    size = known.shape[2:]
    padded = nn.functional.pad(known, [m for n in reversed(size) for m in (0, -n % levels.stride)])
    padded[:, 0] += padded.sum(1) == 0
    windows = _windows(padded.shape[2:], longest, levels.stride)
    found = blend(lambda number, part: levels(part), padded, windows)
    return found[0, 1:, : size[0], : size[1], : size[2]].cpu().numpy()


def _windows(shape: Sequence[int], longest: int, stride: int) -> Windows:
    """The shortest windows, not longer than this, of which as few as possible cover a grid."""
    shared, sides = LEVEL_OVERLAP + stride, []
    for length in shape:
        count = -(-max(1, length - shared) // (longest - shared))
        side = -(-(length - shared) // count) + shared
        sides.append(-(-side // stride) * stride)
    return Windows(tuple(shape), tuple(sides), LEVEL_OVERLAP, stride)


def _check_latent(manifest: Manifest, autoencoder: nn.Module) -> None:
    found = autoencoder.channels, autoencoder.stride
    said = manifest.settings.latent_channels, manifest.settings.latent_stride
    if found != said:
        raise PackageError(
            f"The autoencoder of the model '{manifest.name}' has {found[0]} latent channels at a stride of {found[1]}, "
            f"but its settings have {said[0]} at {said[1]}; install the model again."
        )


def _latent_shape(scene: FlowScene) -> tuple[int, ...]:
    return tuple(n // scene.manifest.settings.latent_stride for n in scene.labels.shape)


def _check_classifier(manifest: Manifest, weight: float) -> None:
    if weight and "classifier" not in manifest.networks:
        raise InputError(
            f"The model '{manifest.name}' has no classifier to guide it; leave the classifier guidance out."
        )


def _plan(scene: FlowScene, device: torch.device, memory: str, bfloat16: bool) -> Plan:
    """The fastest of the allowed plans that fits into the free memory. Raises MemoryPlanError if none of them fits."""
    gpu = device.type == "cuda"
    demand = MemoryDemand(scene.manifest, scene.output_voxels, _latent_shape(scene), bfloat16, gpu)
    options = plans(demand, memory)
    free, on_device = free_memory() / MIB, free_memory(device) / MIB
    chosen = choose(options, BASE_MIB + 0.9 * free, 0.9 * on_device)
    if chosen is None:
        least = options[-1].need
        short = least.device > 0.9 * on_device
        needed = least.device if short else least.process - BASE_MIB
        smallest = options[-1].layout.name == "small"
        raise too_little(demand.voxels, needed, on_device if short else free, smallest)
    if memory == "auto" and chosen.layout.name != "normal":
        scene.findings.append(Finding("warning", "small-plan", SMALL_PLAN))
    return chosen
