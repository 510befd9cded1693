"""Where voxels lie: grids of nodes, and the frames that transforms connect.

Three frames are involved: IJK (voxel index), the node's own frame ("parent": RAS below the parent transform) and
world RAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError

LARGEST_COSINE = 1e-3
"""Axes of a grid whose cosine is larger are not rectangular; the library has the same limit."""
SMALLEST_DETERMINANT = 1e-12


@dataclass(frozen=True)
class GridPlace:
    """Where a volume node's voxels lie in its own frame, as the node stores it, so that it can be set bit by bit."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    directions: tuple[float, ...]

    @classmethod
    def ofVolume(cls, node) -> GridPlace:
        directions = vtk.vtkMatrix4x4()
        node.GetIJKToRASDirectionMatrix(directions)
        return cls(tuple(node.GetOrigin()), tuple(node.GetSpacing()), _rotation(directions))

    @classmethod
    def ofOrientedImage(cls, image) -> GridPlace:
        """Of a vtkOrientedImageData; the first voxel of its extent becomes voxel (0, 0, 0)."""
        directions, matrix = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        image.GetDirectionMatrix(directions)
        image.GetImageToWorldMatrix(matrix)
        first = image.GetExtent()[::2]
        origin = matrix.MultiplyPoint((*first, 1.0))[:3] if any(first) else image.GetOrigin()
        return cls(tuple(origin), tuple(image.GetSpacing()), _rotation(directions))

    @classmethod
    def ofAffine(cls, affine: np.ndarray) -> GridPlace:
        """Of a (4, 4) matrix from voxel index to mm with rectangular axes."""
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        directions = affine[:3, :3] / spacing
        return cls(*(tuple(map(float, np.ravel(part))) for part in (affine[:3, 3], spacing, directions)))

    def applyTo(self, node) -> None:
        """Set origin, spacing and directions of a volume node."""
        node.SetOrigin(self.origin)
        node.SetSpacing(self.spacing)
        node.SetIJKToRASDirections(*self.directions)

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) voxel index -> the node's own frame, mm."""
        result = np.eye(4)
        result[:3, :3] = np.reshape(self.directions, (3, 3)) * np.array(self.spacing)
        result[:3, 3] = self.origin
        return result


def worldTransform(node) -> np.ndarray:
    """(4, 4) from the node's own frame to world RAS through its linear parent transforms.

    Raises
    ------
    InputError: a parent transform is not linear, cannot be inverted or is not finite.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        sentence = _(
            "'{name}' lies under the non-linear transform '{transform}'; harden the transform on a copy and use "
            "the copy."
        )
        raise InputError(sentence.format(name=node.GetName(), transform=parent.GetName()))
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    result = slicer.util.arrayFromVTKMatrix(matrix)
    columns = np.linalg.norm(result[:3, :3], axis=0) if np.isfinite(result).all() else np.zeros(3)
    flat = columns.min() <= 0 or abs(np.linalg.det(result[:3, :3] / columns)) < SMALLEST_DETERMINANT
    if flat or not np.allclose(result[3], (0, 0, 0, 1)):
        sentence = _(
            "'{name}' lies under the transform '{transform}', which cannot be inverted; correct the transform "
            "or take the node out of it."
        )
        raise InputError(sentence.format(name=node.GetName(), transform=parent.GetName()))
    return result


def isWarped(node) -> bool:
    """Whether a node lies under a transform that is not linear."""
    transform = node.GetParentTransformNode() if node is not None else None
    return transform is not None and not transform.IsTransformToWorldLinear()


def matrixIn(node, volume):
    """vtkMatrix4x4 from the voxels of a volume to the frame in which another node keeps its data, mm; the transforms
    of both have to be linear."""
    matrix, between = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        volume.GetParentTransformNode(), node.GetParentTransformNode(), between
    )
    vtk.vtkMatrix4x4.Multiply4x4(between, matrix, matrix)
    return matrix


def gridIn(node, volume):
    """The grid of a volume as a vtkOrientedImageData without voxels, in the frame of a segmentation."""
    worldTransform(node), worldTransform(volume)  # raise where a transform is not linear
    grid = slicer.vtkOrientedImageData()
    grid.SetExtent(volume.GetImageData().GetExtent())
    grid.SetGeometryFromImageToWorldMatrix(matrixIn(node, volume))
    return grid


def shapeOf(image) -> tuple[int, int, int]:
    """Voxels of a vtkImageData along (i, j, k), also where it holds none."""
    extent = image.GetExtent()
    return tuple(extent[2 * axis + 1] - extent[2 * axis] + 1 for axis in range(3))


def isRectangular(matrix: np.ndarray) -> bool:
    """Whether the axes of a (4, 4) matrix are at right angles to each other."""
    columns = matrix[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(matrix).all() or lengths.min() <= 0:
        return False
    cosines = (columns / lengths).T @ (columns / lengths)
    return bool(np.abs(cosines - np.eye(3)).max() <= LARGEST_COSINE)


def isSameGrid(first: np.ndarray, second: np.ndarray, dimensions) -> bool:
    """Whether no corner of two grids is further apart than a thousandth of a millimeter."""
    corners = np.array(np.meshgrid(*[(0, count - 1) for count in dimensions])).reshape(3, -1)
    shift = (first - second)[:3]
    return bool(np.abs(shift[:, :3] @ corners + shift[:, 3:]).max() < 1e-3)


def _rotation(matrix) -> tuple[float, ...]:
    return tuple(matrix.GetElement(row, column) for row in range(3) for column in range(3))
