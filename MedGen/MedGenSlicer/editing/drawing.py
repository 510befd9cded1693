"""A volume node that is drawn block by block."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.editing.segmentation import Box
from MedGenSlicer.editing.watch import VoxelState
from MedGenSlicer.results import volumes as results


class DrawnVolume:
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
            node.SetAndObserveImageData(results.imageData(array))
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
        box = _boxIn(array.shape, start[::-1], block.shape)
        with slicer.util.NodeModify(self.node):
            array[box] = _asType(block, array.dtype)
            self._image.GetPointData().GetScalars().Modified()
            self._image.Modified()
            self._state = VoxelState(self.node)  # before the node tells its observers

    @property
    def isUntouched(self) -> bool:
        """Whether nobody else wrote into the voxels, replaced them or moved the grid."""
        return self._state.isSame


def _boxIn(shape: tuple[int, ...], start: tuple[int, ...], count: tuple[int, ...]) -> Box:
    ends = [first + length for first, length in zip(start, count, strict=True)]
    if min(start) < 0 or any(end > full for end, full in zip(ends, shape, strict=True)):
        raise InputError(_("The worker drew outside of the volume; nothing was changed. Switch live editing on again."))
    return tuple(slice(first, end) for first, end in zip(start, ends, strict=True))


def _asType(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Voxels in the number format of the node."""
    if values.dtype == dtype or dtype.kind not in "iu" or values.dtype.kind in "iu":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
