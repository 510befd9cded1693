"""Conditioning of mask-conditioned networks: label maps, coordinates, scalars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COORDINATE_UNIT_MM = 32.0
COORDINATES = 3
"""Maps of the position, after those of the labels."""


def label_channels(labels: np.ndarray, count: int) -> np.ndarray:
    """One-hot maps of ``0 .. count`` (background first): (i, j, k) -> (count + 1, i, j, k)."""
    values = np.arange(count + 1, dtype=labels.dtype).reshape(-1, 1, 1, 1)
    return (labels[None] == values).astype(np.float32)


def coordinate_channels(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Position relative to the labels' center of mass, (3, i, j, k), in units of 32 mm, RAS axes.

    Gives a network the position within the anatomy. Labels must not be empty.
    """
    center = [float(index.mean()) for index in np.nonzero(labels)]
    return coordinates_about(center, labels.shape, spacing)


def coordinates_about(center: Sequence[float], shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Position relative to a voxel index, which may lie outside the shape."""
    axes = [
        (np.arange(n, dtype=np.float32) - c) * s / COORDINATE_UNIT_MM
        for n, c, s in zip(shape, center, spacing, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def spacing_scalar(spacing_mm: float) -> float:
    """Isotropic spacing as a number near 0: log2 of its ratio to 2 mm."""
    return float(np.log2(spacing_mm / 2.0))


def noise_scalar(noise_hu: float) -> float:
    """Noise level as a number near 0: half the log2 of its ratio to 8 HU."""
    return float(0.5 * np.log2(max(noise_hu, 0.5) / 8.0))
