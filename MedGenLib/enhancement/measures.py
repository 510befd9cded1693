"""Figures of an enhancement: noise, and how well a result agrees with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.enhancement.fusion import StackFit

WINDOW = 1.5
"""Sigma in voxels of the windows of the local deviations."""
QUIET = 10
"""Percentile of the local deviations that counts: edges are in the others."""
OF_WHITE = {2: 0.713, 3: 0.876}
"""This percentile of white noise of standard deviation 1, by axes, measured on 512^2 and 64^3 voxels."""

BRIGHTNESS = "brightness, brightest to darkest"
"""Parameter of a report: ratio of the 99th to the first percentile of the field of a bias."""


def noise_of(values: NDArray) -> float:
    """Standard deviation of the noise of an image (i, j, k), in its unit; 0 without a foreground.

    A low percentile of the local deviations of the high-pass image in the foreground. Noise that is correlated between
    neighbors, as in CT, counts as far as it is finer than a voxel or two.
    """
    from scipy import ndimage

    values = np.squeeze(np.asarray(values, np.float32))
    fine = values - ndimage.gaussian_filter(values, 1.0)
    local = np.sqrt(np.maximum(ndimage.gaussian_filter(fine**2, WINDOW), 0))
    low, high = np.percentile(values, [1, 99.5])
    inside = ndimage.binary_erosion(values > low + 0.25 * (high - low), iterations=2)
    return float(np.percentile(local[inside], QUIET)) / OF_WHITE[values.ndim] if inside.any() else 0.0


def consistency(fine: NDArray, stacks: Sequence[NDArray], fits: Sequence[StackFit]) -> list[float]:
    """For each stack: root mean square difference of its slices from those of the result, as a share of its range.

    The range is that of 99 % of its values. Slices beside the grid of the result do not count.
    """
    shares = []
    for stack, fit in zip(stacks, fits, strict=True):
        i, j, k = (np.flatnonzero(axis.weights.any(1)) for axis in fit.axes)
        shares.append(share_of_range(*(part[np.ix_(i, j, k)] for part in (fit.slices(fine), stack)), stack))
    return shares


def share_of_range(made: NDArray, given: NDArray, whole: NDArray) -> float:
    """Root mean square difference of two images as a share of the range of 99 % of the values of a whole one."""
    low, high = np.percentile(whole, [0.5, 99.5])
    return float(np.sqrt(np.square(made - given).mean()) / max(high - low, 1e-6))


def in_words(facts: Mapping[str, Any], unit: str) -> str:
    """What was changed, from the parameters of a report, in one sentence."""
    if "ghosts" in facts:
        return _ghosts_in_words(facts)
    if (shares := facts.get("consistency")) is not None:
        shown = ", ".join(f"{share:.2%}" for share in shares)
        return f"The slices of the result differ from those of the input by {shown} of their range."
    if "removed" in facts:
        return (
            f"Noise {facts['noise']:.3g} {unit}; removed {facts['removed']:.3g} {unit} (SD), mean changed by "
            f"{facts['mean change']:.2g} {unit.rstrip('.')}."
        )
    return f"The brightness varied by a factor of {facts[BRIGHTNESS]:.3g}."


def _ghosts_in_words(facts: Mapping[str, Any]) -> str:
    if (found := facts["ghosts"]) is None:
        return "No ghosts were removed."
    return (
        f"Ghosts of {found['signal']:.1%} of the signal along the axis {found['direction']}, each "
        f"{found['shift_mm']:.4g} mm from the next, were removed; with them the result differs from the input by "
        f"{facts['consistency'][0]:.2%} of its range."
    )
