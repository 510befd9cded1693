"""A hand that paints: Slicer's own Segment Editor logic, without its widget."""

import numpy as np
import slicer
import vtk


class Painter:
    """Paints balls into the segments of a segmentation, overwriting the other segments, with undo.

    Parameters
    ----------
    segmentation: vtkMRMLSegmentationNode.
    volume: the volume whose voxels are painted.
    """

    def __init__(self, segmentation, volume):
        scene = slicer.mrmlScene
        self.segmentation, self.volume = segmentation, volume
        self.editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor.SetOverwriteMode(self.editor.OverwriteAllSegments)
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.SetSegmentEditorNode(self.editor)
        self.logic.SetSegmentationNode(segmentation)
        self.logic.SetSourceVolumeNode(volume)
        self.history = slicer.vtkSegmentationHistory()
        self.history.SetSegmentation(segmentation.GetSegmentation())

    def paint(self, segment: str, center, radius: float, erase: bool = False) -> np.ndarray:
        """A ball in voxels of the volume, (i, j, k); returns where it is as (i, j, k) bool."""
        self.history.SaveState()
        self.logic.SetCurrentSegmentID(self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(segment))
        dimensions = self.volume.GetImageData().GetDimensions()
        offsets = [np.arange(count) - middle for count, middle in zip(dimensions, center, strict=True)]
        distance = sum(
            offset.reshape([-1 if n == axis else 1 for n in range(3)]) ** 2 for axis, offset in enumerate(offsets)
        )
        ball = distance <= radius**2
        mode = self.logic.ModificationModeRemove if erase else self.logic.ModificationModeAdd
        self.logic.ModifySegmentByLabelmap(
            self.segmentation, self.logic.GetCurrentSegmentID(), self._image(ball), mode, False, False
        )
        return ball

    def undo(self) -> None:
        """As the button of the Segment Editor."""
        self.history.RestorePreviousState()

    def _image(self, ball: np.ndarray):
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(ball.shape)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        voxels = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        voxels[:] = ball.transpose(2, 1, 0).ravel()
        matrix = vtk.vtkMatrix4x4()
        self.volume.GetIJKToRASMatrix(matrix)
        image.SetGeometryFromImageToWorldMatrix(matrix)
        return image
