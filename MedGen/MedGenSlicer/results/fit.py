"""Fits slice views to a node that would not be seen in them."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from MedGenSlicer.results.kept_views import Layers, nodesOf, sliceViews

SMALL = 0.1
"""Share of an empty view that a node has to take to be seen."""


def fitWhereUnseen(node, empty: list, views: list | None = None) -> None:
    """Fit slice views to a node where they show nothing of it; the others stay as the user has set them.

    Parameters
    ----------
    node: a volume or a segmentation.
    empty: views that showed no volume before; they are fitted also where the node would be small.
    views: those to look at; None for all.
    """
    corners = _cornersOf(node)
    for view in [] if corners is None else sliceViews() if views is None else views:
        if _seenShare(corners, view) <= (SMALL if view in empty else 0):
            _fit(corners, view)


def emptyViews() -> list:
    """The slice views that show no volume."""
    return [view for view in sliceViews() if Layers.of(view).isEmpty]


def _cornersOf(node) -> np.ndarray | None:
    """(8, 4) the corners of the box of a node in world RAS; None where it is empty."""
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    if (bounds[::2] > bounds[1::2]).any():
        return None
    return np.array([(x, y, z, 1.0) for x in bounds[:2] for y in bounds[2:4] for z in bounds[4:]])


def _seenShare(corners: np.ndarray, view) -> float:
    """The share of a slice view that a box takes, 0 where its plane does not cut the box."""
    node = nodesOf(view)[1]
    low, high = _extent(corners, node.GetXYToRAS())
    if low[2] > 0.5 or high[2] < -0.5:
        return 0.0
    size = np.array(node.GetDimensions()[:2])
    inside = np.clip(high[:2], 0, size) - np.clip(low[:2], 0, size)
    return float((inside / size).prod())


def _fit(corners: np.ndarray, view) -> None:
    """Show all of a box, in the plane through its middle."""
    node = nodesOf(view)[1]
    low, high = _extent(corners, node.GetSliceToRAS())
    size = np.array(node.GetDimensions()[:2])
    field = ((high - low)[:2] / size).max() * size
    node.SetFieldOfView(*field, node.GetFieldOfView()[2])
    node.SetXYZOrigin(0, 0, 0)
    node.JumpSliceByCentering(*corners.mean(0)[:3])


def _extent(corners: np.ndarray, toRAS: vtk.vtkMatrix4x4) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest coordinates of a box in the frame of a view."""
    points = (np.linalg.inv(slicer.util.arrayFromVTKMatrix(toRAS)) @ corners.T).T[:, :3]
    return points.min(0), points.max(0)
