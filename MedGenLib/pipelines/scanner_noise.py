"""Noise of a generated image: that of the user, or the usual one of real scans with voxels like those of the mask.

Noise is that of `imaging.noise`, in the unit of the image. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.options import LEAST_NOISE_HU, MOST_NOISE_HU
from MedGenLib.pipelines.working_grid import working_geometry

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Geometry
    from MedGenLib.packages.manifest import Manifest


@dataclass(frozen=True)
class ScannerNoise:
    """Noise of an image.

    Attributes
    ----------
    level: on the grid of the mask.
    condition: of the network, on the working grid.
    spacing: of the working grid, the geometric mean of its axes in mm.
    reason: why it is the usual one, such as "10 HU, usual at 2 mm"; "" where it was given or differs between seeds.
    """

    level: float
    condition: float
    spacing: float
    reason: str = ""


def scanner_noise(
    manifest: Manifest, spacing: Sequence[float], resampled: bool, given: float | None = None
) -> ScannerNoise | None:
    """Noise of the image of a mask; None for a model without a noise setting.

    Parameters
    ----------
    spacing: of the working grid.
    resampled: whether the working grid has other voxels than the mask. Resampling the image back averages its noise.
    given: noise that was chosen or measured in an image.

    Raises
    ------
    InputError: a noise for a model without the setting, or out of range.
    """
    settings, unit = manifest.settings, manifest.output.unit
    if not settings.takes_noise:
        if given is not None:
            raise InputError("This model has no noise setting; leave noise_hu out.")
        return None
    mean = float(np.exp(np.mean(np.log(spacing))))
    other = settings.resampled_noise if resampled else None
    level, reason = given, ""
    if given is None and other is not None:
        level, limits = other.noise_hu, manifest.spacing
        reason = f"usual for voxels other than cubes of {limits.min:g} to {limits.max:g} mm"
    elif given is None:
        level = float(np.interp(mean, *zip(*settings.noise_hu, strict=True)))
        reason = "" if settings.contrast is not None else f"usual at {mean:.3g} mm"
    if not LEAST_NOISE_HU <= level <= MOST_NOISE_HU:
        raise InputError(f"The noise is {level:g} {unit}; choose {LEAST_NOISE_HU} to {MOST_NOISE_HU} {unit}.")
    condition = level if other is None else min(level / other.kept, MOST_NOISE_HU)
    return ScannerNoise(level, condition, mean, reason and f"{level:.3g} {unit}, {reason}")


def usual_noise(manifest: Manifest, geometry: Geometry) -> str:
    """The noise of an image on a grid, in words; "" where it differs between seeds or the model has none."""
    grid = working_geometry(geometry, manifest)
    thick = [s for s, n in zip(grid.spacing, grid.shape, strict=True) if n > 1]
    found = scanner_noise(manifest, thick, grid is not geometry)
    return "" if found is None else found.reason
