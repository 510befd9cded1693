"""NV-Generate's networks on one scene: sampling by the rectified flow or by denoising diffusion, and decoding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.diffusion import SAMPLERS, Denoiser
from MedGenLib.diffusion.flow import FlowDenoiser
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.networks.maisi import lower_precision
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.generation import GenerationRun
from MedGenLib.pipelines.loading import bfloat16_pays, network
from MedGenLib.pipelines.maisi import memory as plan
from MedGenLib.pipelines.maisi.schedule import TRAIN_STEPS, respaced, time_shift, training_step
from MedGenLib.pipelines.memory_plan import SMALL_PLAN
from MedGenLib.pipelines.windows import Windows, blend
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from MedGenLib.pipelines.maisi.masks import MaisiScene

NO_CLASS = 0
"""The modality class for any modality, used as unconditional class in guidance."""
CONDITION_SCALE = 100.0
"""Spacings in mm and body regions are multiplied by this for the networks."""


@dataclass
class MaisiSampling(GenerationRun):
    """Networks, sampler and windows for one scene.

    Attributes
    ----------
    controlnet: None for packages without a mask.
    number_format: of the U-Net and the ControlNet.
    modality: class of the image; None for packages without classes.
    """

    scene: MaisiScene
    flow: nn.Module
    autoencoder: nn.Module
    controlnet: nn.Module | None
    device: torch.device
    sampler: str
    steps: int
    number_format: str
    windows: Windows
    small: bool
    modality: int | None
    guidance: float = 1.0
    classifier_guidance: float = 0.0
    role: str = "flow"

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        device: torch.device,
        sampler: str | None,
        steps: int | None,
        scene: MaisiScene,
        memory: str = "normal",
        guidance: float | None = None,
    ) -> MaisiSampling:
        """``guidance`` None stands for the package's value.

        Raises
        ------
        InputError: an unknown sampler, a number of steps or a guidance out of range; a mask without the part of the
            body, for a package conditioned on it.
        MemoryPlanError: the scene does not fit into the memory of the device.
        """
        name = _checked_sampler(manifest, sampler)
        if steps > TRAIN_STEPS:
            raise InputError(f"The number of steps is {steps}; choose 1 to {TRAIN_STEPS}.")
        weight = _checked_guidance(manifest, guidance)
        if manifest.settings.regions and scene.regions is None:
            raise InputError(
                f"The model '{manifest.name}' needs the part of the body, and the mask "
                "has no brain, skull, lung, abdominal organ or thigh bone that shows it; add one, "
                "or use the model nv-generate-ct."
            )
        if name == "ddpm" and _predicts_noise(manifest) and steps < TRAIN_STEPS:
            scene.findings.append(
                Finding(
                    "warning",
                    "few-steps",
                    f"The model '{manifest.name}' was made for {TRAIN_STEPS} steps of ddpm; an image "
                    f"of {steps} is worse; ddim needs fewer.",
                )
            )
        dtype = _number_format(device)
        small = plan.is_small(manifest, scene.shape, device, dtype, memory)
        windows = plan.windows(manifest.settings, scene.shape, small)
        if small and memory == "auto":
            scene.findings.append(Finding("warning", "small-plan", SMALL_PLAN))
        networks = {
            role: _at(network(manifest, role, device), dtype)
            for role in ("flow", "controlnet")
            if role in manifest.networks
        }
        autoencoder = network(manifest, "autoencoder", device)
        if device.type == "cuda":
            _at(autoencoder, dtype)
        return cls(
            scene,
            networks["flow"],
            autoencoder,
            networks.get("controlnet"),
            device,
            name,
            steps,
            str(dtype).removeprefix("torch."),
            windows,
            small,
            manifest.settings.classes.get(scene.modality or manifest.settings.default_class),
            weight,
        )

    def sample(self, seed: int, progress: ProgressCallback | None = None) -> Tensor:
        """Sample the latent (1, c, i, j, k) of the scene."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.settings.latent_channels, *self.windows.shape)
        noise = torch.randn(shape, generator=generator).to(self.device)
        return self.integrate(noise, progress, generator)

    @torch.inference_mode()
    def integrate(self, noise: Tensor, progress: ProgressCallback | None, generator: torch.Generator) -> Tensor:
        """Sample the latent from a noise."""
        if self.controlnet is not None:
            reading = Stage("reading the mask", 1, progress)
            _ = self._embedded
            reading.advance()
        stage = Stage("sampling", SAMPLERS[self.sampler].total(self.steps) * self.window_count, progress)
        return SAMPLERS[self.sampler](self._denoiser(stage), noise, self.steps, generator=generator, **self._times())

    def _times(self) -> dict[str, Any]:
        if self._predicts_noise:
            return {"signal": respaced(self.steps)}
        if SAMPLERS[self.sampler].path == "flow":
            first = next(iter(self.windows))
            return {"shift": time_shift([s.stop - s.start for s in first])}
        return {}

    @property
    def _predicts_noise(self) -> bool:
        return _predicts_noise(self.scene.manifest)

    def _denoiser(self, stage: Stage) -> Denoiser:

        def velocity(x: Tensor, t: float) -> Tensor:
            # These networks predict data - noise; the flow's velocity is noise - data.
            return -self._evaluated(x, TRAIN_STEPS * t, stage)

        def data(x: Tensor, alpha: float, sigma: float) -> Tensor:
            noise = self._evaluated(x, training_step(alpha**2), stage)
            return (x - sigma * noise) / alpha

        return data if self._predicts_noise else FlowDenoiser(velocity)

    def _evaluated(self, x: Tensor, timestep: float, stage: Stage) -> Tensor:
        """The U-Net's prediction for the whole latent, blended from windows."""
        boxes = list(self.windows)
        time = torch.full((1,), timestep, device=self.device)

        def evaluate(number: int, part: Tensor) -> Tensor:
            part = part.contiguous(memory_format=torch.channels_last_3d)
            result = self._answer(part, time, boxes[number], self.modality)
            if self.guidance != 1:
                free = self._answer(part, time, boxes[number], NO_CLASS)
                result = free + self.guidance * (result - free)
            stage.advance()
            return result

        return blend(evaluate, x, self.windows)

    def _answer(self, x: Tensor, time: Tensor, box: Any, modality: int | None) -> Tensor:
        kind = None if modality is None else torch.full((1,), modality, device=self.device)
        added = {}
        with self._precision():
            if self.controlnet is not None:
                embedded = self._embedded[(slice(None), slice(None), *box)]
                down, middle = self.controlnet.residuals(x, time, embedded, kind)
                added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            result = self.flow(x, time, class_labels=kind, **self._conditions, **added)
        return result.float()

    @cached_property
    def _embedded(self) -> Tensor:
        """The mask as input of the ControlNet, computed once for all steps and samples."""
        labels = torch.from_numpy(self.scene.labels).to(self.device)
        with torch.inference_mode(), self._precision():
            return self.controlnet.embed(labels)

    @cached_property
    def _conditions(self) -> dict[str, Tensor]:
        """Spacing and body region as inputs of the U-Net."""
        values = {"spacing_tensor": self.scene.spacing}
        if self.settings.regions:
            top, bottom = (np.eye(4)[region] for region in self.scene.regions)
            values |= {"top_region_index_tensor": top, "bottom_region_index_tensor": bottom}
        return {
            name: CONDITION_SCALE * torch.tensor([list(v)], dtype=torch.float32).to(self.device)
            for name, v in values.items()
        }

    def _precision(self) -> torch.autocast:
        dtype = getattr(torch, self.number_format)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    @torch.inference_mode()
    def decode(self, latent: Tensor, progress: ProgressCallback | None = None) -> np.ndarray:
        """Latent -> network values (i, j, k), about 0 to 1, on the scene's grid."""
        stage = Stage("decoding", self.autoencoder.layers, progress)
        scaled = latent / self.settings.scale_factor
        room = plan.room(self.scene.shape, self.device, self.small)
        image = self.autoencoder.decode(scaled, room, stage.advance)
        return image[0, 0].cpu().numpy()


