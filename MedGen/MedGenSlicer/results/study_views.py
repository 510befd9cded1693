"""Shows one image after the other for a reader study, and gives the user's views back afterwards.

Nothing of the user's scene is changed: an image gets a node of its own, far away from everything that could be drawn
over it, with a neutral name.
"""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.nodes.voxels import imageData
from MedGenSlicer.results import volumes as results
from MedGenSlicer.results.kept_views import KeptViews, nodesOf, setLayout

AWAY_MM = 20_000.0
"""Distance of the image from the scanner's center: no segmentation or markup of the user reaches there."""
READING = "MedGen.Reading"
"""Attribute of the node that is shown; it is neither saved nor proposed as an input."""
VIEWS = {True: ("Red", "Yellow", "Green"), False: ("Red",)}
"""Volume or slice -> the slice views that show it."""
ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class ReadingView:
    """Takes the slice views for the reading; `close` gives them back as they were."""

    def __init__(self) -> None:
        self._manager = slicer.app.layoutManager()
        if self._manager is None:
            raise InputError(_("Slicer runs without views, so there is nothing to read the images in."))
        self._kept = KeptViews()
        self._nodeID = ""

    def show(
        self, image: np.ndarray, title: str, spacing=(1.0, 1.0, 1.0), window: float = 255.0, level: float = 127.5
    ) -> None:
        """Show one image instead of the one before.

        Parameters
        ----------
        image: (k, j, i) voxels; a slice has one k. Rows go to the right and downwards.
        title: neutral name of the node, which the views show.
        spacing: of i, j and k in mm.
        window, level: of the display, in the image's values.
        """
        before = self._nodeID
        isVolume = image.shape[0] > 1
        node = self._addNode(image, title, spacing, window, level)
        self._nodeID = node.GetID()
        layouts = slicer.vtkMRMLLayoutNode
        setLayout(layouts.SlicerLayoutFourUpView if isVolume else layouts.SlicerLayoutOneUpRedSliceView)
        for name in VIEWS[isVolume]:
            _showAlone(self._manager.sliceWidget(name), node, ORIENTATIONS[name])
        _remove(before)

    def close(self) -> None:
        """Give the views back and take the image out of the scene."""
        if slicer.app.layoutManager() is not None:  # else Slicer ends, and its views are gone already
            self._kept.restore()
        _remove(self._nodeID)
        self._nodeID = ""

    def _addNode(self, image: np.ndarray, title: str, spacing, window: float, level: float):
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(title)
        node.SetAttribute(READING, "1")
        node.SetSaveWithScene(False)
        node.SetAndObserveImageData(imageData(np.ascontiguousarray(image)))
        # As DICOM has it: columns to the left of the patient, rows to the back, slices upwards.
        node.SetSpacing(spacing)
        node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
        extent = np.array(image.shape[::-1]) * spacing
        node.SetOrigin(AWAY_MM + extent[0] / 2, AWAY_MM + extent[1] / 2, AWAY_MM - extent[2] / 2)
        display = slicer.vtkMRMLScalarVolumeDisplayNode()
        display.SetSaveWithScene(False)
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(window, level)
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        slicer.mrmlScene.AddNode(display)
        node.SetAndObserveDisplayNodeID(display.GetID())
        return slicer.mrmlScene.AddNode(node)


def _showAlone(widget, node, orientation: str) -> None:
    composite, sliceNode = nodesOf(widget)
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(node.GetID())
    composite.SetForegroundVolumeID(None)
    composite.SetLabelVolumeID(None)
    sliceNode.SetOrientation(orientation)
    # Not to the background: that would take the user's own layers in, where a view is not clipped to its background.
    widget.sliceLogic().FitSliceToVolume(node, *sliceNode.GetDimensions()[:2])


def _remove(nodeID: str) -> None:
    node = slicer.mrmlScene.GetNodeByID(nodeID) if nodeID else None
    if node is not None:
        results.removeResult(node)
