"""Writing a volume as a DICOM series of single-frame images: CT or MR Image Storage.

The attributes follow PS3.3 A.3 (CT) and A.4 (MR). A synthetic image is marked as such in Image
Type, Content Qualification, Derivation Description and Code, Contributing Equipment and Image
Comments, and in the series description, which viewers display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib import __version__
from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import MR_MODALITIES
from MedGenLib.imaging.volume import Volume, check_finite
from MedGenLib.io.dicom.deidentify import deidentified, mark
from MedGenLib.io.dicom.elements import LONG_STRING, SYNTHETIC, code, decimal, decimals, shortened
from MedGenLib.io.dicom.encoding import Encoding
from MedGenLib.io.dicom.facts import as_facts, comment, derivation, model_of, without_patient
from MedGenLib.io.dicom.folder import new_files
from MedGenLib.io.dicom.headers import integer
from MedGenLib.io.dicom.identity import derived_uid, identity_of, new_uid, synthetic_identity
from MedGenLib.io.dicom.planes import Slices, cut
from MedGenLib.io.dicom.source import SourceSeries
from MedGenLib.io.provenance import content_hash
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from MedGenLib.io.dicom.scan import ImageHeader

_WRITER = f"MedGen {__version__}"
_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_HEADER_BYTES = 8192
"""Upper limit of the bytes of a file besides its pixels."""


def write_series(
    volume: Volume,
    folder: str | Path,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    series: str | None = None,
    facts: Any = None,
    description: str = "",
    temporal: tuple[int, int] | None = None,
    deidentify: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Write a volume as a new DICOM series, which appears complete or not at all.

    Voxels are not resampled. Values are rounded to integers in HU or arbitrary units; a small range
    is stored with a rescale slope instead, see `Encoding.of`.

    Parameters
    ----------
    volume: its modality selects CT or MR; "T1w" and "T2w" are MR.
    folder: new or empty.
    source: a series of the patient, as a folder or as files. The new series has its patient, study
        and frame of reference and refers to its images. None creates a new patient.
    series: number or UID of the series, if `source` holds several.
    facts: record of how the image was made: a `Provenance`, or a dict with the same keys. With None
        the image is marked as derived, but not as synthetic.
    description: part of the series description; left out when de-identifying.
    temporal: for one time of several: its number from 1, and how many there are.
    deidentify: de-identify (PS3.15, basic profile) and replace UIDs consistently.

    Returns
    -------
    The files, in order along the normal of the slices.

    Raises
    ------
    InputError: the modality is unknown, values are not finite, the folder holds files or is not
        writable, or the source is not a series or does not overlap the volume.
    """
    facts = as_facts(facts)
    modality = _modality(volume, facts)
    check_finite(volume, "The volume")
    patient = None if source is None else SourceSeries.read(source, series)
    if patient is not None:
        patient.check_overlap(volume.geometry)
    if deidentify:
        patient = None if patient is None else deidentified(patient)
        facts, description = without_patient(facts), ""

    slices = cut(volume, None if patient is None else patient.directions)
    encoding = Encoding.of(volume.array, modality)
    if facts.get("output_sha256"):
        facts["output_sha256"] = _hash_as_read(slices, encoding)
    common = _common(volume, modality, patient, facts, description, deidentify)
    _add_values(common, slices, encoding, modality)
    if temporal is not None:
        common.SeriesNumber += temporal[0] - 1
        common.TemporalPositionIdentifier, common.NumberOfTemporalPositions = temporal
    images = [None] * len(slices.positions) if patient is None else patient.coplanar(slices)

    names = [f"{modality}{number:04d}.dcm" for number in range(1, len(images) + 1)]
    stage = Stage("writing DICOM", len(names), progress)
    with new_files(folder, names, volume.array.size * 2 + len(names) * _HEADER_BYTES) as outputs:
        for number, path in enumerate(outputs.paths, start=1):
            image = _image(common, slices, encoding, number, images[number - 1], patient)
            image.save_as(outputs.staged(path))
            stage.advance()
    return outputs.paths


