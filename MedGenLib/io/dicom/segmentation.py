"""Writing label maps as DICOM Segmentation objects with the library highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib import __version__
from MedGenLib.errors import InputError
from MedGenLib.imaging.colors import rgb
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.dicom.deidentify import deidentified, mark
from MedGenLib.io.dicom.elements import LONG_STRING, SYNTHETIC, code, decimal, decimals, shortened
from MedGenLib.io.dicom.facts import as_facts, comment, without_patient
from MedGenLib.io.dicom.folder import new_files
from MedGenLib.io.dicom.headers import integer
from MedGenLib.io.dicom.identity import identity_of, new_uid
from MedGenLib.io.dicom.planes import cut
from MedGenLib.io.dicom.source import SourceSeries
from MedGenLib.io.dicom.terms import name_of, term_of
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset

FILE = "segmentation.dcm"


def write_segmentation(
    labels: LabelMap,
    folder: str | Path,
    *,
    source: str | Path | Sequence[str | Path] | None,
    series: str | None = None,
    facts: Any = None,
    description: str = "",
    deidentify: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Write a label map as one DICOM Segmentation object with a segment for each label present.

    A segment has the label's name and the SNOMED CT codes of `terms.term_of`. The grid may differ
    from that of the images; it is in their frame of reference.

    Parameters
    ----------
    source: image series that the labels belong to, as a folder or as files.
    facts: record of how the labels were made: a `Provenance`, a dict with the same keys, or None.
    folder, series, description, deidentify: as in `write_series`.

    Returns
    -------
    The file, in a list.

    Raises
    ------
    InputError: there is no label or no source, highdicom is missing, or as in `write_series`.
    """
    hd = _library()
    values = labels.values()
    if not values:
        raise InputError(
            "The label volume is empty, so there is nothing to write as a DICOM segmentation; give one with labels."
        )
    if source is None:
        raise InputError(
            "A DICOM segmentation belongs to an image series; give that series "
            "(--like), or write the image as DICOM first."
        )
    patient = SourceSeries.read(source, series)
    patient.check_overlap(labels.geometry)
    facts = as_facts(facts)
    if deidentify:
        patient, description = deidentified(patient), ""
        facts = without_patient(facts)

    stage = Stage("writing DICOM", 2, progress)
    slices = cut(labels, patient.directions)
    references = _references(patient, deidentify)
    segments = np.where(slices.pixels > 0, np.searchsorted(values, slices.pixels) + 1, 0)
    segmentation = hd.seg.Segmentation(
        source_images=references,
        pixel_array=hd.Volume(
            segments.astype(np.min_scalar_type(len(values))),
            slices.affine,
            coordinate_system="PATIENT",
            frame_of_reference_uid=references[0].FrameOfReferenceUID,
        ),
        segmentation_type="BINARY",
        segment_descriptions=[
            _segment(hd, number, value, labels, facts) for number, value in enumerate(values, start=1)
        ],
        series_instance_uid=new_uid(),
        series_number=9000 + integer(patient.header, "SeriesNumber") % 1000,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer="MedGen",
        manufacturer_model_name="MedGen",
        software_versions=f"MedGen {__version__}",
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description=shortened(description or "Labels written by MedGen"),
        series_description=shortened(f"MedGen labels: {description}" if description else "MedGen labels", LONG_STRING),
    )
    _complete(segmentation, patient, facts, deidentify)
    stage.advance()
    with new_files(folder, [FILE], labels.array.size // 8 * len(values)) as outputs:
        segmentation.save_as(outputs.staged(outputs.paths[0]))
        stage.advance()
    return outputs.paths


def _library():
    try:
        import highdicom

        highdicom.seg.Segmentation, highdicom.Volume  # noqa: B018  versions before 0.25 lack Volume
    except (ImportError, AttributeError):
        raise InputError(
            "Writing a DICOM segmentation needs the Python package highdicom, version 0.25 or "
            "newer; install it, or save the labels as .nrrd."
        ) from None
    return highdicom


def _references(patient: SourceSeries, deidentify: bool) -> list[Dataset]:
    """Data sets with the attributes of the source images that highdicom requires.

    They are built from checked attributes only, so that no other attribute of the source is copied.
    """
    from pydicom.dataset import Dataset

    identity = identity_of(patient.header)
    if deidentify:
        mark(identity)
    references = []
    for number, image in enumerate(patient.images, start=1):
        reference = Dataset(dict(identity.items()))
        reference.SOPClassUID, reference.SOPInstanceUID = image.instance
        reference.SeriesInstanceUID = patient.header.SeriesInstanceUID
        reference.Modality = patient.header.Modality
        reference.InstanceNumber = number
        reference.Columns, reference.Rows = image.size
        reference.PixelSpacing = decimals(image.pixel[::-1])
        reference.SliceThickness = decimal(image.thickness or 1.0)
        reference.ImagePositionPatient = decimals(image.position)
        reference.ImageOrientationPatient = decimals([*image.row, *image.column])
        references.append(reference)
    return references


def _segment(hd: Any, number: int, value: int, labels: LabelMap, facts: Mapping[str, Any]) -> SegmentDescription:
    label = shortened(name_of(value, labels.names.get(value)))
    color = labels.colors.get(value)
    term = term_of(label)
    category, kind = (hd.sr.CodedConcept(word.value, word.scheme, word.meaning) for word in (term.category, term.type))
    # The algorithm is required. Labels without provenance may have been drawn by hand.
    family = ("123110", "Artificial Intelligence") if facts else ("123109", "Manual Processing")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=shortened(str(facts.get("model") or "not known")),
        family=hd.sr.CodedConcept(family[0], "DCM", family[1]),
        version=shortened(str(facts.get("version") or "not known")),
    )
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC" if facts else "SEMIAUTOMATIC",
        algorithm_identification=algorithm,
        display_color=None if color is None else hd.color.CIELabColor.from_rgb(*rgb(color)),
    )
    segment.SegmentDescription = f"Label {value} of the mask"
    if term.modifiers:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            code(word.value, word.meaning, word.scheme) for word in term.modifiers
        ]
    return segment


def _complete(segmentation: Dataset, patient: SourceSeries, facts: Mapping[str, Any], deidentify: bool) -> None:
    """Set the attributes that highdicom does not set."""
    if deidentify:
        mark(segmentation)
        # The content date is required; the profile allows a dummy.
        segmentation.ContentDate, segmentation.ContentTime = "19000101", "000000"
        segmentation.StudyDate = segmentation.StudyTime = ""
        del segmentation.ContributingEquipmentSequence[0].ContributionDateTime
    if patient.is_synthetic:
        segmentation.ContentQualification = "RESEARCH"
        segmentation.SeriesDescription = shortened(f"{SYNTHETIC} {segmentation.SeriesDescription}")
    if facts:
        segmentation.ImageComments = comment(facts)
