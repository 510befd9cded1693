"""A mask on the working grid of NV-Generate's networks, and the inverse mapping. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, crop, occupied, whole_numbers
from MedGenLib.packages.hub.nv_generate_labels import REGIONS, regions
from MedGenLib.pipelines.maisi.legal import LegalGrid, find_grid

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest

_THORAX = 1
"""Index of the region in nearly all training scans."""


@dataclass
class MaisiScene:
    """A mask, or a grid alone, on a legal grid.

    Attributes
    ----------
    original: the mask as given, in the model's labels; None for packages without a mask.
    geometry: the input's grid, which is that of the result.
    grid: position of the legal grid on it.
    labels: (x, y, z) uint8 in RAS on the legal grid, None without a mask. Padding along z repeats the first and last
        plane; padding along x and y is air.
    regions: topmost and lowest body region (`vocabulary.REGIONS`) of the labels, or None.
    conditions: conditions for the report.
    """

    manifest: Manifest
    original: LabelMap | None
    geometry: Geometry
    grid: LegalGrid
    labels: NDArray[np.uint8] | None
    regions: tuple[int, int] | None
    conditions: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    modality: str | None = None
    """Name of the generated modality in the package; None if there is only one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the legal grid in RAS."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm along the RAS axes of the legal grid."""
        return self.grid.spacing

    @property
    def own_grid(self) -> bool:
        """Whether the networks use the input's voxels, without resampling."""
        return self.grid.own

    def finish(self, values: NDArray[np.floating]) -> Volume:
        """Network values (0 to 1) on the legal grid -> intensities on the input's grid.

        Values are clipped to the output's range; voxels outside the labels or outside the legal grid get the
        background.
        """
        output, grid = self.manifest.output, self.grid
        if values.shape != grid.shape:
            raise ValueError(f"values have the shape {values.shape}, the legal grid {grid.shape}")
        part = Volume(grid.reorientation.undo(values[grid.inside]), grid.work.affine)
        part = resample_to(part, grid.region, fill=0.0)
        low, high = self.manifest.settings.intensity
        found = whole_numbers(np.clip(low + part.array * (high - low), *output.range))
        box = tuple(slice(a, b) for a, b in zip(grid.start, grid.stop, strict=True))
        if self.original is not None:
            found[self.original.array[box] == 0] = output.background
        array = np.full(self.geometry.shape, output.background, found.dtype)
        array[box] = found
        # "T1w skull-stripped" is a T1w image.
        modality = output.modality if self.modality is None else self.modality.split()[0]
        return Volume(array, self.geometry.affine, modality, output.unit)

    def seams(self, borders: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Window borders in latent voxels as planes of the input's grid, where they coincide."""
        if not self.own_grid:
            return []
        planes = []
        for axis, latent_index in borders:
            index = self.manifest.settings.latent_stride * latent_index - self.grid.before[axis]
            if axis in self.grid.reorientation.flips:
                index = self.grid.inner[axis] - index
            stored = self.grid.reorientation.order[axis]
            if 0 < index < self.grid.region.shape[stored]:
                planes.append((stored, int(index + self.grid.start[stored])))
        return planes


def prepare(labels: LabelMap, manifest: Manifest, *, any_grid: bool = False) -> MaisiScene:
    """Put a mask in the model's labels on a legal grid by padding and cropping.

    Raises InputError for an empty mask, a line or a point, or no legal grid that holds the labels.
    """
    box = occupied(labels.array)
    if box is None:
        raise InputError("The mask is empty: all voxels are 0; draw or load labels.")
    grid = find_grid(labels.geometry, manifest, box, any_grid)
    region = resample_to(crop(labels, grid.start, grid.stop), grid.work)
    array = _padded(grid.reorientation.apply(region.array.astype(np.uint8)), grid)
    shown = regions(labels.values())
    findings = [*grid.findings, *_on_region(shown, manifest)]
    return MaisiScene(manifest, labels, labels.geometry, grid, array, shown, _conditions(grid), findings)


def prepare_grid(geometry: Geometry, manifest: Manifest, *, any_grid: bool = False) -> MaisiScene:
    """As `prepare`, for a package without a mask: the grid of the image.

    Raises InputError for a line or a point, or no legal grid that contains it.
    """
    grid = find_grid(geometry, manifest, None, any_grid)
    return MaisiScene(manifest, None, geometry, grid, None, None, _conditions(grid), list(grid.findings))


def _padded(array: NDArray[np.uint8], grid: LegalGrid) -> NDArray[np.uint8]:
    """(RAS) labels on the legal grid, padded with repeated planes along the body and air at its sides."""
    margins = [(b, n - i - b) for b, n, i in zip(grid.before, grid.shape, grid.inner, strict=True)]
    onward = [axis == 2 or n == 1 for axis, n in enumerate(grid.inner)]
    none = (0, 0)
    array = np.pad(array, [m if on else none for m, on in zip(margins, onward, strict=True)], mode="edge")
    return np.pad(array, [none if on else m for m, on in zip(margins, onward, strict=True)])


def _conditions(grid: LegalGrid) -> dict[str, Any]:
    return {"legal_shape": grid.shape, "legal_spacing_mm": [round(s, 4) for s in grid.spacing]}


def _on_region(shown: tuple[int, int] | None, manifest: Manifest) -> list[Finding]:
    """A finding if the mask shows a part of the body that is rare in training."""
    if shown is not None and shown[0] <= _THORAX <= shown[1]:
        return []
    if shown is None:
        what = "no organ that identifies the part of the body"
    else:
        names = [name for name, _ in REGIONS[shown[0] : shown[1] + 1]]
        what = f"only {' and '.join(names)}"
    return [
        Finding(
            "warning",
            "rare-region",
            f"99 of 100 scans that the model '{manifest.name}' was trained on show the lungs, and this "
            f"mask shows {what}; check the result with more care.",
        )
    ]