def _modality(volume: Volume, facts: Mapping[str, Any]) -> str:
    if facts.get("content", "image") != "image":
        raise InputError(
            f"This volume is the {facts['content']} of an image, which is neither CT nor MR; "
            "keep it as .nrrd or .nii.gz."
        )
    if volume.modality == "CT":
        return "CT"
    if volume.modality in MR_MODALITIES:
        return "MR"
    found = f'"{volume.modality}" is neither' if volume.modality else "the modality of this image is not known"
    raise InputError(f"A DICOM series is CT or MR, but {found}; give it with --modality CT or --modality MR.")


def _hash_as_read(slices: Slices, encoding: Encoding) -> str:
    """Content hash of the volume that `read_series` reads back: reoriented and rounded to 16 bits."""
    values = encoding.restore(encoding.store(slices.pixels)).transpose(2, 1, 0)
    return content_hash(Volume(values, np.eye(4)))


def _common(
    volume: Volume,
    modality: str,
    patient: SourceSeries | None,
    facts: Mapping[str, Any],
    description: str,
    deidentify: bool,
) -> Dataset:
    """Attributes that all images of the series share, except pixels and geometry."""
    common = synthetic_identity(facts) if patient is None else identity_of(patient.header)
    now = datetime.now()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.SOPClassUID, common.Modality = _CLASSES[modality], modality
    common.SeriesInstanceUID = new_uid()
    # above those of scanners, derived from the number of the source series
    common.SeriesNumber = 1 if patient is None else 9000 + integer(patient.header, "SeriesNumber") % 1000
    is_synthetic = bool(facts) or (patient is not None and patient.is_synthetic)
    common.SeriesDescription = _series_description(volume, facts, description, is_synthetic)
    common.InstanceCreatorUID = derived_uid("medgen")
    common.Manufacturer, common.ManufacturerModelName = "MedGen", "MedGen"
    common.SoftwareVersions = _WRITER
    if not deidentify:
        for moment in ("InstanceCreation", "Series", "Content"):
            setattr(common, f"{moment}Date", now.strftime("%Y%m%d"))
            setattr(common, f"{moment}Time", now.strftime("%H%M%S"))
    common.BurnedInAnnotation, common.LossyImageCompression = "NO", "00"
    is_phantom = common.get("QualityControlSubject") == "YES"
    common.QualityControlImage = "YES" if is_phantom else "NO"
    common.DerivationDescription = derivation(facts, volume.modality or modality)
    common.ContributingEquipmentSequence = _equipment(patient, facts, deidentify)
    if is_synthetic:
        common.ContentQualification = "RESEARCH"
    if facts:
        common.DerivationCodeSequence = [
            code("123110", "Artificial Intelligence") if model_of(facts) else code("113085", "Spatial resampling")
        ]
        common.ImageComments = comment(facts)
    if deidentify:
        mark(common)
        common.StudyDate = common.StudyTime = ""
    return common


def _series_description(volume: Volume, facts: Mapping[str, Any], description: str, is_synthetic: bool) -> str:
    words = SYNTHETIC if is_synthetic else "DERIVED"
    words += f" {volume.modality}"
    if model_of(facts):
        words += f" {model_of(facts)}"
    return shortened(f"{words}: {description}" if description else words, LONG_STRING)


def _equipment(patient: SourceSeries | None, facts: Mapping[str, Any], deidentify: bool) -> list[Dataset]:
    """Contributing equipment (CID 7005): scanner of the source, model, this software."""
    from pydicom.dataset import Dataset

    purposes = []
    if patient is not None and patient.header.get("Manufacturer"):
        model = str(patient.header.get("ManufacturerModelName") or "")
        maker = shortened(str(patient.header.Manufacturer))
        purposes.append(("109101", "Acquisition Equipment", maker, shortened(model), [], ""))
    if facts:
        versions = [str(facts["version"])] if facts.get("version") else []
        purposes.append(
            (
                "109100",
                "Synthesizing Equipment",
                "MedGen",
                shortened(str(facts.get("model") or "MedGen")),
                [*versions, _WRITER],
                "Model that made the image" if model_of(facts) else "Moved the voxels of an image",
            )
        )
    else:
        purposes.append(("109102", "Processing Equipment", "MedGen", "MedGen", [_WRITER], "Wrote the image as DICOM"))
    if deidentify:
        purposes.append(
            ("109104", "De-identifying Equipment", "MedGen", "MedGen", [_WRITER], "Removed the patient's identity")
        )
    items = []
    for value, meaning, maker, model, versions, contribution in purposes:
        item = Dataset()
        item.Manufacturer = maker
        for keyword, text in (
            ("ManufacturerModelName", model),
            ("SoftwareVersions", versions),
            ("ContributionDescription", contribution),
        ):
            if text:
                setattr(item, keyword, text)
        item.PurposeOfReferenceCodeSequence = [code(value, meaning)]
        items.append(item)
    return items


