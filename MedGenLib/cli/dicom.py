"""`medgen dicom`: a volume as a DICOM series, or labels as a DICOM segmentation."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from MedGenLib.cli.arguments import add_arguments
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io import provenance, recorded
from MedGenLib.io.dicom import check_folder, write_segmentation, write_series
from MedGenLib.io.dicom.terms import sentence_on
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.vocabulary import TABLES, table
from MedGenLib.packages.catalogue import catalogue

STILL_THERE = (
    "Names, dates and numbers were removed from the DICOM series, but the voxels are unchanged: a "
    "face can still be recognized in a head."
)
"""Note on --deidentify."""
_MODALITIES = {"ct": "CT", "mr": "MR", "t1w": "T1w", "t2w": "T2w"}


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume or label volume")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the new series")
    parser.add_argument(
        "--like", type=Path, metavar="DIR", help="DICOM series of the patient: the new series goes into that study"
    )
    parser.add_argument("--series", metavar="UID", help="which series of --like to follow")
    parser.add_argument("--labels", action="store_true", help="IMAGE is a label volume")
    parser.add_argument(
        "--names",
        metavar="WHOSE",
        help="origin of the label numbers, if the file has no names: a model such as ct-tissue, totalsegmentator, "
        "freesurfer, vista3d or maisi; segments get its names and codes",
    )
    parser.add_argument("--modality", metavar="CT|MR", help="if the file does not state it")
    add_arguments(parser, "generate", "deidentify")


@command(
    "dicom",
    "write a volume as a DICOM series, or labels as a DICOM segmentation",
    "Synthetic images are marked in standard attributes.",
    extra_arguments,
)
def export(arguments: Namespace, console: Console) -> int:
    """IMAGE -> files of a new series in a new or empty folder."""
    check_folder(arguments.output)
    if arguments.names is not None and not arguments.labels:
        raise InputError("--names is for label volumes; add --labels, or leave it out.")
    facts = recorded.read(arguments.image)
    options: dict[str, Any] = {
        "source": arguments.like,
        "series": arguments.series,
        "facts": facts,
        "deidentify": arguments.deidentify,
        "progress": console,
    }
    if arguments.labels:
        labels = _named(read_label_map(arguments.image), arguments.names)
        notes = [*labels.notes, *sentence_on(labels)]
        if arguments.names is None and not all(map(labels.names.get, labels.values())):
            notes.append(
                "Not all labels have a name in the file; give the origin of the numbers "
                "with --names, for instance --names ct-tissue."
            )
        console.announce(notes)
        files = write_segmentation(labels, arguments.output, **options)
    else:
        volume = _volume(arguments, facts)
        if arguments.like is None and arguments.image.is_dir():
            options["source"] = arguments.image
        notes = [*volume.notes, *_doubts(arguments, facts)]
        if facts is None:
            notes.append(
                f"{arguments.image} does not record how it was made, so the series is not marked as synthetic."
            )
        console.announce(notes)
        files = write_series(volume, arguments.output, **options)
    console.wrote(f"{len(files)} DICOM file{'s' * (len(files) > 1)} into {arguments.output}")
    if arguments.deidentify:
        console.note(STILL_THERE)
    return 0


def _doubts(arguments: Namespace, facts: provenance.Provenance | None) -> list[str]:
    """A sentence if the image was not made from the voxels of the patient's series."""
    made_from = [source for source in facts.inputs if source.role == "image"] if facts else []
    if arguments.like is None or not any(source.sha256 for source in made_from):
        return []
    patient = provenance.content_hash(read_volume(arguments.like, arguments.series))
    if patient in (source.sha256 for source in made_from):
        return []
    names = ", ".join(source.name or "an unnamed file" for source in made_from)
    return [
        f"The image was made from {names}, whose voxels are not those of {arguments.like}; make "
        "sure that it shows the same patient."
    ]


def _named(labels: LabelMap, whose: str | None) -> LabelMap:
    """Give labels without a name the name in a table or a model."""
    if whose is None:
        return labels
    names = {value: labels.names.get(value) or name for value, name in _names(whose).items()}
    return labels.with_array(labels.array, {**labels.names, **names})


def _names(whose: str) -> dict[int, str]:
    if whose in TABLES:
        return table(whose).names
    models = {model.name: model.input.labels or model.output.labels for model in catalogue()}
    if not models.get(whose):
        known = ", ".join([*TABLES, *(name for name, labels in models.items() if labels)])
        raise InputError(f'The label names of "{whose}" are unknown; choose one of {known}.')
    return {value: label.name for value, label in models[whose].items()}


def _volume(arguments: Namespace, facts: provenance.Provenance | None) -> Volume:
    """The image, with the modality from the option, its provenance or the file."""
    modality = None
    if arguments.modality is not None:
        modality = _MODALITIES.get(arguments.modality.lower())
        if modality is None:
            raise InputError(f'The modality "{arguments.modality}" cannot be a DICOM series; give CT or MR.')
    if modality is None and facts is not None:
        modality = facts.modality
    return read_volume(arguments.image, None if arguments.like else arguments.series, modality)
