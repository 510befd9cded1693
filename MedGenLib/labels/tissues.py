"""Tissue labels of an image by thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from MedGenLib.labels.vocabulary import Label

SOFT_TISSUE = "soft tissue"


class Thresholds(Protocol):
    """One label more than thresholds, in rising order, after a median filter of so many voxels."""

    thresholds: Sequence[float]
    labels: Sequence[int]
    median: int


def resegment(image: NDArray, spec: Thresholds) -> NDArray[np.int16]:
    """Tissue labels by thresholds after a median filter."""
    from scipy import ndimage

    size = [spec.median if length > 1 else 1 for length in image.shape]
    if max(size) > 1:
        image = ndimage.median_filter(image, size)
    return np.asarray(spec.labels, np.int16)[np.digitize(image, spec.thresholds)]


def soft_tissue(labels: Mapping[int, Label]) -> int | None:
    """Number of the label in which the noise of a CT is measured; None for a model without it."""
    return next((value for value, label in labels.items() if label.name == SOFT_TISSUE), None)
