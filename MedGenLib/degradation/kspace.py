"""Artifacts of MR that arise in k-space: motion, ghosts, spikes and Gibbs ringing.

Images are magnitudes (i, j, k), none negative. Lines of k-space are measured one after the other along `axis`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def motion(
    values: NDArray,
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    axis: int = 1,
    moves: int = 2,
    shift_mm: float = 2.0,
    rotation_degrees: float = 2.0,
) -> NDArray[np.float32]:
    """An image whose k-space was measured while the patient moved: each segment of lines shows another position.

    The center of k-space shows the position of the input, so the image as a whole stays in place.
    See Shaw et al. 2019, https://proceedings.mlr.press/v102/shaw19a.html.

    Parameters
    ----------
    moves: sudden movements, at random times.
    shift_mm, rotation_degrees: standard deviations of a position along and about each axis; one slice stays in its
        plane.
    """
    lines = np.shape(values)[axis]
    # The order of measurement: from one end of k-space to the other.
    position = np.fft.ifftshift(np.searchsorted(np.sort(rng.uniform(0, lines, moves)), np.arange(lines)))
    poses = rng.standard_normal((moves + 1, 2, 3)) * [[shift_mm], [rotation_degrees]]
    poses[position[0]] = 0
    return moved_segments(values, spacing_mm, poses, position, axis)


def moved_segments(
    values: NDArray, spacing_mm: Sequence[float], poses: NDArray, position: NDArray, axis: int = 1
) -> NDArray[np.float32]:
    """An image each line of whose k-space along the axis was measured in one of several positions of the patient.

    Parameters
    ----------
    poses: (n, 2, 3), shift in mm and rotation vector in degrees along the array's axes; the image is turned about its
        center and then shifted.
    position: (lines,), index of the pose of each line, in the order of the discrete Fourier transform.
    """
    values = np.array(values, dtype=np.float32)
    measured = still = spectrum(values, axis)
    for number in np.flatnonzero(np.any(poses, axis=(1, 2))):
        moved = spectrum(_moved(values, spacing_mm, *poses[number]), axis)
        measured = np.where(along(position == number, axis), moved, measured)
    return values if measured is still else _magnitude(measured, axis)


def ghosts(values: NDArray, axis: int = 1, count: int = 2, strength: float = 0.5) -> NDArray[np.float32]:
    """An image with weak copies of itself, shifted by multiples of 1 / count of the field of view along the axis.

    Lines n * count + count // 2 of k-space lose the share `strength` (`count` is 2 or more). Each copy has
    strength / count of the signal, and the image keeps 1 - strength / count.
    """
    values = np.array(values, dtype=np.float32)
    if strength == 0:
        return values
    lines = np.round(np.fft.fftfreq(values.shape[axis]) * values.shape[axis]).astype(int)
    weights = np.where(lines % count == count // 2, 1 - strength, 1).astype(np.float32)
    return _magnitude(spectrum(values, axis) * along(weights, axis), axis)


def spikes(
    values: NDArray, rng: np.random.Generator, strength: float = 0.2, count: int = 1, axis: int | None = None
) -> NDArray[np.float32]:
    """An image with `count` wrong points in k-space, each of which is a plane wave in the complex image.

    Parameters
    ----------
    strength: amplitude of a wave, relative to the 99th percentile of the image.
    axis: the slice axis of a 2-D sequence, where a point spoils one slice; None for a 3-D sequence.
    """
    values = np.array(values, dtype=np.float32)
    if strength == 0:
        return values
    amplitude = strength * np.percentile(values, 99)
    result = values.astype(np.complex64)
    for _ in range(count):
        point = rng.integers(values.shape)
        phases = [np.exp(2j * np.pi * k * np.arange(n) / n) for k, n in zip(point, values.shape, strict=True)]
        if axis is not None:
            phases[axis] = (np.arange(values.shape[axis]) == point[axis]).astype(complex)
        i, j, k = (along(phase.astype(np.complex64), number) for number, phase in enumerate(phases))
        result += np.complex64(amplitude * np.exp(2j * np.pi * rng.uniform())) * i * j * k
    return np.abs(result)


def gibbs(values: NDArray, axis: int = 1, strength: float = 0.5) -> NDArray[np.float32]:
    """An image without the outer share `strength` (0 to below 1) of k-space along the axis.

    Edges ring with an overshoot of 9 % and a period of 2 / (1 - strength) voxels.
    """
    values = np.array(values, dtype=np.float32)
    if strength == 0:
        return values
    inner = np.abs(np.fft.fftfreq(values.shape[axis])) < (1 - strength) / 2
    return _magnitude(spectrum(values, axis) * along(inner, axis), axis)


def spectrum(values: NDArray, axis: int) -> NDArray[np.complex64]:
    """k-space along one axis; what is the same across needs no more."""
    from scipy import fft

    return fft.fft(values, axis=axis)


def ifft(lines: NDArray, axis: int) -> NDArray[np.complex64]:
    """The complex image of a `spectrum`."""
    from scipy import fft

    return fft.ifft(lines, axis=axis)


def _magnitude(lines: NDArray, axis: int) -> NDArray[np.float32]:
    return np.abs(ifft(lines, axis)).astype(np.float32)


def along(line: NDArray, axis: int) -> NDArray:
    """A line as an array along `axis` of an image."""
    return np.moveaxis(line[:, None, None], 0, axis)


def _moved(
    values: NDArray[np.float32], spacing_mm: Sequence[float], shift_mm: NDArray, rotation_degrees: NDArray
) -> NDArray[np.float32]:
    from scipy import ndimage
    from scipy.spatial.transform import Rotation

    flat = np.array(values.shape) == 1
    about = np.where(flat if flat.any() else True, rotation_degrees, 0)
    back = Rotation.from_rotvec(about, degrees=True).as_matrix().T
    size = np.array(spacing_mm, dtype=float)
    center = (np.array(values.shape) - 1) / 2
    matrix = back * size / size[:, None]
    offset = center - matrix @ (center + np.where(flat, 0, shift_mm) / size)
    return ndimage.affine_transform(values, matrix, offset, order=1, mode="nearest")
