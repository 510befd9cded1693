"""Writing a volume as a DICOM series of single images: CT Image Storage or MR Image Storage.

The attributes follow PS3.3 A.3 (CT) and A.4 (MR). A synthetic image says that it is one in Image
Type, Content Qualification, Derivation Description and Code, Contributing Equipment and Image
Comments, and in the description of its series, which every viewer shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import MR_MODALITIES
from MedGenLib.imaging.volume import Volume, check_finite
from MedGenLib.io.dicom import facts as told
from MedGenLib.io.dicom.deidentify import deidentified, mark
from MedGenLib.io.dicom.elements import LONG_STRING, SYNTHETIC, code, decimal, decimals, shortened
from MedGenLib.io.dicom.encoding import Encoding
from MedGenLib.io.dicom.folder import new_files
from MedGenLib.io.dicom.identity import derived_uid, identity_of, new_uid, synthetic_identity
from MedGenLib.io.dicom.planes import Slices, cut
from MedGenLib.io.dicom.source import SourceSeries
from MedGenLib.io.provenance import content_hash
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from MedGenLib.io.dicom.reading import ImageHeader

_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_HEADER_BYTES = 8192
"""What a file takes beside its pixels, generously."""


def write_series(
    volume: Volume,
    folder: str | Path,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    series: str | None = None,
    facts: Any = None,
    description: str = "",
    deidentify: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Write a volume as a new DICOM series; it appears complete or not at all.

    Voxels keep their place in the patient and their value, rounded to a whole number of HU or
    arbitrary units (numbers of a small span are scaled up instead, with a rescale slope).

    Parameters
    ----------
    volume: its modality decides on CT or MR ("T1w", "T2w" are MR).
    folder: new or empty; its parent is there.
    source: a series of the patient, as its folder or its files: the new one joins its patient,
        study and frame of reference and refers to its images. None makes a new patient.
    series: which of several series of `source`, by number or UID.
    facts: how the image was made: a `Provenance`, or a dict of the same keys. None writes an image
        that is derived, but not called synthetic.
    description: goes into the series' description; left out when de-identifying.
    deidentify: remove the patient (PS3.15, basic profile) and give other, consistent UIDs.

    Returns
    -------
    The files, by place along the normal of the slices.

    Raises
    ------
    InputError: no known modality, values that are not finite, a folder that holds files or cannot
        be written, a source that is no series or does not overlap the volume.
    """
    facts = told.as_facts(facts)
    modality = _modality(volume, facts)
    check_finite(volume, "The volume")
    patient = None if source is None else SourceSeries.read(source, series)
    if patient is not None:
        patient.check_overlap(volume.geometry)
    if deidentify:
        patient = None if patient is None else deidentified(patient)
        facts, description = told.without_patient(facts), ""

    slices = cut(volume, None if patient is None else patient.directions)
    encoding = Encoding.of(volume.array, modality)
    if facts.get("output_sha256"):
        facts["output_sha256"] = _hash_as_read(slices, encoding)
    common = _common(volume, modality, patient, facts, description, deidentify)
    _add_values(common, slices, encoding, modality)
    images = [None] * len(slices.positions) if patient is None else patient.behind(slices)

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
            f"This volume holds no image but the {facts['content']} of one, which is "
            "neither CT nor MR; keep it as .nrrd or .nii.gz."
        )
    if volume.modality == "CT":
        return "CT"
    if volume.modality in MR_MODALITIES:
        return "MR"
    known = f'"{volume.modality}" is neither' if volume.modality else "it is not known which it is"
    raise InputError(
        f"A DICOM series is CT or MR, but {known}; say what the image is (--modality CT or --modality MR)."
    )


def _hash_as_read(slices: Slices, encoding: Encoding) -> str:
    """Content hash of what `read_series` makes of the files: turned, and rounded to 16 bits."""
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
    """What all images of the series share, but pixels and geometry."""
    common = synthetic_identity(facts) if patient is None else identity_of(patient.header)
    now = datetime.now()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.SOPClassUID, common.Modality = _CLASSES[modality], modality
    common.SeriesInstanceUID = new_uid()
    common.SeriesNumber = _series_number(patient)
    is_synthetic = bool(facts) or (patient is not None and patient.is_synthetic)
    common.SeriesDescription = _series_description(volume, facts, description, is_synthetic)
    common.InstanceCreatorUID = derived_uid("medgen")
    common.Manufacturer, common.ManufacturerModelName = "MedGen", "MedGen"
    common.SoftwareVersions = _version()
    if not deidentify:
        for moment in ("InstanceCreation", "Series", "Content"):
            setattr(common, f"{moment}Date", now.strftime("%Y%m%d"))
            setattr(common, f"{moment}Time", now.strftime("%H%M%S"))
    common.BurnedInAnnotation, common.LossyImageCompression = "NO", "00"
    is_phantom = common.get("QualityControlSubject") == "YES"
    common.QualityControlImage = "YES" if is_phantom else "NO"
    common.DerivationDescription = told.derivation(facts, volume.modality or modality)
    common.ContributingEquipmentSequence = _equipment(patient, facts, deidentify)
    if is_synthetic:
        common.ContentQualification = "RESEARCH"
    if facts:
        common.DerivationCodeSequence = [code("123110", "Artificial Intelligence")]
        common.ImageComments = told.comment(facts)
    if deidentify:
        mark(common)
        common.StudyDate = common.StudyTime = ""
    return common


