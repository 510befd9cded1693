"""What a pipeline is: how packages of one kind make an image, how long that takes and how much memory it needs.

    prepare -> sample -> decode -> finish

A pipeline prepares a run on an input, and the run makes images. A class with the members of `Pipeline` is registered
for the packages that name it by ``@pipeline("name")``; their settings class is registered in the same way
(`MedGenLib.packages.settings`). The modules of pipelines are light: they import torch only to prepare a run.
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
    """The options of a run that a pipeline reads, as the user set them; None is the package's own value."""

    preset: str = "normal"
    sampler: str | None = None
    steps: int | None = None
    memory: str = "auto"
    any_grid: bool = False
    modality: str | None = None
    noise_hu: float | None = None
    guidance: float | None = None
    classifier_guidance: float = 0.0
    uncertainty: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingOptions:
        """Those of the options that a pipeline reads."""
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})


@dataclass(frozen=True)
class Estimate:
    """What to expect of a run.

    Attributes
    ----------
    cost: what its time is proportional to.
    memory_mib: peak memory, of the process or of a GPU.
    windows: pieces in which the grid is sampled.
    small: the plan for little memory has to be taken.
    """

    cost: float
    memory_mib: float
    windows: int = 1
    small: bool = False


class Run(Protocol):
    """A prepared run on one input.

    Attributes
    ----------
    sampler, steps: None for pipelines without.
    findings: what the user should know of the preparation.
    parameters: for the report.
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
        """What the networks make, such as a latent."""

    def decode(self, sampled: Any, progress: ProgressCallback | None = None) -> NDArray:
        """Network values on the working grid."""

    def finish(self, values: NDArray) -> Volume:
        """The image on the grid of the input."""


class TranslationRun(Run, Protocol):
    """A prepared run that translates an image."""

    def uncertainty(self, sampled: Any) -> Volume | None:
        """How much the views of each voxel differ; None unless the options ask for it."""


class Pipeline(Protocol):
    """How packages of one kind make an image.

    Attributes
    ----------
    editable: a region of an image can be sampled on its own.
    """

    editable: ClassVar[bool]

    def __init__(self, manifest: Manifest) -> None: ...

    def prepare(self, source: LabelMap | Volume, device: torch.device, options: SamplingOptions) -> Run:
        """Bring the input onto the working grid and load the networks.

        Raises
        ------
        InputError: an option that packages of this kind do not take, or that is out of range.
        MemoryPlanError: the memory is not enough.
        """

    def estimate(self, geometry: Geometry, preset: str, device: str = "cpu", free_mib: float | None = None) -> Estimate:
        """Cost and memory of a run on an input's grid; `free_mib` None assumes that the memory is enough."""

    def measured_cost(self, run: Performance) -> float:
        """Cost of a run of the model card, in the unit of `Estimate.cost`."""


PIPELINES: Registry[type[Pipeline]] = Registry("pipeline", "pipeline", "MedGenLib.pipelines")
pipeline = PIPELINES.register


def pipeline_of(manifest: Manifest) -> Pipeline:
    """The pipeline of a package; InputError where none is registered under the name that the package gives."""
    return PIPELINES[manifest.pipeline](manifest)


def is_editable(manifest: Manifest) -> bool:
    """Whether a region of an image can be sampled on its own with this package."""
    return manifest.pipeline in PIPELINES and PIPELINES[manifest.pipeline].editable
