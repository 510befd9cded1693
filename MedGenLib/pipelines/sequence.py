"""The pipeline of series over time, as trained by `medgen train --recipe sequence`.

image -> network's grid -> displacement and residual of each frame -> frames on the grid of the image

The voxels of the image are moved, as the displacement is interpolated to its grid; the residual, which is coarse, is
added to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import modality_family
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Geometry, Volume, as_stored, to_sitk
from MedGenLib.io.system import plan_memory
from MedGenLib.pipelines.base import Estimate, Pipeline, SamplingOptions, pipeline
from MedGenLib.pipelines.fixed_grid import FixedGrid
from MedGenLib.pipelines.measured import IDLE_MIB
from MedGenLib.pipelines.working_grid import SAME_SPACING
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    import torch
    from torch import nn

    from MedGenLib.findings import Finding
    from MedGenLib.packages.manifest import Manifest, Performance

BYTES_PER_VOXEL = 40
"""Beside the frames: image, its spline coefficients and the interpolated fields."""


@pipeline("sequence")
class SequencePipeline(Pipeline):
    """Pipeline of the module."""

    def prepare(self, source: Volume, device: torch.device, options: SamplingOptions) -> SequenceRun:
        """The network, and the grid of the whole image at its spacing.

        Raises
        ------
        InputError: uncertainty is wanted. MemoryPlanError: insufficient memory.
        """
        from MedGenLib.pipelines.loading import network

        if options.uncertainty:
            raise InputError(f"The model '{self.manifest.name}' gives no uncertainty; leave it out.")
        voxels, count = source.array.size, self.manifest.settings.frames
        plan_memory(voxels * (4 * count + BYTES_PER_VOXEL), "The series")
        return SequenceRun(as_stored(source), self.manifest, network(self.manifest, "sequence", device), device)

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Estimate for the grid of an image."""
        voxels, count = math.prod(geometry.shape), self.manifest.settings.frames
        return Estimate(float(voxels * count), IDLE_MIB + voxels * (4 * count + BYTES_PER_VOXEL) / 2**20)

    def measured_cost(self, run: Performance) -> float:
        return float(math.prod(run.size) * self.manifest.settings.frames)


