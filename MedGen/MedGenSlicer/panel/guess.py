"""What the user probably wants, from what the scene holds."""

import slicer

from MedGenSlicer.nodes.modality import guessModality

MASK_CLASSES = ("vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode")


def firstMask():
    """The first segmentation with segments, or label map with voxels; None where there is none."""
    for className in MASK_CLASSES:
        for node in slicer.util.getNodesByClass(className):
            if isMask(node):
                return node
    return None


def firstImage():
    """The first scalar volume with voxels that MedGen did not make itself; None where there is none."""
    return next((node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isImage(node)), None)


def isMask(node) -> bool:
    """Whether a node is a segmentation or label map with something in it."""
    if node.GetHideFromEditors():
        return False
    if node.IsA("vtkMRMLSegmentationNode"):
        return node.GetSegmentation() is not None and node.GetSegmentation().GetNumberOfSegments() > 0
    return node.IsA("vtkMRMLLabelMapVolumeNode") and node.GetImageData() is not None


def isImage(node) -> bool:
    """Whether a node is a plain volume with voxels, and neither a result of MedGen nor shown for a reader study."""
    return (
        node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetHideFromEditors()
        and node.GetImageData() is not None
        and node.GetAttribute("MedGen.Synthetic") != "1"
        and node.GetAttribute("MedGen.Reading") != "1"
    )


def task(mask, image) -> str:
    """The task that suits the nodes: a mask is there to generate from, else an image to translate."""
    return "translate" if mask is None and image is not None else "generate"


def target(node, targets: list[str]) -> str:
    """The other modality: MR for a CT, CT for everything else; "" where no model makes it."""
    isCT = guessModality(node) == "CT"
    wanted = [name for name in targets if (name != "CT") == isCT]
    return wanted[0] if wanted else (targets[0] if targets else "")