def _series_number(patient: SourceSeries | None) -> int:
    """Far from the numbers that scanners give, but telling which series it was made from."""
    return 1 if patient is None else 9000 + int(patient.header.get("SeriesNumber") or 0) % 1000


def _series_description(volume: Volume, facts: Mapping[str, Any], description: str, is_synthetic: bool) -> str:
    words = SYNTHETIC if is_synthetic else "DERIVED"
    words += f" {volume.modality}"
    if told.model_of(facts):
        words += f" {told.model_of(facts)}"
    return shortened(f"{words}: {description}" if description else words, LONG_STRING)


def _equipment(patient: SourceSeries | None, facts: Mapping[str, Any], deidentify: bool) -> list[Dataset]:
    """Who had a part in the image (CID 7005): the scanner of the source, the model, ourselves."""
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
                [*versions, _version()],
                "Model that made the image",
            )
        )
    else:
        purposes.append(
            ("109102", "Processing Equipment", "MedGen", "MedGen", [_version()], "Wrote the image as DICOM")
        )
    if deidentify:
        purposes.append(
            ("109104", "De-identifying Equipment", "MedGen", "MedGen", [_version()], "Removed the patient's identity")
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


def _version() -> str:
    from MedGenLib import __version__

    return f"MedGen {__version__}"


def _add_values(common: Dataset, slices: Slices, encoding: Encoding, modality: str) -> None:
    """The attributes of Image Plane, Image Pixel, VOI LUT and CT or MR Image that do not change."""
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
    common.ScanningSequence, common.SequenceVariant = "RM", "NONE"  # no scanner's sequence
    for keyword in ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"):
        setattr(common, keyword, "")


def _window(pixels: np.ndarray, modality: str) -> tuple[float, float]:
    """Centre and width to open the image with: soft tissue in CT, else nearly all values."""
    if modality == "CT":
        return 40.0, 400.0
    low, high = (float(v) for v in np.percentile(pixels, (0.5, 99.5)))
    return (low + high) / 2, max(high - low, 1.0)


def _image(
    common: Dataset,
    slices: Slices,
    encoding: Encoding,
    number: int,
    behind: tuple[ImageHeader, bool] | None,
    patient: SourceSeries | None,
) -> Dataset:
    """One file: slice `number`, from 1."""
    from pydicom.dataset import FileDataset

    # A shallow copy: from here on attributes are only added, as the others are shared.
    image = FileDataset("", dict(common.items()), preamble=b"\0" * 128, is_implicit_VR=False)
    image.SOPInstanceUID = new_uid()
    image.file_meta = _file_meta(common.SOPClassUID, image.SOPInstanceUID)
    image.InstanceNumber = number
    image.ImagePositionPatient = decimals(slices.positions[number - 1])
    image.SliceLocation = decimal(slices.positions[number - 1] @ slices.normal)
    if behind is not None and patient is not None:
        _refer(image, *behind, patient)
    stored = encoding.store(slices.pixels[number - 1])
    image.PixelData = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OW"
    return image


def _file_meta(sop_class: str, instance: str) -> Dataset:
    from pydicom.dataset import FileMetaDataset

    from MedGenLib import __version__

    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom counts
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = _EXPLICIT_LITTLE_ENDIAN
    meta.ImplementationClassUID = derived_uid("medgen")
    meta.ImplementationVersionName = shortened(f"MEDGEN_{__version__}", 16)
    return meta


def _refer(image: Dataset, behind: ImageHeader, shares_pixels: bool, patient: SourceSeries) -> None:
    """Name the image of the source that lies in the same plane (General Reference Module)."""
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = behind.instance
    of_source = Dataset()
    of_source.ReferencedSOPClassUID, of_source.ReferencedSOPInstanceUID = behind.instance
    of_source.SpatialLocationsPreserved = "YES" if shares_pixels else "NO"
    of_source.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
    image.SourceImageSequence = [of_source]
    series = Dataset()
    series.SeriesInstanceUID = patient.header.SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference]
    image.ReferencedSeriesSequence = [series]
