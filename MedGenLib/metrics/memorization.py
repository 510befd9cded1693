"""Nearest training images of synthetic images, to detect memorized patients.

The distances of real images that the generator was not trained on to their nearest training images show what is
expected by chance. A synthetic image is called a copy if it is nearer than that, by the features of its slices or by
the correlation of its voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.metrics.distribution import distances
from MedGenLib.metrics.features import Features

FEWEST = 5
"""Real images with a known nearest neighbor that are needed to call an image a copy."""
_DEVIATIONS = 5.0
"""Standard deviations beyond the mean of real images from which an image counts as a copy."""
_LARGEST_Z = 8.0  # of Fisher's z: a correlation of 1 - 2e-7
_IDENTICAL = 1 - 1e-6
_CANDIDATES = 8
_LARGEST_SHIFT = 3


@dataclass(frozen=True)
class Neighbor:
    """The training images nearest to one synthetic image.

    Attributes
    ----------
    by_features, distance: the nearest by features, and its distance.
    by_voxels, correlation: the one with the highest voxel correlation at 32^3 voxels, over shifts of up to three voxels
        and left-right mirroring.
    copied: None if there are too few real images to decide.
    copy_of: the training image that it appears to copy.
    """

    name: str
    by_features: str
    distance: float
    by_voxels: str
    correlation: float
    copied: bool | None
    copy_of: str = ""

    @property
    def sentence(self) -> str:
        if not self.copied:
            return (
                f"{self.name}: nearest by features {self.by_features} ({self.distance:.3g}), "
                f"by voxels {self.by_voxels} (correlation {self.correlation:.3f})."
            )
        return (
            f"{self.name} looks like a copy of the training image {self.copy_of} (correlation "
            f"{self.correlation:.3f}); compare them before you publish it."
        )


@dataclass(frozen=True)
class Memorization:
    """All neighbors and the limits beyond which one is a copy.

    Attributes
    ----------
    real: (distance, correlation) of each real image to its nearest other training image.
    distance_limit, correlation_limit: None where there are too few real images.
    """

    neighbors: tuple[Neighbor, ...]
    real: NDArray[np.float64]
    distance_limit: float | None
    correlation_limit: float | None
    note: str

    @property
    def copies(self) -> list[Neighbor]:
        return [n for n in self.neighbors if n.copied]


def find_memorized(
    synthetic: Sequence[Features], training: Sequence[Features], real: Sequence[Features] = ()
) -> Memorization:
    """The nearest training images of each synthetic image, and whether it is a copy of one.

    Parameters
    ----------
    real: real images that the generator was not trained on. Chance is estimated from their nearest training images and
        from those among the training images; an image is never its own neighbor, even if a file lies in both cohorts.

    The limits lie five standard deviations beyond the mean of these nearest distances (of their logarithm) and
    correlations (of Fisher's z). A generator that gets the mask of a training image may come near that image by the
    mask alone.

    Raises
    ------
    InputError: fewer than two training images, or planes in which one cohort has no content.
    """
    if len(training) < 2:
        raise InputError(
            f"The training cohort has {len(training)} volume{'' if len(training) == 1 else 's'}, "
            "but at least 2 are needed; give the folder of all training images."
        )
    _require_same_planes([*synthetic, *training, *real])
    known = _Known(training)
    among = [_nearest(*known.to(image, itself=False)) for image in [*real, *training]]
    chance = np.array([(distance, r) for _, distance, _, r in among if np.isfinite(distance)])
    distance_limit, correlation_limit = _limits(chance)
    neighbors = []
    for image in synthetic:
        close, distance, similar, r = _nearest(*known.to(image, itself=True))
        names = training[close].name, training[similar].name
        verdict = _verdict(names, distance, r, distance_limit, correlation_limit)
        neighbors.append(Neighbor(image.name, names[0], distance, names[1], r, *verdict))
    return Memorization(tuple(neighbors), chance, distance_limit, correlation_limit, _note(neighbors, chance))


def _verdict(
    names: tuple[str, str], distance: float, r: float, distance_limit: float | None, correlation_limit: float | None
) -> tuple[bool | None, str]:
    """Whether it is a copy, and of which image: the nearest by features or by voxels."""
    if distance_limit is None:
        return None, ""
    if r > correlation_limit:
        return True, names[1]
    return (True, names[0]) if distance < distance_limit else (False, "")


class _Known:
    """Vectors and downsampled voxels of the training images."""

    def __init__(self, training: Sequence[Features]) -> None:
        self.vectors = np.stack([image.vector for image in training])
        self.cubes = np.stack([image.cube for image in training])

    def to(self, image: Features, itself: bool) -> tuple[NDArray, NDArray]:
        """Distances and correlations to all; without `itself` an equal image is infinitely far.

        The correlation of the most similar images is the largest over small shifts of the image and its mirror image,
        to find shifted and mirrored copies.
        """
        gaps = distances(image.vector[None], self.vectors)[0]
        correlations = _correlation(image.cube, self.cubes)
        same = correlations > _IDENTICAL
        for cube in (image.cube, image.cube[::-1]):
            likely = np.argsort(-_correlation(cube, self.cubes))[:_CANDIDATES]
            correlations[likely] = np.maximum(correlations[likely], _shifted(cube, self.cubes[likely]))
        if not itself:
            gaps, correlations = np.where(same, np.inf, gaps), np.where(same, -np.inf, correlations)
        return gaps, correlations


def _correlation(cube: NDArray, cubes: NDArray) -> NDArray[np.float64]:
    return np.tensordot(cubes, cube, axes=3).astype(np.float64)


def _shifted(cube: NDArray, cubes: NDArray) -> NDArray[np.float64]:
    """Largest correlation over shifts of up to 3 voxels along each axis, by the Fourier theorem."""
    from scipy import fft

    axes = (1, 2, 3)
    spectrum = np.conj(fft.rfftn(cube[None], axes=axes)) * fft.rfftn(cubes, axes=axes)
    found = fft.irfftn(spectrum, cubes.shape[1:], axes=axes)
    near = np.r_[-_LARGEST_SHIFT : _LARGEST_SHIFT + 1]
    return found[:, near][:, :, near][:, :, :, near].max(axes).astype(np.float64)


def _nearest(gaps: NDArray, correlations: NDArray) -> tuple[int, float, int, float]:
    close, best = int(gaps.argmin()), int(correlations.argmax())
    return close, float(gaps[close]), best, float(correlations[best])


def _limits(chance: NDArray) -> tuple[float | None, float | None]:
    if len(chance) < FEWEST:
        return None, None
    log_distance, z = np.log(np.maximum(chance[:, 0], 1e-12)), _fisher(chance[:, 1])
    distance_limit = np.exp(log_distance.mean() - _DEVIATIONS * log_distance.std(ddof=1))
    # A correlation cannot exceed 1: an exact copy must remain beyond the limit.
    correlation_limit = np.tanh(min(z.mean() + _DEVIATIONS * z.std(ddof=1), _LARGEST_Z - 1))
    return float(distance_limit), float(correlation_limit)


def _fisher(correlation: NDArray) -> NDArray[np.float64]:
    return np.minimum(np.arctanh(np.clip(correlation, -1, _IDENTICAL)), _LARGEST_Z)


def _note(neighbors: Sequence[Neighbor], chance: NDArray) -> str:
    if len(chance) < FEWEST:
        return f"With fewer than {FEWEST} real images the distance expected by chance is unknown: no copies are marked."
    count = sum(bool(n.copied) for n in neighbors)
    if count:
        return f"{count} of {len(neighbors)} synthetic images look like copies of training images."
    return "No synthetic image is nearer to a training image than chance among real ones allows."


def _require_same_planes(cohort: Sequence[Features]) -> None:
    shown = {tuple(bool(len(p)) for p in image.planes) for image in cohort}
    if len(shown) > 1:
        raise InputError(
            "Some volumes have content in planes in which others have none, so their distance "
            "to the training images is not defined; remove the different ones."
        )
