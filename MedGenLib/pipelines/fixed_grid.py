"""The one grid of a model without a mask: images on it, and network values as images. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.modality import modality_family
from MedGenLib.imaging.normalization import bright_end
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Geometry, Volume, whole_numbers
from MedGenLib.pipelines.working_grid import SAME_SPACING

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


def centered_geometry(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Geometry:
    """A grid along RAS, with the origin in its center."""
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for n, s in zip(shape, spacing, strict=True)]
    return Geometry(tuple(int(n) for n in shape), affine)


@dataclass(frozen=True)
class FixedGrid:
    """Grid along RAS and scale of the values: a network value is (intensity - center) / scale.

    Intensities are HU of a CT; those of MR, whose scale is arbitrary, are relative to its bright end, which is 1000.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    center: float
    scale: float
    modality: str
    unit: str
    range: tuple[float, float]
    background: float

    @classmethod
    def of(cls, manifest: Manifest) -> FixedGrid:
        settings, output = manifest.settings, manifest.output
        return cls(
            settings.grid,
            manifest.spacing.native,
            settings.center,
            settings.scale,
            output.modality,
            output.unit,
            output.range,
            output.background,
        )

    @property
    def geometry(self) -> Geometry:
        return centered_geometry(self.shape, (self.spacing_mm,) * 3)

    def encoded(self, image: Volume, bright: float | None = None) -> NDArray[np.float32]:
        """The middle of an image on this grid in network values; beyond the image is the background.

        ``bright`` is the bright end of an MR image, by default its own.
        """
        spacing = (self.spacing_mm,) * 3
        if not np.allclose(image.spacing, spacing, rtol=SAME_SPACING, atol=0):
            image = resample(image, spacing)
        values = Reorientation.to(image.geometry, "RAS").apply(image.array).astype(np.float32)
        if modality_family(self.modality) == "MR":
            values = 1000 * values / (bright or bright_end(values))
        values = np.clip(fitted(values, self.shape, self.background), *self.range)
        return (values - self.center) / self.scale

    def decoded(self, values: NDArray[Any]) -> Volume:
        """Network values as an image."""
        array = whole_numbers(np.clip(values * self.scale + self.center, *self.range))
        return Volume(array, self.geometry.affine, self.modality, self.unit)


def fitted(values: NDArray[Any], shape: tuple[int, ...], fill: float) -> NDArray[Any]:
    """The middle of an array, cropped and padded to a shape."""
    for axis, (have, n) in enumerate(zip(values.shape, shape, strict=True)):
        start = max(0, have - n) // 2
        values = values[(slice(None),) * axis + (slice(start, start + min(have, n)),)]
    lacking = [n - have for have, n in zip(values.shape, shape, strict=True)]
    return np.pad(values, [(n // 2, n - n // 2) for n in lacking], constant_values=fill)
