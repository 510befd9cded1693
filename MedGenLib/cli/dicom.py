"""`medgen dicom`: a volume as a DICOM series, or labels as a DICOM segmentation."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from MedGenLib import provenance
from MedGenLib.cli.console import Console
from MedGenLib.dicom import check_folder, write_segmentation, write_series
from MedGenLib.dicom.terms import sentence_on
from MedGenLib.errors import InputError
from MedGenLib.files import read_label_map, read_volume
from MedGenLib.volume import Volume

_MODALITIES = {"ct": "CT", "mr": "MR", "t1w": "T1w", "t2w": "T2w"}


def export(arguments: Namespace, console: Console) -> int:
    """IMAGE -> the files of a new series in a new or empty folder."""
    check_folder(arguments.output)
    facts = provenance.read(arguments.image)
    options: dict[str, Any] = {
        "source": arguments.like, "series": arguments.series, "facts": facts,
        "deidentify": arguments.deidentify, "progress": console,
    }  # fmt: skip
    notes = []
    if arguments.labels:
        labels = read_label_map(arguments.image)
        files = write_segmentation(labels, arguments.output, **options)
        notes += sentence_on(labels)
    else:
        volume = _volume(arguments, facts)
        if arguments.like is None and arguments.image.is_dir():
            options["source"] = arguments.image
        files = write_series(volume, arguments.output, **options)
        notes += volume.notes
        if facts is None:
            notes.append(f"{arguments.image} does not tell how it was made, so the series is not "
                         "marked as synthetic.")  # fmt: skip
    if arguments.deidentify:
        notes.append("Names, dates and numbers were removed, the voxels were not changed: a face "
                     "can still be recognised in a head.")  # fmt: skip
    console.say(f"Wrote {len(files)} DICOM file{'s' * (len(files) > 1)} into {arguments.output}")
    for sentence in notes:
        console.note(sentence)
    return 0


def _volume(arguments: Namespace, facts: provenance.Provenance | None) -> Volume:
    """The image, with the modality that the user, its provenance or itself names."""
    modality = None
    if arguments.modality is not None:
        modality = _MODALITIES.get(arguments.modality.lower())
        if modality is None:
            raise InputError(f'The modality "{arguments.modality}" cannot be a DICOM series; give '
                             "CT or MR.")  # fmt: skip
    if modality is None and facts is not None:
        modality = facts.modality
    return read_volume(arguments.image, None if arguments.like else arguments.series, modality)
