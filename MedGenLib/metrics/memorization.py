"""The nearest training image of each synthetic one: has the model memorized a patient?

Near is not memorized: how near a *new* patient comes to the training images is seen from real ones
that are not among them. A synthetic image is called a copy where it is nearer than chance among
real ones allows, by the features of its slices or by the correlation of its voxels.
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
"""Real images whose nearest neighbor is known, below which nothing can be called a copy."""
_DEVIATIONS = 5.0
"""How many standard deviations nearer than real images are to each other a copy has to be."""
_LARGEST_Z = 8.0  # of Fisher's z: a correlation of 1 - 2e-7
_IDENTICAL = 1 - 1e-6
_CANDIDATES = 8
_LARGEST_SHIFT = 3


@dataclass(frozen=True)
class Neighbor:
    """The training images next to one synthetic image.

    Attributes
    ----------
    by_features, distance: the nearest by features, and how far it is.
    by_voxels, correlation: the one whose voxels correlate most, on 32^3 voxels, moved by up to
        three of them and mirrored left to right where that correlates more.
    copied: None where too few real images tell what chance allows.
    copy_of: the training image that it looks like a copy of.
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
            f"{self.correlation:.3f}); do not publish it before you have compared them."
        )


@dataclass(frozen=True)
class Memorization:
    """All neighbors, the limits beyond which one is a copy, and what they come from.

    Attributes
    ----------
    real: (distance, correlation) of each real image to its nearest other training image.
    nearest, most: limits of distance and correlation; None where there are too few real images.
    """

    neighbors: tuple[Neighbor, ...]
    real: NDArray[np.float64]
    nearest: float | None
    most: float | None
    note: str

    @property
    def copies(self) -> list[Neighbor]:
        return [n for n in self.neighbors if n.copied]


def find_memorized(
    synthetic: Sequence[Features], training: Sequence[Features], real: Sequence[Features] = ()
) -> Memorization:
    """The nearest training images of each synthetic one, and whether it is a copy.

    Parameters
    ----------
    real: real images that were not trained on. Chance is told from their nearest training images
        and from those of the training images among themselves; an image never counts as its own
        neighbor, even if a file lies in both cohorts.

    The limits lie five standard deviations beyond the mean of these nearest distances (of their
    logarithm) and correlations (of Fisher's z). A generator that is given the mask of a training
    image may come near it by that mask alone.

    Raises
    ------
    InputError: fewer than two training images, or planes in which one cohort shows nothing.
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
    nearest, most = _limits(chance)
    neighbors = []
    for image in synthetic:
        close, distance, alike, r = _nearest(*known.to(image, itself=True))
        names = training[close].name, training[alike].name
        verdict = _verdict(names, distance, r, nearest, most)
        neighbors.append(Neighbor(image.name, names[0], distance, names[1], r, *verdict))
    return Memorization(tuple(neighbors), chance, nearest, most, _note(neighbors, chance))


def _verdict(
    names: tuple[str, str], distance: float, r: float, nearest: float | None, most: float | None
) -> tuple[bool | None, str]:
    """Whether it is a copy, and of which: the nearest by features or the most alike by voxels."""
    if nearest is None:
        return None, ""
    if r > most:
        return True, names[1]
    return (True, names[0]) if distance < nearest else (False, "")


class _Known:
    """Vectors and small copies of the training images."""

    def __init__(self, training: Sequence[Features]) -> None:
        self.vectors = np.stack([image.vector for image in training])
        self.cubes = np.stack([image.cube for image in training])

    def to(self, image: Features, itself: bool) -> tuple[NDArray, NDArray]:
        """Distances and correlations to all; without `itself` an equal image is infinitely far.

        The correlation of the likeliest training images is the largest one over small shifts, of
        the image and of its mirror image: copies that were moved or mirrored are copies still.
        """
        apart = distances(image.vector[None], self.vectors)[0]
        alike = _correlation(image.cube, self.cubes)
        same = alike > _IDENTICAL
        for cube in (image.cube, image.cube[::-1]):
            likely = np.argsort(-_correlation(cube, self.cubes))[:_CANDIDATES]
            alike[likely] = np.maximum(alike[likely], _shifted(cube, self.cubes[likely]))
        if not itself:
            apart, alike = np.where(same, np.inf, apart), np.where(same, -np.inf, alike)
        return apart, alike


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


def _nearest(apart: NDArray, alike: NDArray) -> tuple[int, float, int, float]:
    close, most = int(apart.argmin()), int(alike.argmax())
    return close, float(apart[close]), most, float(alike[most])


def _limits(chance: NDArray) -> tuple[float | None, float | None]:
    if len(chance) < FEWEST:
        return None, None
    far, z = np.log(np.maximum(chance[:, 0], 1e-12)), _fisher(chance[:, 1])
    nearest = np.exp(far.mean() - _DEVIATIONS * far.std(ddof=1))
    # A correlation cannot exceed 1: an exact copy has to stay beyond the limit.
    most = np.tanh(min(z.mean() + _DEVIATIONS * z.std(ddof=1), _LARGEST_Z - 1))
    return float(nearest), float(most)


def _fisher(correlation: NDArray) -> NDArray[np.float64]:
    return np.minimum(np.arctanh(np.clip(correlation, -1, _IDENTICAL)), _LARGEST_Z)


def _note(neighbors: Sequence[Neighbor], chance: NDArray) -> str:
    if len(chance) < FEWEST:
        return (
            f"With fewer than {FEWEST} real images nothing tells how near chance comes, so no copy can be called one."
        )
    count = sum(bool(n.copied) for n in neighbors)
    if count:
        return f"{count} of {len(neighbors)} synthetic images look like copies of training images."
    return "No synthetic image is nearer to a training image than chance among real ones allows."


def _require_same_planes(cohort: Sequence[Features]) -> None:
    shown = {tuple(bool(len(p)) for p in image.planes) for image in cohort}
    if len(shown) > 1:
        raise InputError(
            "Some volumes show something in planes in which others do not, so that their distance "
            "to the training images cannot be told; take out the odd ones."
        )