@dataclass
class SequenceRun:
    """A network and the image that becomes the first frame.

    Attributes
    ----------
    least_jacobian: smallest change of volume by the motion, 1 being none; below 0 tissue folds. Known after `sample`.
    """

    source: Volume
    manifest: Manifest
    net: nn.Module
    device: torch.device
    least_jacobian: float = 1.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Any]:
        frames = [{"phase": 100 * n / self.manifest.settings.frames} for n in range(self.manifest.settings.frames)]
        shape = {"working_spacing_mm": self.manifest.spacing.native, "working_shape": self._grid.shape}
        return {**shape, "frames": frames, "memory": "normal", "network": "sequence"}

    @property
    def _grid(self) -> FixedGrid:
        """The grid of the network, along the axes R, A, S of the image, which it covers."""
        settings, output = self.manifest.settings, self.manifest.output
        step = 2 ** len(self.manifest.networks["sequence"].arguments["widths"])
        shape = tuple(-(-n // step) * step for n in self._order.axes(self._coarse.shape))
        values = (settings.center, settings.scale, output.modality, output.unit, output.range, output.background)
        return FixedGrid(shape, self.manifest.spacing.native, *values)

    @property
    def _order(self) -> Reorientation:
        return Reorientation.to(self.source.geometry, "RAS")

    @property
    def _coarse(self) -> Geometry:
        """The image's own grid at the spacing of the network."""
        own, spacing = self.source.geometry, (self.manifest.spacing.native,) * 3
        return own if np.allclose(own.spacing, spacing, rtol=SAME_SPACING, atol=0) else own.with_spacing(spacing)

    @property
    def _bright(self) -> float:
        return bright_end(self.source.array.astype(np.float32))

    def sample(self, seed: int, progress: ProgressCallback | None = None) -> NDArray[np.float32]:
        """(frames, 4, i, j, k): displacement in voxels along R, A, S of the network's grid, and residual."""
        import torch

        stage = Stage("predicting", 1, progress)
        values = torch.from_numpy(self._grid.encoded(self.source, self._bright))[None, None].to(self.device)
        with torch.inference_mode():
            displacement, residual = self.net(values)
        made = torch.cat([displacement[0], residual[0][:, None]], 1).cpu().numpy()
        self.least_jacobian = min(least_jacobian(frame[:3]) for frame in made)
        stage.advance()
        return made

    def decode(self, sampled: NDArray, progress: ProgressCallback | None = None) -> list[NDArray]:
        """The frames on the grid of the image; the first one is the image."""
        import SimpleITK

        geometry, image = self._placed(), to_sitk(self.source.with_array(self.source.array.astype(np.float32)))
        low, high = float(self.source.array.min()), float(self.source.array.max())
        unit, (floor, ceiling) = self.manifest.settings.scale, self.manifest.output.range
        if modality_family(self.manifest.output.modality) == "MR":  # in the unit of the image
            unit, floor, ceiling = unit * self._bright / 1000, low, math.inf
        kind = self.source.array.dtype
        frames, stage = [self.source.array], Stage("moving", len(sampled) - 1, progress)
        for made in sampled[1:]:
            vectors = np.einsum("ab,b...->...a", geometry.affine[:3, :3], made[:3]) * (-1, -1, 1)  # LPS mm
            motion = SimpleITK.GetImageFromArray(vectors.transpose(2, 1, 0, 3).astype(np.float64), isVector=True)
            residual = to_sitk(Volume(made[3], geometry.affine))
            motion.CopyInformation(residual)
            # Cubic: linear interpolation would blur the noise. Beyond the border it is the nearest voxel.
            moved = _sampled(image, image, SimpleITK.DisplacementFieldTransform(motion), SimpleITK.sitkBSpline)
            change = _sampled(residual, image, SimpleITK.Transform(3, SimpleITK.sitkIdentity), SimpleITK.sitkLinear)
            array = np.clip(moved.clip(low, high) + unit * change, min(floor, low), max(ceiling, high))
            if np.issubdtype(kind, np.integer):
                array = array.round().clip(np.iinfo(kind).min, np.iinfo(kind).max)
            frames.append(array.astype(kind))
            stage.advance()
        return frames

    def finish(self, values: list[NDArray]) -> list[Volume]:
        """The frames as images, with modality and unit of the model."""
        output = self.manifest.output
        return [self.source.with_array(array, modality=output.modality, unit=output.unit) for array in values]

    def _placed(self) -> Geometry:
        """The place of the network's grid in the patient."""
        order, affine = self._order, self._coarse.affine.copy()
        shape = order.axes(self._coarse.shape)
        affine[:3, :3] = affine[:3, list(order.order)]
        for axis in order.flips:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
        before = [-((n - have) // 2) for n, have in zip(self._grid.shape, shape, strict=True)]
        return Geometry(shape, affine).moved(before, self._grid.shape)


def _sampled(picture: Any, grid: Any, transform: Any, method: int) -> NDArray[np.float32]:
    """(i, j, k) of a picture on the grid of another one."""
    import SimpleITK

    found = SimpleITK.Resample(picture, grid, transform, method, 0.0, SimpleITK.sitkFloat32, True)
    return SimpleITK.GetArrayFromImage(found).transpose(2, 1, 0)


def least_jacobian(displacement: NDArray) -> float:
    """Smallest determinant of the Jacobian of places plus displacement (3, i, j, k) in voxels."""
    slopes = np.stack([np.stack(np.gradient(part), -1) for part in displacement], -2)
    return float(np.linalg.det(slopes + np.eye(3)).min())
