"""Closed surfaces in voxels.

The steps are those of Slicer's own conversion, each as a VTK pipeline whose `Update` lets go of Python's lock: in a
thread the conversion does not hold up Slicer's window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
import vtk

from MedGenSlicer.nodes.segments import SegmentInfo
from MedGenSlicer.nodes.voxels import arrayOf

CLOSED_SURFACE = "Closed surface"
VOXELS_OF_A_BOX = 250**3
"""Of a box around surfaces that nobody gave a grid, as Slicer chooses it."""


def drawnSurfaces(segmentation, segments: list[SegmentInfo]):
    """(SegmentInfo, vtkPolyData) of the segments that have a surface."""
    for info in segments:
        surface = segmentation.GetSegment(info.segmentID).GetRepresentation(CLOSED_SURFACE)
        if surface is not None and surface.GetNumberOfPoints() > 1 and surface.GetNumberOfCells() > 1:
            yield info, surface


def boxAround(surfaces: list) -> str:
    """A grid of cubic voxels around surfaces, as a serialized geometry; "" without surfaces."""
    if not surfaces:
        return ""
    bounds = np.array([surface.GetBounds() for surface in surfaces]).reshape(-1, 3, 2)
    first, last = bounds[..., 0].min(axis=0), bounds[..., 1].max(axis=0)
    spacing = float(np.cbrt(np.maximum(last - first, 1e-3).prod() / VOXELS_OF_A_BOX))
    matrix = vtk.vtkMatrix4x4()
    for axis in range(3):
        matrix.SetElement(axis, axis, spacing)
        matrix.SetElement(axis, 3, first[axis])
    counts = [int(length / spacing) for length in last - first]
    return slicer.vtkSegmentationConverter.SerializeImageGeometry(matrix, [0, counts[0], 0, counts[1], 0, counts[2]])


def onGrid(surface, reference) -> Callable[[], tuple[np.ndarray, tuple[int, int, int]]]:
    """A function that makes the voxels of a surface on the reference's grid; it may be called in another thread.

    It returns voxels (k, j, i), 1 inside of the surface, and the index (i, j, k) of the first one.
    """
    copy, toIJK = vtk.vtkPolyData(), vtk.vtkMatrix4x4()
    copy.ShallowCopy(surface)
    reference.GetImageToWorldMatrix(toIJK)
    toIJK.Invert()
    begin = reference.GetExtent()[::2]
    return lambda: _voxels(copy, toIJK, begin)


def _voxels(surface, toIJK, begin: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int, int]]:
    transform, inVoxels = vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
    transform.SetMatrix(toIJK)
    inVoxels.SetTransform(transform)
    inVoxels.SetInputData(surface)
    inVoxels.Update()
    bounds = np.reshape(inVoxels.GetOutput().GetPoints().GetBounds(), (3, 2))
    first, last = np.floor(bounds[:, 0]).astype(int), np.ceil(bounds[:, 1]).astype(int)
    normals, triangles, strips = vtk.vtkPolyDataNormals(), vtk.vtkTriangleFilter(), vtk.vtkStripper()
    stencil, voxels = vtk.vtkPolyDataToImageStencil(), vtk.vtkImageStencilToImage()
    normals.ConsistencyOn()
    stencil.SetOutputSpacing(1, 1, 1)
    stencil.SetOutputOrigin(0, 0, 0)
    stencil.SetOutputWholeExtent([int(number) for pair in zip(first, last, strict=True) for number in pair])
    voxels.SetInsideValue(1)
    voxels.SetOutsideValue(0)
    voxels.SetOutputScalarTypeToUnsignedChar()
    for before, after in zip(
        (inVoxels, normals, triangles, strips, stencil), (normals, triangles, strips, stencil, voxels), strict=True
    ):
        after.SetInputConnection(before.GetOutputPort())
    voxels.Update()
    return arrayOf(voxels.GetOutput()), tuple(int(number) for number in first - begin)
