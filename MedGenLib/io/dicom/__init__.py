"""DICOM: reading and writing image series, writing segmentations, de-identification.

pydicom, highdicom and dicom-anonymizer are imported inside the functions that use them.
"""

from MedGenLib.io.dicom.facts import read_facts
from MedGenLib.io.dicom.folder import check_folder
from MedGenLib.io.dicom.masks import find_mask, read_mask
from MedGenLib.io.dicom.outlines import read_outlines
from MedGenLib.io.dicom.pixels import LOWEST_HU, NO_INTERCEPT
from MedGenLib.io.dicom.reading import read_series
from MedGenLib.io.dicom.scan import Series, list_series
from MedGenLib.io.dicom.segmentation import write_segmentation
from MedGenLib.io.dicom.series import write_series

__all__ = [
    "LOWEST_HU",
    "NO_INTERCEPT",
    "Series",
    "check_folder",
    "find_mask",
    "list_series",
    "read_facts",
    "read_mask",
    "read_outlines",
    "read_series",
    "write_segmentation",
    "write_series",
]
