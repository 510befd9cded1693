"""The embedded examples, offered in Slicer's Sample Data module and by *Try on sample data*.

Nothing is downloaded: the files lie in ``Resources/SampleData``. Their sources and licenses are in the README there.
"""

import hashlib
import logging
from dataclasses import dataclass

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer import paths

CATEGORY = "MedGen"


@dataclass(frozen=True)
class Sample:
    """One example.

    Attributes
    ----------
    name: identifier, also of the thumbnail.
    title: text of its button in the Sample Data module.
    nodeName: name of the node that is loaded.
    file, sha256: file in ``Resources/SampleData`` and its checksum.
    models: names of the models that it is meant for.
    segments: (name, red, green, blue) of label 1, 2, ...; empty for an image.
    """

    name: str
    title: str
    nodeName: str
    file: str
    sha256: str
    models: tuple[str, ...]
    segments: tuple[tuple[str, float, float, float], ...] = ()

    @property
    def path(self):
        return paths.resource(f"SampleData/{self.file}")

    @property
    def thumbnail(self):
        return paths.resource(f"Icons/{self.name}.png")


SAMPLES = (
    Sample(
        "MedGenAbdomen",
        "MedGen abdomen",
        "Abdomen tissues",
        "ct_tissue_mask.nii.gz",
        "f8d32a6db373d35e15db974d93fac079e0ca26c03b7b6d932b8678ffb6d50c0f",
        ("ct-tissue",),
        (
            ("fat", 0.90, 0.86, 0.51),
            ("soft tissue", 0.71, 0.40, 0.33),
            ("bone", 0.95, 0.95, 0.88),
            ("lung or gas", 0.44, 0.68, 0.86),
        ),
    ),
    Sample(
        "MedGenHippocampus",
        "MedGen hippocampus",
        "Hippocampus",
        "hippocampus_mask.nii.gz",
        "fc947001e08daa84d1b7601a401335339c78f7dff5c4d5785a77335af47f7f70",
        ("mr-hippocampus",),
        (("anterior hippocampus", 0.93, 0.60, 0.20), ("posterior hippocampus", 0.25, 0.55, 0.80)),
    ),
    Sample(
        "MedGenHead",
        "MedGen head T1",
        "Head T1",
        "head_t1.nii.gz",
        "662b6de2b406c41554e28a17a6083fa7ad5693fcd567b050ba161864d42c2318",
        ("head-mr-to-ct",),
    ),
    Sample(
        "MedGenThigh",
        "MedGen thigh T1",
        "Thigh T1",
        "thigh_t1.nii.gz",
        "101d745d47494cd21b60001d6f2015b3bc680a3ae1f9dc9c21b27126c7bc2a6e",
        ("body-mr-to-ct",),
    ),
)


def register() -> None:
    """Offer the examples in the Sample Data module, once; does nothing where Slicer was built without it."""
    try:
        import SampleData
    except ImportError:
        logging.info("MedGen: this Slicer has no Sample Data module")
        return
    known = {source.sampleName for source in SampleData.SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)}
    for sample in SAMPLES:
        if sample.title in known:
            continue
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.title,
            uris=[sample.path.as_uri()],
            fileNames=[sample.file],
            nodeNames=[sample.nodeName],
            checksums=[f"SHA256:{sample.sha256}"],
            loadFileTypes=["SegmentationFile" if sample.segments else "VolumeFile"],
            thumbnailFileName=str(sample.thumbnail),
            customDownloader=_onButton,
        )


def forModel(model: str) -> Sample | None:
    """The example for the model of this name, if there is one."""
    return next((sample for sample in SAMPLES if model in sample.models), None)


def loadFor(model: str):
    """Load the example for a model and return its node.

    Raises
    ------
    InputError: there is no example for this model, or its file is missing or damaged.
    """
    sample = forModel(model)
    if sample is None:
        message = _("There is no sample data for the model {model}; load a scan of your own.")
        raise InputError(message.format(model=model))
    return loadSample(sample.name)


def loadSample(name: str):
    """Load the example of this name or title and return its node: a segmentation with named segments, or a volume.

    Raises
    ------
    InputError: no example has this name, or its file is missing, damaged or cannot be read.
    """
    from MedGenSlicer.results.fit import emptyViews, fitWhereUnseen

    sample = next((sample for sample in SAMPLES if name in (sample.name, sample.title)), None)
    if sample is None:
        known = ", ".join(sample.name for sample in SAMPLES)
        raise InputError(_("There is no sample called {name}; there are {known}.").format(name=name, known=known))
    _check(sample)
    empty = emptyViews()
    node = _loadSegmentation(sample) if sample.segments else _loadFile(sample, show=True)
    fitWhereUnseen(node, empty)
    return node


def _onButton(source) -> list:
    """The Sample Data module calls it with the source whose button was pressed."""
    with slicer.util.tryWithErrorDisplay(_("The sample data could not be loaded.")):
        return [loadSample(source.sampleName)]


def _check(sample: Sample) -> None:
    try:
        digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            _("The sample file {path} cannot be read; install the MedGen extension again.").format(path=sample.path)
        ) from error
    if digest != sample.sha256:
        raise InputError(
            _("The sample file {path} is damaged; install the MedGen extension again.").format(path=sample.path)
        )


def _loadFile(sample: Sample, show: bool, **properties):
    # A new dictionary each time, because slicer.util writes into it; the reader makes the name unique.
    chosen = {"name": sample.nodeName, "show": show, **properties}
    try:
        return slicer.util.loadVolume(str(sample.path), chosen)
    except RuntimeError as error:
        raise InputError(_("Slicer cannot read the sample file {path}.").format(path=sample.path)) from error


def _loadSegmentation(sample: Sample):
    """The label map's values become segments with the names and colors of the example."""
    name = slicer.mrmlScene.GenerateUniqueName(sample.nodeName)
    labels = _loadFile(sample, show=False, labelmap=True)
    try:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(labels)
        for value, (segmentName, *color) in enumerate(sample.segments, 1):
            _addSegment(node, labels, value, segmentName, color)
    finally:
        slicer.mrmlScene.RemoveNode(labels)
    return node


def _addSegment(node, labels, value: int, name: str, color) -> None:
    threshold = vtk.vtkImageThreshold()
    threshold.SetInputData(labels.GetImageData())
    threshold.ThresholdBetween(value, value)
    threshold.SetInValue(1)
    threshold.SetOutValue(0)
    threshold.SetOutputScalarTypeToUnsignedChar()
    threshold.Update()
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(threshold.GetOutput())
    matrix = vtk.vtkMatrix4x4()
    labels.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    node.AddSegmentFromBinaryLabelmapRepresentation(image, name, color)
