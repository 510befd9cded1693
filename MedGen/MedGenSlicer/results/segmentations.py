"""Segmentations of what was found or made in a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer

from MedGenSlicer.nodes.geometry import matrixIn
from MedGenSlicer.nodes.hierarchy import placeBeside
from MedGenSlicer.nodes.voxels import imageData
from MedGenSlicer.results.volumes import removeResult

COLOR = (0.90, 0.30, 0.20)


def addSegmentation(volumeNode, beside, name: str, segments: Sequence[tuple[str, np.ndarray]]):
    """A segmentation on the grid and under the transform of a volume.

    Parameters
    ----------
    beside: node whose parent in the subject hierarchy it gets.
    segments: name and voxels (k, j, i), 1 inside.
    """
    scene = slicer.mrmlScene
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    try:
        node.CreateDefaultDisplayNodes()
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        for title, voxels in segments:
            image = slicer.vtkOrientedImageData()
            image.ShallowCopy(imageData(voxels))
            image.SetGeometryFromImageToWorldMatrix(matrixIn(volumeNode, volumeNode))
            node.AddSegmentFromBinaryLabelmapRepresentation(image, title, COLOR)
        placeBeside(node, beside)
    except BaseException:
        removeResult(node)
        raise
    return node
