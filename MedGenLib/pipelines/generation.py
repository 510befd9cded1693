"""Common part of the runs of all generating pipelines. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from MedGenLib.findings import Finding
    from MedGenLib.imaging.volume import Volume
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.packages.settings import GenerationSettings
    from MedGenLib.pipelines.windows import Windows


class GridScene(Protocol):
    """An input on the working grid of a package, and the inverse mapping.

    Attributes
    ----------
    spacing: mm along the axes of the working grid.
    shape: voxels of the working grid.
    own_grid: whether the working grid has the voxels of the input.
    conditions: conditions of the networks, for the report.
    """

    manifest: Manifest
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    own_grid: bool
    conditions: dict[str, Any]
    findings: list[Finding]

    def finish(self, values: NDArray) -> Volume:
        """Network values on the working grid as an image on the input's grid."""

    def seams(self, borders: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Window borders in latent voxels as planes of the input's grid, where they coincide."""


class GenerationRun:
    """The part of a run that is independent of its networks.

    Attributes
    ----------
    windows: windows of the latent grid for sampling.
    small: the small memory plan is used.
    number_format: number format of the networks' computations.
    role: role of the sampled network.
    """

    scene: GridScene
    windows: Windows
    small: bool
    number_format: str
    role: str
    guidance: float
    classifier_guidance: float

    @property
    def settings(self) -> GenerationSettings:
        return self.scene.manifest.settings

    @property
    def findings(self) -> list[Finding]:
        return self.scene.findings

    @property
    def own_grid(self) -> bool:
        return self.scene.own_grid

    @property
    def seams(self) -> list[tuple[int, int]]:
        return self.scene.seams(self.windows.borders)

    @property
    def window_count(self) -> int:
        return len(list(self.windows))

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "working_spacing_mm": self.scene.spacing,
            "working_shape": self.scene.shape,
            **self.scene.conditions,
            "memory": "small" if self.small else "normal",
            "network": self.role,
            "guidance": self.guidance,
            "classifier_guidance": self.classifier_guidance,
            "windows": self.window_count,
            "precision": self.number_format,
        }

    def drawn(self, seed: int) -> dict[str, float]:
        """Conditions drawn for the sample of a seed, by name."""
        return {}

    def finish(self, values: NDArray) -> Volume:
        """Network values as an image on the grid of the input."""
        return self.scene.finish(values)
