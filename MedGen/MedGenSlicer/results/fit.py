"""Fits slice views to a volume that would not be seen in them."""

from __future__ import annotations

import numpy as np
import vtk

from MedGenSlicer.results.kept_views import Layers, nodesOf, sliceViews

SMALL = 0.1
"""Share of an empty view that a volume has to take to be seen."""


def fitWhereUnseen(volume, empty: list, views: list | None = None) -> None:
    """Fit slice views to a volume where they show nothing of it; the others stay as the user has set them.

    Parameters
    ----------
    empty: views that showed no volume before; they are fitted also where this one would be small.
    views: those to look at; None for all.
    """
    for view in sliceViews() if views is None else views:
        if _seenShare(volume, view) <= (SMALL if view in empty else 0):
            node = nodesOf(view)[1]
            view.sliceLogic().FitSliceToVolume(volume, *node.GetDimensions()[:2])
            node.UpdateMatrices()


def emptyViews() -> list:
    """The slice views that show no volume."""
    return [view for view in sliceViews() if Layers.of(view).isEmpty]


def _seenShare(volume, view) -> float:
    """The share of a slice view that the box of a volume takes, 0 where its plane does not cut the box."""
    node = nodesOf(view)[1]
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    corners = [(x, y, z, 1.0) for x in bounds[:2] for y in bounds[2:4] for z in bounds[4:]]
    toXY = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), toXY)
    points = np.array([toXY.MultiplyPoint(corner)[:3] for corner in corners])
    low, high = points.min(0), points.max(0)
    if low[2] > 0.5 or high[2] < -0.5:
        return 0.0
    size = np.array(node.GetDimensions()[:2])
    inside = np.clip(high[:2], 0, size) - np.clip(low[:2], 0, size)
    return float((inside / size).prod())