def modality_of(manifest: Manifest, name: str | None) -> str | None:
    """The package's name of a modality, ignoring case and separators.

    None stands for the package's default, and remains None if there is only one. Raises InputError if the package does
    not generate it (lists what it generates).
    """
    classes = manifest.settings.classes
    if name is None:
        return manifest.settings.default_class
    known = {_plain(known): known for known in classes}
    if _plain(name) not in known:
        what = ", ".join(classes) or f"{manifest.output.modality} only"
        raise InputError(f"The model '{manifest.name}' does not generate '{name}'; it generates: {what}.")
    return known[_plain(name)]


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _checked_sampler(manifest: Manifest, sampler: str | None) -> str:
    name = sampler or manifest.sampler.name
    paths = {"variance-preserving"} if _predicts_noise(manifest) else {"flow", "variance-preserving"}
    fitting = [known for known in SAMPLERS if SAMPLERS[known].path in paths]
    if name not in fitting:
        raise InputError(f"The model '{manifest.name}' has no sampler '{name}'; choose {', '.join(fitting)}.")
    return name


def _predicts_noise(manifest: Manifest) -> bool:
    return manifest.sampler.prediction == "noise"


def _checked_guidance(manifest: Manifest, guidance: float | None) -> float:
    if guidance is None:
        return manifest.settings.guidance
    if guidance != 1 and len(manifest.settings.classes) < 2:
        raise InputError(
            f"The model '{manifest.name}' generates one modality only, so guidance has no effect; leave guidance out."
        )
    return guidance


def _number_format(device: torch.device) -> torch.dtype:
    """float16 on CUDA, as published; bfloat16 if a CPU is faster in it."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if bfloat16_pays(device) else torch.float32


def _at(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network with its weights converted to a number format, also for later runs."""
    if dtype != torch.float32:
        lower_precision(net, dtype)
    return net
