"""Tissue labels of an image by thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from MedGenLib.packages.sections import Resegment


def resegment(image: NDArray, spec: Resegment) -> NDArray[np.int16]:
    """Tissue labels by thresholds after a median filter."""
    from scipy import ndimage

    size = [spec.median if length > 1 else 1 for length in image.shape]
    if max(size) > 1:
        image = ndimage.median_filter(image, size)
    return np.asarray(spec.labels, np.int16)[np.digitize(image, spec.thresholds)]
