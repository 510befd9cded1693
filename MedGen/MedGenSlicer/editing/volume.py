"""A volume node that is redrawn block by block."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging import boxes
from MedGenSlicer.nodes.geometry import GridPlace
from MedGenSlicer.nodes.voxels import boxAt, imageData


class VoxelState:
    """The voxels and the grid of a volume node at some moment."""

    def __init__(self, node) -> None:
        self._node, self._image = node, node.GetImageData()
        self._time, self._place = self._image.GetMTime(), GridPlace.ofVolume(node)

    @property
    def isSame(self) -> bool:
        """Whether nobody wrote into the voxels, replaced them or moved the grid since."""
        return (
            self._node.GetImageData() is self._image
            and self._image.GetMTime() == self._time
            and GridPlace.ofVolume(self._node) == self._place
        )


class EditableVolume:
    """A volume node whose voxels are replaced in place, in an image data object that no other node shares.

    Parameters
    ----------
    node: vtkMRMLScalarVolumeNode.
    array: (k, j, i) a copy of its voxels, which becomes its own from now on; where the scene's undo is on, what it was
        before becomes a step. None for a node that shares its voxels with nobody.
    """

    def __init__(self, node, array: np.ndarray | None = None) -> None:
        self.node = node
        if array is not None:
            if slicer.mrmlScene.GetUndoFlag():
                slicer.mrmlScene.SaveStateForUndo(node)
            node.SetAndObserveImageData(imageData(array))
        self._image = node.GetImageData()
        self._state = VoxelState(node)

    def write(self, values: np.ndarray, start: tuple[int, int, int]) -> None:
        """Replace the block of `values` (i, j, k) whose first voxel is `start` (i, j, k); one event of the node.

        Raises
        ------
        InputError: the block reaches out of the volume; nothing was written.
        """
        array = slicer.util.arrayFromVolume(self.node)
        block = values.transpose(2, 1, 0)
        box = boxAt(start[::-1], block.shape)
        if not boxes.contains(boxAt((0, 0, 0), array.shape), box):
            raise InputError(
                _("The worker drew outside of the volume; nothing was changed. Switch live editing on again.")
            )
        with slicer.util.NodeModify(self.node):
            array[box] = _asType(block, array.dtype)
            self._image.GetPointData().GetScalars().Modified()
            self._image.Modified()
            self._state = VoxelState(self.node)  # before the node tells its observers

    @property
    def isUntouched(self) -> bool:
        """Whether nobody else wrote into the voxels, replaced them or moved the grid."""
        return self._state.isSame


def _asType(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Voxels in the number format of the node."""
    if values.dtype == dtype or dtype.kind not in "iu" or values.dtype.kind in "iu":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
