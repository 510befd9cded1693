"""The choices of the panel, kept in the scene and restored with it.

Nothing about the current run is kept here: a scene saved during a run opens idle.
"""

from typing import Annotated

from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

LARGEST_SEED = 2**31 - 1
"""The largest that a spin box of Qt holds."""

MOST_SAMPLES = 20


@parameterNodeWrapper
class MedGenParameterNode:
    """Typed access to the parameter node.

    Attributes
    ----------
    task: "generate" or "translate", the tab that is open.
    guessed: True once the panel proposed a task and an input for this scene; from then on the
        choices are the user's.
    generateInput, translateInput: the node to work on.
    generateModel, translateModel: name of the model; "" takes the first that fits.
    generateStyle: volume whose look the generated one gets; None for the model's own.
    generateOutput, translateOutput: volume to write into; None makes a new one.
    translateTarget: modality wanted, such as "CT" or "T1w".
    targetChosen: whether the user chose it; until then it follows the image.
    mapping: JSON, {model: {segment or label: label of the model, "0" leaves it out}}; only what
        the user chose.
    fill: label of the model that fills the gaps of a mask; "" is the default of the model.
    phase: contrast phase, for models that have them.
    preset: "draft", "normal" or "best".
    seed, seedLocked: the seed of the run; a new one for each run unless locked.
    samples, spread: volumes per run, and whether a voxel-wise deviation is wanted.
    device: "auto", "cpu", "cuda:0" ...
    editVolume, editMask, editModel: of the section Edit; "" takes the model that suits the volume.
    lesionVolume, lesionPlace, lesionSegment: the volume that gets a lesion and where: a point list, or a painted
        segment (its ID).
    lesionShape, lesionSize, lesionTissue, lesionContrast: form, mm, label of the model ("" keeps the tissue), and
        how much brighter in the unit of the volume.
    lesionTexture: name of the texture, "" for none.
    lesionOrgans, lesionOrgan: the lesion stays inside this segment; "" for anywhere.
    enhanceTask, enhanceImage, enhanceSecond, enhanceThird: task of `enhance` for an image, with further stacks.
    enhanceRegister: whether further stacks are aligned to the first one.
    breatheVolume, breatheLabels: CT of the chest, and what moves along.
    evaluateImage, evaluateReference, evaluateMask, evaluateLabels, evaluateUncertainty: inputs of the section
        Evaluate.
    evaluateSegmenter: what finds the labels again in the image; "" for nothing.
    exportNode, exportSource: what becomes a DICOM series, and the volume from DICOM whose study it joins.
    exportDeidentify, exportToDatabase: choices of the section Export to DICOM.
    """

    task: str = "generate"
    guessed: bool = False

    generateInput: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | vtkMRMLScalarVolumeNode | None
    generateModel: str = ""
    generateStyle: vtkMRMLScalarVolumeNode
    generateOutput: vtkMRMLScalarVolumeNode
    mapping: str = "{}"
    fill: str = ""
    phase: str = "none"

    translateInput: vtkMRMLScalarVolumeNode
    translateTarget: str = ""
    targetChosen: bool = False
    translateModel: str = ""
    translateOutput: vtkMRMLScalarVolumeNode

    preset: str = "normal"
    seed: Annotated[int, WithinRange(0, LARGEST_SEED)] = 1
    seedLocked: bool = False
    samples: Annotated[int, WithinRange(1, MOST_SAMPLES)] = 1
    spread: bool = False
    device: str = "auto"

    editVolume: vtkMRMLScalarVolumeNode
    editMask: vtkMRMLSegmentationNode
    editModel: str = ""

    lesionVolume: vtkMRMLScalarVolumeNode
    lesionPlace: vtkMRMLMarkupsFiducialNode | vtkMRMLSegmentationNode | None
    lesionSegment: str = ""
    lesionShape: str = "sphere"
    lesionSize: Annotated[float, WithinRange(1, 200)] = 10.0
    lesionTissue: str = ""
    lesionContrast: Annotated[float, WithinRange(-3000, 3000)] = 0.0
    lesionTexture: str = ""
    lesionOrgans: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None
    lesionOrgan: str = ""

    enhanceTask: str = "superres"
    enhanceImage: vtkMRMLScalarVolumeNode
    enhanceSecond: vtkMRMLScalarVolumeNode
    enhanceThird: vtkMRMLScalarVolumeNode
    enhanceRegister: bool = False

    breatheVolume: vtkMRMLScalarVolumeNode
    breatheLabels: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None

    evaluateImage: vtkMRMLScalarVolumeNode
    evaluateReference: vtkMRMLScalarVolumeNode
    evaluateMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None
    evaluateLabels: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None
    evaluateSegmenter: str = ""
    evaluateUncertainty: vtkMRMLScalarVolumeNode

    exportNode: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | vtkMRMLScalarVolumeNode | None
    exportSource: vtkMRMLScalarVolumeNode
    exportDeidentify: bool = False
    exportToDatabase: bool = False
