"""The worker's method that writes DICOM: an image as a series, labels as a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("dicom")
def write_dicom(
    job: Request,
    folder: str,
    image: dict[str, Any] | None = None,
    labels: dict[str, Any] | None = None,
    source: str | Sequence[str] | None = None,
    series: str | None = None,
    description: str = "",
    deidentify: bool = False,
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write an image or labels into a new or empty folder.

    Parameters
    ----------
    image, labels: one of them, in the form of `transfer.put`; an image needs its modality.
    source: folder or files of the patient's series; required for labels.
    provenance: dictionary of `MedGenLib.io.provenance.Provenance.to_dict`; None for an image not known to be synthetic.

    Returns
    -------
    files: the paths; series: SeriesInstanceUID; sentences: notes for the user.
    """
    import pydicom

    from MedGenLib.io.dicom import write_segmentation, write_series
    from MedGenLib.worker.protocol.transfer import take

    if (image is None) == (labels is None):
        raise InputError("The request has both an image and labels, or neither; give one of them.")
    options = {
        "source": source or None,
        "series": series,
        "facts": provenance or None,
        "description": description,
        "deidentify": deidentify,
        "progress": job.progress,
    }
    sentences = []
    if image is not None:
        files = write_series(take({**image, "kind": "volume"}), folder, **options)
    else:
        from MedGenLib.io.dicom.terms import sentence_on

        mask = take({**labels, "kind": "labels"})
        files = write_segmentation(mask, folder, **options)
        sentences += sentence_on(mask)
    header = pydicom.dcmread(files[0], specific_tags=["SeriesInstanceUID"])
    return {"files": [str(path) for path in files], "series": str(header.SeriesInstanceUID), "sentences": sentences}
