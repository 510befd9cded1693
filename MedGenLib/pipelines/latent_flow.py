"""The pipeline of a flow in the latent of an autoencoder, as trained by `medgen train`.

mask -> working grid -> latent flow -> decode -> intensities -> grid of the mask
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError
from MedGenLib.pipelines.base import Estimate, Pipeline, SamplingOptions, pipeline
from MedGenLib.pipelines.measured import STEPS_BESIDE, computes_in_bfloat16
from MedGenLib.pipelines.memory_plan import LAYOUTS, MemoryDemand, choose, network_stride, plans
from MedGenLib.pipelines.working_grid import working_geometry

if TYPE_CHECKING:
    import torch

    from MedGenLib.imaging.volume import Geometry, LabelMap
    from MedGenLib.packages.manifest import Manifest, Performance
    from MedGenLib.packages.sections import FlowPreset
    from MedGenLib.pipelines.flow_sampling import Sampling


@pipeline("latent-flow")
class LatentFlow(Pipeline):
    """Pipeline of the module."""

    editable = True

    def prepare(self, source: LabelMap, device: torch.device, options: SamplingOptions) -> Sampling:
        """The mask on the working grid, and the networks of the preset."""
        from MedGenLib.pipelines.flow_sampling import Sampling
        from MedGenLib.pipelines.scene import prepare

        manifest = self.manifest
        if options.modality is not None:
            raise InputError(
                f"The model '{manifest.name}' generates {manifest.output.modality} only; leave the modality out."
            )
        if options.any_grid:
            raise InputError(f"The model '{manifest.name}' works on any grid; leave any_grid (--any-grid) out.")
        preset = manifest.preset(options.preset)
        role = network_role(manifest, preset, options.sampler, options.guidance, options.steps)
        steps = options.steps
        if steps is None:
            # The steps of a student are too few for the main network.
            suiting = (preset, manifest.preset("normal"), *manifest.sampler.presets.values())
            steps = next((one for one in suiting if one.network == role), preset).steps
        return Sampling.of(
            manifest,
            device,
            options.sampler,
            steps,
            prepare(source, manifest, options.noise_hu, device.type == "cuda"),
            options.memory,
            role,
            options.guidance,
            options.classifier_guidance,
        )

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Estimate for the whole grid; an upper bound, as a mask is cropped to its labels."""
        manifest, gpu = self.manifest, device.startswith("cuda")
        stride = manifest.settings.latent_stride
        target = working_geometry(self._within_view(geometry), manifest)
        latent = tuple(-(-n // stride) for n in target.shape)
        usual, network = LAYOUTS["normal"], network_stride(manifest)
        covered = stride**3 * math.prod(usual.window_shape(latent)) * usual.count(latent, network)
        demand = MemoryDemand(manifest, math.prod(geometry.shape), latent, computes_in_bfloat16(device), gpu)
        room = math.inf if free_mib is None else 0.9 * free_mib
        possible = plans(demand)
        plan = choose(possible, math.inf if gpu else room, room if gpu else 0.0) or possible[-1]
        return Estimate(
            covered * (manifest.preset(preset).steps + STEPS_BESIDE),
            plan.need.device if gpu else plan.need.process,
            plan.layout.count(latent, network),
            plan.layout.name == "small",
        )

    def measured_cost(self, run: Performance) -> float:
        """Cost of a run sampled in one window."""
        return math.prod(run.size) * (self.manifest.preset(run.preset).steps + STEPS_BESIDE)

    def _within_view(self, geometry: Geometry) -> Geometry:
        """The generated part: models of one structure crop to their field of view."""
        if self.manifest.settings.outside != "anatomy":
            return geometry
        longest = max(self.manifest.field_of_view.max)
        shape = [min(n, max(1, round(longest / s))) for n, s in zip(geometry.shape, geometry.spacing, strict=True)]
        return geometry.moved((0, 0, 0), shape)


@pipeline("pixel-diffusion")
class PixelDiffusion(LatentFlow):
    """Diffusion in voxels: the network predicts something else, and the autoencoder is the Haar transform."""


def network_role(
    manifest: Manifest,
    preset: FlowPreset,
    sampler: str | None = None,
    guidance: float | None = None,
    steps: int | None = None,
) -> str:
    """Role of the network of a preset: "flow", or that of its `network`.

    A few-step student is trained for the equal steps of the package's sampler, at most `most_steps`, always with a
    mask; the main network is used with another sampler, more steps or guidance.
    """
    if sampler not in (None, manifest.sampler.name) or guidance not in (None, 1):
        return "flow"
    if steps is not None and preset.most_steps is not None and steps > preset.most_steps:
        return "flow"
    return preset.network
