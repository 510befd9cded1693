"""The pipeline of packages that translate images slice by slice.

image -> head mask -> LPS grid -> slices in up to three planes -> fused planes -> grid of the image
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from MedGenLib.pipelines.base import Estimate, Pipeline, SamplingOptions, pipeline
from MedGenLib.pipelines.measured import IDLE_MIB, card_runs, computes_in_bfloat16
from MedGenLib.pipelines.working_grid import slice_axes, slice_spacing

if TYPE_CHECKING:
    import torch

    from MedGenLib.imaging.volume import Geometry, Volume
    from MedGenLib.packages.manifest import Performance
    from MedGenLib.pipelines.slice_sampling import SliceRun

BATCH_MIB = 225.0
"""Memory of the network on one batch of slices, independent of the volume's size."""
BYTES_PER_VOXEL = 50
"""Bytes per voxel for the rest, for packages without measurements."""
SMALL_SHARE = 0.25
"""Memory of the network with memory="small", relative to the normal plan."""


@pipeline("slice-translation")
class SliceTranslation(Pipeline):
    """Pipeline of the module."""

    def prepare(self, source: Volume, device: torch.device, options: SamplingOptions) -> SliceRun:
        """The image on the grid of the network, and the planes of the preset."""
        from MedGenLib.pipelines.slice_sampling import SliceRun

        preset = self.manifest.preset(options.preset)
        return SliceRun.of(source, self.manifest, device, preset, options.memory, options.uncertainty)

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Estimate for the whole grid of an image."""
        spacing = slice_spacing(geometry, self.manifest.spacing)
        voxels = math.prod(geometry.with_spacing(spacing).shape)
        cost = voxels * self._passes(preset, [spacing[axis] for axis in slice_axes(geometry, self.manifest)])
        batch, rest = self._memory(voxels)
        batch *= 0.5 if computes_in_bfloat16(device) else 1.0
        small = free_mib is not None and IDLE_MIB + batch + rest > 0.9 * free_mib
        return Estimate(cost, IDLE_MIB + rest + batch * (SMALL_SHARE if small else 1.0), small=small)

    def measured_cost(self, run: Performance) -> float:
        """Cost of a run in all planes of its preset."""
        return math.prod(run.size) * self._passes(run.preset, [self.manifest.spacing.native] * 3)

    def _passes(self, preset: str, spacing: Sequence[float]) -> float:
        """Number of translations per voxel, for the distances of the slices; sagittal ones are not mirrored."""
        chosen = self.manifest.preset(preset)
        planes = spacing[: chosen.planes]
        once = sum(1 / chosen.step(distance) if len(planes) > 1 else 1.0 for distance in planes)
        return once * (1 + (min(len(planes), 2) / len(planes) if chosen.mirror else 0))

    def _memory(self, voxels: int) -> tuple[float, float]:
        """MiB of the network and of the rest, above an idle process."""
        runs = card_runs(self.manifest)
        if not runs:
            return BATCH_MIB, voxels * BYTES_PER_VOXEL / 2**20
        # The largest run predicts large ones best.
        run = max(runs, key=lambda r: (math.prod(r.size), r.peak_mib))
        above = max(0.0, run.peak_mib - IDLE_MIB)
        batch = min(BATCH_MIB, above)
        return batch, (above - batch) / math.prod(run.size) * voxels
