"""Notices when the selected input changes."""

from collections.abc import Callable

import slicer
import vtk
from slicer.util import VTKObservationMixin


class InputWatcher(VTKObservationMixin):
    """Observes one input node.

    Parameters
    ----------
    onChanged: called when its transform, its image or its segments change.
    onPainted: called after each brush stroke in a segmentation.
    """

    def __init__(self, onChanged: Callable[[], None], onPainted: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._onChanged, self._onPainted = onChanged, onPainted
        self._node = None

    def watch(self, node) -> bool:
        """Observe this node and no other, None for none; whether it is another one than before."""
        if node is self._node:
            return False
        self.removeObservers()
        self._node = node
        if node is None:
            return True
        self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._changed)
        self.addObserver(node, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._changed)
        if node.IsA("vtkMRMLSegmentationNode"):
            self._watchSegments(node)
        else:
            self.addObserver(node, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self._changed)
        return True

    def _watchSegments(self, node) -> None:
        # The node passes on the events of its vtkSegmentation; it gets another one when its file is read again.
        events = slicer.vtkSegmentation
        for event in (
            events.SegmentAdded,
            events.SegmentRemoved,
            events.SegmentModified,
            slicer.vtkMRMLSegmentationNode.SegmentationChangedEvent,
        ):
            self.addObserver(node, event, self._changed)
        self.addObserver(node, events.SourceRepresentationModified, self._painted)

    def _changed(self, caller=None, event=None) -> None:
        self._onChanged()

    def _painted(self, caller=None, event=None) -> None:
        self._onPainted()
