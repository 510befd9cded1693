"""A mask on the grid that NV-Generate's networks work on, and the way back. No torch."""

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
"""Index of the region that nearly every training scan shows."""


@dataclass
class MaisiScene:
    """What is generated, on a legal grid.

    Attributes
    ----------
    original: the mask as given, in the model's labels; None for packages that take no mask.
    geometry: the input's grid, where the result has to lie.
    grid: how the legal grid lies on it.
    labels: (x, y, z) uint8 in RAS on the legal grid, None without a mask. Planes beyond the first
        and the last one repeat these, as a scan goes on; beyond its sides lies air.
    regions: topmost and lowest body region (`vocabulary.REGIONS`) of the labels, or None.
    conditions: for the report.
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
    """What is generated, by its name in the package; None where it makes one thing only."""

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
        """Whether the networks work on the input's voxels, without resampling."""
        return self.grid.own

    def finish(self, values: NDArray[np.floating]) -> Volume:
        """Network values (0 to 1) on the legal grid -> intensities on the input's grid.

        Values are cut to the range of the output; outside of the labels, and of what the legal
        grid covers, lies the background.
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
        """Window borders in latent voxels as planes of the input's grid, where both agree."""
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

    Raises
    ------
    InputError: an empty mask, a line or a point, or no legal grid that holds the labels.
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
    """The same for a package without a mask: the grid that an image is wanted on.

    Raises
    ------
    InputError: a line or a point, or no legal grid that holds it.
    """
    grid = find_grid(geometry, manifest, None, any_grid)
    return MaisiScene(manifest, None, geometry, grid, None, None, _conditions(grid), list(grid.findings))


def _padded(array: NDArray[np.uint8], grid: LegalGrid) -> NDArray[np.uint8]:
    """(RAS) labels on the legal grid: planes go on along the body, air lies at its sides."""
    margins = [(b, n - i - b) for b, n, i in zip(grid.before, grid.shape, grid.inner, strict=True)]
    onward = [axis == 2 or n == 1 for axis, n in enumerate(grid.inner)]
    none = (0, 0)
    array = np.pad(array, [m if on else none for m, on in zip(margins, onward, strict=True)], mode="edge")
    return np.pad(array, [none if on else m for m, on in zip(margins, onward, strict=True)])


def _conditions(grid: LegalGrid) -> dict[str, Any]:
    return {"legal_shape": grid.shape, "legal_spacing_mm": [round(s, 4) for s in grid.spacing]}


def _on_region(shown: tuple[int, int] | None, manifest: Manifest) -> list[Finding]:
    """A word where the mask shows what hardly any training scan did."""
    if shown is not None and shown[0] <= _THORAX <= shown[1]:
        return []
    if shown is None:
        what = "no organ that tells which part of the body it is"
    else:
        names = [name for name, _ in REGIONS[shown[0] : shown[1] + 1]]
        what = f"only {' and '.join(names)}"
    return [
        Finding(
            "warning",
            "rare-region",
            f"99 of 100 scans that the model '{manifest.name}' was trained on show the lungs, and this "
            f"mask shows {what}; look at the result with more care.",
        )
    ]
