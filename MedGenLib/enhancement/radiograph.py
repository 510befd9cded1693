"""Noise of pictures and radiographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedGenLib.progress import ProgressCallback, Stage

ROWS = 512
PATCH, REACH = 5, 6
"""Pixels of a patch, and how far like patches are looked for."""
SHARE = 0.8
"""Strength of the filter relative to the noise, the usual one for this method."""


def quieter(values: NDArray, noise: float, progress: ProgressCallback | None) -> NDArray[np.float32]:
    """A single slice (i, j, k) with less noise of a standard deviation in its unit, strip by strip.

    Non-local means (Buades et al. 2005, doi:10.1109/CVPR.2005.38) of scikit-image, which shows nothing that the picture
    does not show elsewhere nearby.
    """
    from skimage.restoration import denoise_nl_means

    picture = np.squeeze(values).astype(np.float32)
    starts, halo = range(0, len(picture), ROWS), REACH + PATCH
    stage, parts = Stage("removing noise", len(starts), progress), []
    for start in starts:
        first = max(0, start - halo)
        strip = picture[first : start + ROWS + halo]
        made = denoise_nl_means(strip, PATCH, REACH, h=SHARE * noise, sigma=noise)
        parts.append(made[start - first :][:ROWS])
        stage.advance()
    return np.concatenate(parts).reshape(values.shape).astype(np.float32)
