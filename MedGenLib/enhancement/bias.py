"""Brightness of MR images that varies with the distance from the coils."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.volume import Volume
from MedGenLib.progress import ProgressCallback, Stage

COARSE_MM = 4.0
"""Voxel size at which the field is estimated; it is smoother than that."""
LEVELS = (50, 50, 30, 20)


def field_of(volume: Volume, progress: ProgressCallback | None = None) -> NDArray[np.float32]:
    """The field (i, j, k) by which an image has to be divided; its mean in the foreground is 1.

    N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908) of SimpleITK, at a coarse resolution, in the foreground by
    Otsu's threshold; a single slice has a field in its plane.
    """
    import SimpleITK

    stage = Stage("estimating brightness", 2, progress)
    sides = [(n, s) for n, s in zip(volume.shape, volume.spacing, strict=True) if n > 1]
    image = SimpleITK.GetImageFromArray(np.squeeze(volume.array).T.astype(np.float32))
    image.SetSpacing([s for _, s in sides])
    image = SimpleITK.Clamp(image, lowerBound=1e-3)
    shrink = [max(1, min(n // 8, round(COARSE_MM / s))) for n, s in sides]
    coarse = SimpleITK.Shrink(image, shrink)
    inside = SimpleITK.OtsuThreshold(coarse, 0, 1)
    method = SimpleITK.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(list(LEVELS))
    method.Execute(coarse, inside)
    stage.advance()
    logarithm = SimpleITK.GetArrayFromImage(method.GetLogBiasFieldAsImage(image)).T.reshape(volume.shape)
    foreground = volume.array > np.percentile(volume.array, 50)
    mean = float(logarithm[foreground].mean()) if foreground.any() else 0.0
    stage.advance()
    return np.exp(logarithm - mean).astype(np.float32)
