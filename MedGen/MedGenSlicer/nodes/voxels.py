"""Voxels of vtkImageData as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedGenLib.imaging import boxes
from MedGenLib.imaging.boxes import Box

COPY_BYTES = 32 * 2**20
"""What is copied in the GUI thread at most; the memory of more is held and read by the thread that writes it."""


def arrayOf(image) -> np.ndarray:
    """(k, j, i) view of a vtkImageData's voxels."""
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


class Holder:
    """Takes the voxels of the images of one input as (k, j, i) arrays; copies of as many as can be copied quickly."""

    def __init__(self) -> None:
        self._left = COPY_BYTES

    def __call__(self, image) -> np.ndarray:
        array = arrayOf(image)
        self._left -= array.nbytes
        return array.copy() if self._left >= 0 else array


def imageData(array: np.ndarray):
    """vtkImageData over the (k, j, i) array's own memory, which it keeps alive."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.reshape(-1), deep=False))
    return image


def boxAt(start: Sequence[int], shape: Sequence[int]) -> Box:
    """The box of a block of that shape that begins at `start`."""
    return tuple(slice(first, first + count) for first, count in zip(start, shape, strict=True))


def overlap(shape: Sequence[int], start: Sequence[int], size: Sequence[int]) -> tuple[Box, Box]:
    """The part of a block at `start` that lies in a grid of `size`: as a box of the block, and of the grid."""
    block = boxAt(start, shape)
    both = boxes.common(block, boxAt((0, 0, 0), size))
    return boxes.inside(both, block), both
