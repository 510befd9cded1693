"""The pipeline of NV-Generate's packages: MAISI, with a mask or with a grid alone.

mask or grid -> grid that the networks were trained on -> latent flow or diffusion -> decode -> grid of the input
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError
from MedGenLib.pipelines.base import Estimate, Pipeline, SamplingOptions, pipeline
from MedGenLib.pipelines.measured import IDLE_MIB, STEPS_BESIDE

if TYPE_CHECKING:
    import torch

    from MedGenLib.imaging.volume import Geometry, LabelMap
    from MedGenLib.packages.manifest import Performance
    from MedGenLib.pipelines.maisi.sampling import MaisiSampling

BYTES_PER_VOXEL = 32
"""Bytes per image voxel: labels, network values, intensities, checks."""
LAST_CHANNELS, MIDDLE_CHANNELS = 64, 128
"""Channels of the decoder's maps at the image's resolution, and at half of it."""


@pipeline("maisi")
class Maisi(Pipeline):
    """Pipeline of the module."""

    def prepare(self, source: LabelMap, device: torch.device, options: SamplingOptions) -> MaisiSampling:
        """The mask, or its grid alone, on a legal grid, and the networks."""
        from MedGenLib.pipelines.maisi.masks import prepare, prepare_grid
        from MedGenLib.pipelines.maisi.sampling import MaisiSampling, modality_of

        manifest = self.manifest
        if options.noise_hu is not None:
            raise InputError("This model has no noise setting; leave noise_hu out.")
        if options.classifier_guidance:
            raise InputError(
                f"The model '{manifest.name}' has no classifier for guidance; leave classifier_guidance out."
            )
        if manifest.input.kind == "none":
            scene = prepare_grid(source.geometry, manifest, any_grid=options.any_grid)
        else:
            scene = prepare(source, manifest, any_grid=options.any_grid)
        scene.modality = modality_of(manifest, options.modality)
        if scene.modality is not None:
            scene.conditions["modality"] = scene.modality
        steps = manifest.preset(options.preset).steps if options.steps is None else options.steps
        return MaisiSampling.of(manifest, device, options.sampler, steps, scene, options.memory, options.guidance)

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Estimate for the legal grid of a mask or a size."""
        from MedGenLib.pipelines.maisi.legal import find_grid

        voxels = math.prod(find_grid(geometry, self.manifest).shape)
        cost = voxels * (self.manifest.preset(preset).steps + STEPS_BESIDE)
        return Estimate(cost, self._memory_mib(voxels, device))

    def measured_cost(self, run: Performance) -> float:
        """Cost of a run on a legal grid."""
        return math.prod(run.size) * (self.manifest.preset(run.preset).steps + STEPS_BESIDE)

    def _memory_mib(self, voxels: int, device: str) -> float:
        """Memory of the weights and of the decoder at the image's resolution.

        Two maps are alive: in single precision; in half precision if one would take more than a fifth of the memory;
        otherwise in slabs, so that the two at half the resolution count (exact in `maisi.memory`, by the device).
        """
        total = math.inf
        if not device.startswith("cuda"):
            with suppress(ImportError):  # psutil may be missing in Slicer
                import psutil

                total = psutil.virtual_memory().total
        whole = LAST_CHANNELS * 4 * voxels
        maps = 2 * whole
        if whole > total / 5:
            maps = whole if whole / 2 <= total / 5 else 2 * MIDDLE_CHANNELS * 2 * voxels / 8
        weights = 0.0
        for role in self.manifest.networks:
            with suppress(OSError):
                weights += self.manifest.weights_path(role).stat().st_size
        return IDLE_MIB + (weights + maps + BYTES_PER_VOXEL * voxels) / 2**20