def _add_values(common: Dataset, slices: Slices, encoding: Encoding, modality: str) -> None:
    """Set the attributes of Image Plane, Image Pixel, VOI LUT and CT or MR Image that all images share."""
    common.ImageOrientationPatient = decimals([*slices.row, *slices.column])
    common.PixelSpacing = decimals(slices.pixel)
    common.SliceThickness = common.SpacingBetweenSlices = decimal(slices.gap)
    _, common.Rows, common.Columns = slices.pixels.shape
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = int(encoding.dtype is np.int16)
    common.WindowCenter, common.WindowWidth = decimals(_window(slices.pixels, modality))
    common.AcquisitionNumber = ""
    if modality == "CT" or not encoding.is_plain:
        common.RescaleSlope = decimal(encoding.slope)
        common.RescaleIntercept = decimal(encoding.intercept)
        common.RescaleType = "HU" if modality == "CT" else "US"
    if modality == "CT":
        common.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        common.KVP = ""
        return
    common.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    common.ScanningSequence, common.SequenceVariant = "RM", "NONE"  # not a scanner's sequence
    for keyword in ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"):
        setattr(common, keyword, "")


def _window(pixels: np.ndarray, modality: str) -> tuple[float, float]:
    """Initial window center and width: soft tissue in CT, else the 0.5th to 99.5th percentile."""
    if modality == "CT":
        return 40.0, 400.0
    low, high = (float(v) for v in np.percentile(pixels, (0.5, 99.5)))
    return (low + high) / 2, max(high - low, 1.0)


def _image(
    common: Dataset,
    slices: Slices,
    encoding: Encoding,
    number: int,
    coplanar: tuple[ImageHeader, bool] | None,
    patient: SourceSeries | None,
) -> Dataset:
    """Data set of slice `number`, from 1."""
    from pydicom.dataset import FileDataset

    # A shallow copy: shared attributes must not be changed below, only new ones added.
    image = FileDataset("", dict(common.items()), preamble=b"\0" * 128, is_implicit_VR=False)
    image.SOPInstanceUID = new_uid()
    image.file_meta = _file_meta(common.SOPClassUID, image.SOPInstanceUID)
    image.InstanceNumber = number
    image.ImagePositionPatient = decimals(slices.positions[number - 1])
    image.SliceLocation = decimal(slices.positions[number - 1] @ slices.normal)
    if coplanar is not None and patient is not None:
        _refer(image, *coplanar, patient)
    stored = encoding.store(slices.pixels[number - 1])
    image.PixelData = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OW"
    return image


def _file_meta(sop_class: str, instance: str) -> Dataset:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # computed by pydicom on saving
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = _EXPLICIT_LITTLE_ENDIAN
    meta.ImplementationClassUID = derived_uid("medgen")
    meta.ImplementationVersionName = shortened(f"MEDGEN_{__version__}", 16)
    return meta


def _refer(image: Dataset, coplanar: ImageHeader, shares_pixels: bool, patient: SourceSeries) -> None:
    """Refer to the source's image in the same plane (General Reference Module)."""
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = coplanar.instance
    of_source = Dataset()
    of_source.ReferencedSOPClassUID, of_source.ReferencedSOPInstanceUID = coplanar.instance
    of_source.SpatialLocationsPreserved = "YES" if shares_pixels else "NO"
    of_source.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
    image.SourceImageSequence = [of_source]
    series = Dataset()
    series.SeriesInstanceUID = patient.header.SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference]
    image.ReferencedSeriesSequence = [series]
