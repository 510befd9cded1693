"""DICOM in and out: series are read and written, masks written, patients taken out of headers.

Nothing heavy is imported before it is used: pydicom, highdicom and dicom-anonymizer load inside
the functions.
"""

from .facts import read_facts
from .folder import check_folder
from .reading import Series, list_series, read_series
from .segmentation import write_segmentation
from .series import write_series

__all__ = ["Series", "check_folder", "list_series", "read_facts", "read_series",
           "write_segmentation", "write_series"]  # fmt: skip
