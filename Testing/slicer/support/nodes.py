"""Nodes for tests: small volumes and masks on every kind of grid, results, and what a mask is turned into."""

import numpy as np
import slicer

import support

support.useModuleFolder()

from MedGenLib.imaging.volume import Volume
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.inputs import InputSnapshot, captureInput
from MedGenSlicer.nodes.provenance import NodeProvenance

SHAPE = (7, 9, 11)
"""Voxels along i, j, k; all different, so that no axis can be taken for another."""


def rotation(seed: int = 1) -> np.ndarray:
    matrix, unused = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def affine(directions=None, spacing=(1.0, 1.0, 1.0), origin=(3.25, -40.5, 11.125)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if directions is None else directions) * np.array(spacing)
    matrix[:3, 3] = origin
    return matrix


GRIDS = {
    "identity": affine(origin=(0, 0, 0)),
    "oblique": affine(rotation(), (0.7, 1.1, 2.3)),
    "left-handed": affine(rotation(2) * [1, 1, -1], (0.9, 0.9, 1.5)),
    "anisotropic": affine(spacing=(0.4, 0.4, 5.0)),
    "LPS": affine(np.diag([-1.0, -1.0, 1.0]), (0.8, 0.8, 0.8)),
}


def volumeNode(matrix=None, shape=SHAPE, name: str = "Volume", dtype=np.int16):
    array = np.random.default_rng(5).integers(-900, 1500, shape[::-1]).astype(dtype)
    ijkToRAS = slicer.util.vtkMatrixFromArray(affine() if matrix is None else matrix)
    return slicer.util.addVolumeFromArray(array, ijkToRAS=ijkToRAS, name=name)


def maskNode(matrix=None, shape=SHAPE, name: str = "Mask"):
    array = np.zeros(shape[::-1], np.uint8)
    array[shape[2] // 4 :, 1:-1, 1:-2] = 1
    array[shape[2] // 2 :, 2:4, 2:5] = 2
    ijkToRAS = slicer.util.vtkMatrixFromArray(affine() if matrix is None else matrix)
    return slicer.util.addVolumeFromArray(
        array, ijkToRAS=ijkToRAS, name=name, nodeClassName="vtkMRMLLabelMapVolumeNode"
    )


def segmentationOf(labels, withReference: bool = True):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
    if withReference:
        node.SetReferenceImageGeometryParameterFromVolumeNode(labels)
    return node


def transformNode(matrix, name: str = "Transform"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    return node


def volumeOn(segmentation, size=32):
    """A volume on the grid of `support.ctSegmentation`, under no transform."""
    mask = support.ctMaskNode(size)
    values = slicer.util.arrayFromVolume(mask).astype(np.int16) * 100
    node = slicer.util.addVolumeFromArray(values, support.matrixOf(mask), "Volume")
    slicer.mrmlScene.RemoveNode(mask)
    return node


def syntheticCT():
    """A CT as the model might have made it from the mask, and that mask."""
    segmentation = support.ctSegmentation(32)
    node = volumeOn(segmentation)
    labels = slicer.util.arrayFromVolume(node) // 100
    values = np.array([-1000, -95, 40, 400, -830])[labels] + np.random.default_rng(0).normal(0, 12, labels.shape)
    slicer.util.updateVolumeFromArray(node, values.astype(np.int16))
    provenance.write(node, NodeProvenance(model="ct-tissue", task="generate", seed=7, modality="CT", unit="HU"))
    return node, segmentation


MADE = NodeProvenance(
    model="ct-tissue",
    modelVersion="1.0.0",
    task="generate",
    seed=2**61 + 7,
    preset="draft",
    device="CPU, 2 threads",
    modality="CT",
    unit="HU",
    parameters={"mapping": {"1": 2}, "noise": [1.5, None]},
    software={"medgen": "0.1.0"},
    timings={"sampling": 1.25},
    checks=["Bones are bright.", "Größe “gut”."],
    passed=True,
    input="Mask",
    python='slicer.util.getModuleLogic("MedGen").generate(...)',
)


def synthetic(snapshot, modality: str = "CT", seed: int = 0) -> Volume:
    random = np.random.default_rng(seed)
    if modality == "CT":
        array = random.integers(-1000, 1500, snapshot.shape).astype(np.int16)
        return Volume(array, snapshot.affine, "CT", "HU")
    return Volume(random.gamma(2, 150, snapshot.shape).astype(np.float32), snapshot.affine, "T1w", "a.u.")


def hierarchy():
    """The subject hierarchy of the scene."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def readInput(node, kind: str | None = None) -> InputSnapshot:
    """The input of a run, with its voxels."""
    snapshot = captureInput(node, kind)
    snapshot.image  # noqa: B018 - raises what is wrong with the voxels
    return snapshot
