"""Scale of the values of an image for the network that restores it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from MedGenLib.packages.settings import RestorationSettings

BRIGHT = 99.9
"""Percentile that is taken for the largest value."""
FOREGROUND = 0.1
"""Values above this share of it are the foreground."""


def unit_of(values: NDArray, settings: RestorationSettings) -> float:
    """Intensity of one network unit of an image of any shape.

    "hounsfield" has a fixed one; "relative" takes the median of the foreground, so that the unit of an MR image has no
    meaning. The scale divides either.
    """
    if settings.name == "hounsfield":
        return settings.scale
    foreground = values[values > FOREGROUND * np.percentile(values, BRIGHT)]
    level = float(np.median(foreground)) if foreground.size else 1.0
    return max(level, 1e-6) * settings.scale
