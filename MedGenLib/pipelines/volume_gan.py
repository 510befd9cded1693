"""The pipeline of generators that make whole volumes of one grid from noise, as trained by `medgen train --recipe gan`.

noise and class -> generator -> intensities -> wanted grid
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.pipelines.base import Estimate, Pipeline, SamplingOptions, pipeline
from MedGenLib.pipelines.fixed_grid import FixedGrid
from MedGenLib.pipelines.measured import IDLE_MIB
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from MedGenLib.findings import Finding
    from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
    from MedGenLib.packages.manifest import Manifest, Performance

MAPS = 6
"""Arrays of the finest level that are in memory at once: input, two inner ones of twice its channels, output."""
LACKING = ("sampler", "steps", "noise_hu", "guidance", "modality")


@pipeline("volume-gan")
class VolumeGan(Pipeline):
    """Pipeline of the module."""

    def prepare(self, source: LabelMap, device: torch.device, options: SamplingOptions) -> VolumeGanRun:
        """The generator, and the grid of the image."""
        from MedGenLib.pipelines.loading import network

        name = self.manifest.name
        given = [key for key in LACKING if getattr(options, key) is not None]
        given += [key for key in ("any_grid", "classifier_guidance") if getattr(options, key)]
        if given:
            raise InputError(f"The model '{name}' makes an image in one step from noise; leave {given[0]} out.")
        kind = class_number(self.manifest, options.label)
        generator = network(self.manifest, "generator", device)
        return VolumeGanRun(generator, FixedGrid.of(self.manifest), source.geometry, kind, options.label, device)

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Estimate for the grid of the model, whatever the wanted grid is."""
        voxels = math.prod(self.manifest.settings.grid)
        width = self.manifest.networks["generator"].arguments["widths"][-1]
        return Estimate(float(voxels), IDLE_MIB + 4 * MAPS * width * voxels / 2**20)

    def measured_cost(self, run: Performance) -> float:
        return float(math.prod(self.manifest.settings.grid))


def class_number(manifest: Manifest, label: str | None) -> int:
    """The number of a class; 0 for a model without classes. InputError for one that the model does not know."""
    classes = manifest.settings.classes or ()
    if not classes:
        if label is not None:
            raise InputError(f"The model '{manifest.name}' has no classes; leave the label out.")
        return 0
    if label not in classes:
        given = "makes images of several classes" if label is None else f"has no class '{label}'"
        raise InputError(f"The model '{manifest.name}' {given}; give {' or '.join(classes)} as label (--label).")
    return classes.index(label)


@dataclass
class VolumeGanRun:
    """A generator and the wanted grid."""

    generator: nn.Module
    grid: FixedGrid
    geometry: Geometry
    kind: int
    label: str | None
    device: torch.device
    sampler: None = None
    steps: None = None
    findings: list[Finding] = field(default_factory=list)
    seams: list[tuple[int, int]] = field(default_factory=list)

    @property
    def own_grid(self) -> bool:
        return self.geometry.is_close(self.grid.geometry)

    @property
    def parameters(self) -> dict[str, Any]:
        given = {} if self.label is None else {"label": self.label}
        shape = {"working_spacing_mm": self.grid.spacing_mm, "working_shape": self.grid.shape}
        return {**shape, **given, "memory": "normal", "network": "generator", "precision": "float32"}

    def drawn(self, seed: int) -> dict[str, float]:
        return {}

    def sample(self, seed: int, progress: ProgressCallback | None = None) -> Tensor:
        """The network values of the seed."""
        import torch

        stage = Stage("sampling", 1, progress)
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, self.generator.latent, generator=draw).to(self.device)
        with torch.inference_mode():
            made = self.generator(noise, torch.tensor([self.kind], device=self.device), draw)
        stage.advance()
        return made[0, 0]

    def decode(self, sampled: Tensor, progress: ProgressCallback | None = None) -> NDArray:
        return sampled.float().cpu().numpy()

    def finish(self, values: NDArray) -> Volume:
        """The image on the wanted grid, which is the background beyond that of the model."""
        image = self.grid.decoded(values)
        return image if self.own_grid else resample_to(image, self.geometry, fill=self.grid.background)
