"""Observes the scene, the segmentation and the volume of live editing, and reports what ends it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MedGenSlicer.nodes.geometry import matrixIn

BEFORE_ENGINE = 10.0
"""Priority among the scene's observers: the reason is the scene that closes, not the worker that ends with it."""


class EditObserver(VTKObservationMixin):
    """Observes the scene, a segmentation and the volume that is drawn from it.

    Parameters
    ----------
    segmentationNode, volumeNode: what is watched; `follow` another volume once its copy is drawn instead.
    isUntouched: whether the volume is as it was drawn last; asked at its events.
    onPainted: called at each change of the segments.
    onEnd(reason, advice): called when editing cannot go on; advice: what to do, "" where it can be started again.
    """

    def __init__(
        self,
        segmentationNode,
        volumeNode,
        isUntouched: Callable[[], bool],
        onPainted: Callable[[], None],
        onEnd: Callable[[str, str], None],
    ) -> None:
        VTKObservationMixin.__init__(self)
        self._segmentationNode, self._volumeNode = segmentationNode, None
        self._isUntouched, self._onPainted, self._onEnd = isUntouched, onPainted, onEnd
        scene, events, node = slicer.mrmlScene, slicer.vtkSegmentation, slicer.vtkMRMLSegmentationNode
        self.addObserver(scene, scene.StartCloseEvent, self._closing, priority=BEFORE_ENGINE)
        self.addObserver(scene, scene.NodeRemovedEvent, self._removed)
        # The node passes them on, also of another vtkSegmentation that it may get.
        for event in (
            events.SourceRepresentationModified,
            events.SegmentAdded,
            events.SegmentRemoved,
            events.SegmentModified,
            events.SegmentsOrderModified,
            node.SegmentationChangedEvent,
        ):
            self.addObserver(segmentationNode, event, self._painted)
        self.addObserver(segmentationNode, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._moved)
        self.follow(volumeNode)
        self._between = self._fromVoxels()

    def follow(self, volumeNode) -> None:
        """Watch this volume instead of the one before; it has the same grid."""
        for event, method in self._volumeEvents():
            if self._volumeNode is not None:
                self.removeObserver(self._volumeNode, event, method)
            self.addObserver(volumeNode, event, method)
        self._volumeNode = volumeNode

    def close(self) -> None:
        """Remove all observers."""
        self.removeObservers()

    def _volumeEvents(self) -> list[tuple]:
        return [
            (vtk.vtkCommand.ModifiedEvent, self._modified),
            (slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self._modified),
            (slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._moved),
        ]

    def _fromVoxels(self) -> np.ndarray:
        """(4, 4) from the voxels of the volume to the frame of the segmentation."""
        return slicer.util.arrayFromVTKMatrix(matrixIn(self._segmentationNode, self._volumeNode))

    def _closing(self, caller=None, event=None) -> None:
        self._onEnd(_("the scene was closed"), _("choose a volume and its segmentation in the next one"))

    def _removed(self, caller=None, event=None) -> None:
        for node in (self._segmentationNode, self._volumeNode):
            if slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
                self._onEnd(_("'{name}' was deleted").format(name=node.GetName()), _("choose another one to go on"))
                return

    def _painted(self, caller=None, event=None) -> None:
        self._onPainted()

    def _modified(self, caller=None, event=None) -> None:
        if not self._isUntouched():
            self._onEnd(_("'{name}' was changed elsewhere").format(name=self._volumeNode.GetName()), "")

    def _moved(self, caller=None, event=None) -> None:
        if not np.allclose(self._fromVoxels(), self._between, atol=1e-4):
            self._onEnd(_("'{name}' was moved against its mask").format(name=self._volumeNode.GetName()), "")
