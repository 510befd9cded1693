"""The pipeline protocol: how packages of one kind generate an image, and its time and memory.

    prepare -> sample -> decode -> finish

A pipeline prepares a run on an input, and the run generates images. A class with the members of `Pipeline` is
registered with ``@pipeline("name")`` for packages with this name; their settings class is registered likewise
(`MedGenLib.packages.settings`). The modules of pipelines import torch only when they prepare a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from MedGenLib.registry import Registry

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from MedGenLib.findings import Finding
    from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
    from MedGenLib.packages.manifest import Manifest, Performance
    from MedGenLib.progress import ProgressCallback


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Options of a run that pipelines read; None stands for the package's value."""

    preset: str = "normal"
    sampler: str | None = None
    steps: int | None = None
    memory: str = "auto"
    any_grid: bool = False
    modality: str | None = None
    label: str | None = None
    noise_hu: float | None = None
    guidance: float | None = None
    classifier_guidance: float = 0.0
    uncertainty: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingOptions:
        """The subset of the options that pipelines read."""
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})


@dataclass(frozen=True)
class Estimate:
    """Estimated cost and memory of a run.

    Attributes
    ----------
    cost: quantity proportional to the time.
    memory_mib: peak memory, of the process or of a GPU.
    windows: number of windows in which the grid is sampled.
    small: the small memory plan is required.
    """

    cost: float
    memory_mib: float
    windows: int = 1
    small: bool = False


class PreparedRun(Protocol):
    """A prepared run on one input.

    Attributes
    ----------
    sampler, steps: None if not applicable.
    findings: findings of the preparation.
    parameters: parameters for the report.
    own_grid: the networks work on the voxels of the input, without resampling.
    seams: borders of windows as (axis, plane) of the input's grid.
    """

    sampler: str | None
    steps: int | None
    findings: list[Finding]
    parameters: dict[str, Any]
    own_grid: bool
    seams: list[tuple[int, int]]

    def sample(self, seed: int, progress: ProgressCallback | None = None) -> Any:
        """Run the networks; returns their output, such as a latent."""

    def drawn(self, seed: int) -> dict[str, float]:
        """Conditions drawn for the sample of a seed, by name; empty for most packages."""

    def decode(self, sampled: Any, progress: ProgressCallback | None = None) -> NDArray:
        """Decode to network values on the working grid."""

    def finish(self, values: NDArray) -> Volume:
        """The image on the grid of the input."""


class TranslationRun(PreparedRun, Protocol):
    """A prepared run that translates an image."""

    def uncertainty(self, sampled: Any) -> Volume | None:
        """Standard deviation of the views of each voxel; None unless requested."""


class Pipeline(Protocol):
    """How packages of one kind generate an image.

    Attributes
    ----------
    editable: whether a region of an image can be sampled separately.
    """

    editable: ClassVar[bool] = False

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def prepare(self, source: LabelMap | Volume, device: torch.device, options: SamplingOptions) -> PreparedRun:
        """Bring the input onto the working grid and load the networks.

        Raises
        ------
        InputError: an option that packages of this kind lack, or a value out of range.
        MemoryPlanError: insufficient memory.
        """

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Cost and memory of a run on an input's grid; `free_mib` None assumes sufficient memory."""

    def measured_cost(self, run: Performance) -> float:
        """Cost of a run in the model card, in the unit of `Estimate.cost`."""


PIPELINES: Registry[type[Pipeline]] = Registry("pipeline", "pipeline", "MedGenLib.pipelines")
pipeline = PIPELINES.register


def pipeline_of(manifest: Manifest) -> Pipeline:
    """The pipeline of a package; raises InputError if its name is not registered."""
    return PIPELINES[manifest.pipeline](manifest)


def is_editable(manifest: Manifest) -> bool:
    """Whether a region of an image can be sampled separately with this package."""
    return manifest.pipeline in PIPELINES and PIPELINES[manifest.pipeline].editable
