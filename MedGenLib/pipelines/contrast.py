"""Contrast of generated MR images, drawn from that of the training scans: the centers of the codec, and the shading.

A contrast is a vector: the level of each label of the settings relative to that of the reference label, the
logarithm (base 2) of the noise relative to that of the spacing, and, for models with a shading, its coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.imaging import shading

if TYPE_CHECKING:
    from MedGenLib.imaging.boxes import Box
    from MedGenLib.imaging.normalization import TissueStandard
    from MedGenLib.imaging.volume import Geometry, LabelMap
    from MedGenLib.labels.vocabulary import Label
    from MedGenLib.packages.settings import ContrastSettings, Distribution

FEWEST_VOXELS = 30
"""Voxels of a tissue below which it has no level."""
SOFT_SIGMA, SOFT_REACH = 0.8, 2
"""Standard deviation and radius in voxels of the blend of levels at the border of two tissues."""
MOST = 2.0
"""Largest difference from the mean, in standard deviations."""
LEAST_SD = 1e-4
"""Standard deviation up to which a measure is the same for all images."""


def levels(values: np.ndarray, labels: np.ndarray, wanted: Sequence[int], reference: int) -> np.ndarray:
    """Median of each wanted label relative to that of the reference; NaN for labels of few voxels."""
    parts = (values[labels == value] for value in (*wanted, reference))
    medians = [float(np.median(part)) if part.size >= FEWEST_VOXELS else float("nan") for part in parts]
    return np.array(medians[:-1]) / medians[-1]


def distribution(measures: np.ndarray) -> dict[str, Any]:
    """Distribution of the measures of images (n, entries), as in a package.

    A measure that an image lacks (NaN) is taken as the mean of the others.
    """
    known = np.isfinite(measures)
    means = np.where(known, measures, 0).sum(0) / np.maximum(known.sum(0), 1)
    differences = np.where(known, measures - means, 0)
    sds = np.sqrt((differences**2).sum(0) / max(len(measures) - 1, 1))
    sds = np.where(sds > LEAST_SD, sds, 1.0)
    scores = differences / sds
    correlation = scores.T @ scores / max(len(measures) - 1, 1)
    np.fill_diagonal(correlation, 1 + LEAST_SD)
    return {
        "means": np.round(means, 4).tolist(),
        "sds": np.round(sds, 4).tolist(),
        "factor": [np.round(row[: n + 1], 4).tolist() for n, row in enumerate(np.linalg.cholesky(correlation))],
    }


def drawn(settings: Distribution, seed: int) -> np.ndarray:
    """Measures from the normal distribution of the training scans, within `MOST`."""
    normal = np.random.default_rng([seed, len(settings.means)]).standard_normal(len(settings.means))
    z = np.array([np.dot(row, normal[: len(row)]) for row in settings.factor])
    return np.asarray(settings.means) + np.clip(z, -MOST, MOST) * np.asarray(settings.sds)


def standard_scores(settings: Distribution, measures: np.ndarray) -> np.ndarray:
    """Measures as differences from the mean in standard deviations, within `MOST`; unknown ones (NaN) become 0."""
    scores = (np.asarray(measures) - settings.means) / settings.sds
    return np.clip(np.nan_to_num(scores), -MOST, MOST)


def adapted(codec: TissueStandard, settings: ContrastSettings, contrast: np.ndarray) -> TissueStandard:
    """The codec with the levels of a contrast as centers; an unknown level (NaN) keeps its center."""
    centers = list(codec.centers)
    for value, level in zip(settings.labels, contrast, strict=False):
        if np.isfinite(level):
            centers[value] = float(level * codec.centers[settings.reference])
    return replace(codec, centers=tuple(centers))


def softened_shift(known: TissueStandard, levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Softened minus sharp change from the levels of a codec to other ``levels``, (i, j, k) of the voxels.

    The network blends tissues at their borders by the levels that it knows; other levels, which jump at the border,
    would leave a rim.
    """
    from scipy import ndimage

    shift = (levels - np.array(known.centers)[labels]).astype(np.float32)
    return ndimage.gaussian_filter(shift, SOFT_SIGMA, radius=SOFT_REACH) - shift


@dataclass(frozen=True)
class ShadedLevels:
    """What a shading adds to the levels of tissues in an image: the noise of a scanner has none.

    Attributes
    ----------
    levels: of each label, without the shading.
    grid: of the image.
    """

    shading: shading.Shading
    levels: tuple[float, ...]
    grid: Geometry

    def applied(self, values: np.ndarray, labels: np.ndarray, box: Box) -> np.ndarray:
        """Values of a box of the image with its shading."""
        return values + self._shift(labels, box)

    def removed(self, values: np.ndarray, labels: np.ndarray, box: Box) -> np.ndarray:
        """Inverse of `applied`."""
        return values - self._shift(labels, box)

    def _shift(self, labels: np.ndarray, box: Box) -> np.ndarray:
        return np.asarray(self.levels, np.float32)[labels] * (self.shading.factor(self.grid, box) - 1)


def contrast_of(settings: ContrastSettings, values: np.ndarray, labels: LabelMap) -> np.ndarray:
    """The contrast of an image with labels, in any unit, with the noise of its spacing.

    An image of too little tissue for a shading has none.
    """
    coefficients = [0.0] * (settings.entries - len(settings.labels) - 1)
    if settings.shading:
        found = shading.measured(values, labels, settings.reference, settings.labels)
        if found is not None:
            coefficients, values = found.coefficients, values / found.over(labels)
    return np.array([*levels(values, labels.array, settings.labels, settings.reference), 0.0, *coefficients])


def shading_of(settings: ContrastSettings, contrast: np.ndarray, labels: LabelMap) -> shading.Shading | None:
    """The shading of a contrast about the labels; None for a model without one."""
    if not settings.shading:
        return None
    return shading.Shading.about(labels, contrast[len(settings.labels) + 1 :], settings.reference)


def named(settings: ContrastSettings, contrast: np.ndarray, labels: Mapping[int, Label]) -> dict[str, float]:
    """Levels by the names of their labels, for the report."""
    return {labels[v].name: round(float(level), 3) for v, level in zip(settings.labels, contrast, strict=False)}
