"""`medgen detect`: candidates of lesions in an image."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Volume
    from MedGenLib.segmentation.detection import Detection


@command(
    "detect",
    "find candidates of lesions in an image",
    "Each candidate has a score, a position and a size; they are no diagnosis. The model comes from `medgen train "
    "segmenter --data CONFIG.json` with a package of the task detect, see the page on it.",
)
def detect(arguments: Namespace, console: Console) -> int:
    """Write the candidates in all forms asked for, and print them."""
    from MedGenLib.cli.run import read_input
    from MedGenLib.io.atomic import Outputs
    from MedGenLib.options import validate
    from MedGenLib.segmentation.detection import detect as find

    options = validate("detect", from_namespace("detect", arguments))
    with Outputs(_paths(arguments), overwrite=arguments.overwrite, keep=[arguments.image]) as outputs:
        image = read_input("detect", "image", arguments.image, vars(arguments))
        found = find(**{**options, "image": image}, progress=console)
        _write(found, image, arguments, outputs, console)
        outputs.commit()
    for path in outputs.paths:
        console.wrote(f"{path}")
    if found.candidates:
        names = list(found.rows[0])
        console.say(table(names, [[f"{row[name]:g}" for name in names] for row in found.rows]))
    for note in found.notes:
        if not console.has_announced(note):
            console.note(note)
    return 0


def _paths(arguments: Namespace) -> list[Path]:
    """All files and folders of the run, checked."""
    from MedGenLib.io.dicom import check_folder
    from MedGenLib.io.files import WRITABLE, check_output_path
    from MedGenLib.io.markups import SUFFIX

    wanted = [
        (arguments.output, WRITABLE),
        (arguments.markups, (SUFFIX,)),
        (arguments.table, (".csv",)),
        (arguments.report, (".json",)),
    ]
    paths = [check_output_path(path, suffixes, new_folder=True) for path, suffixes in wanted if path is not None]
    if (folder := arguments.dicom) is None:
        if arguments.deidentify:
            raise InputError("--deidentify is for DICOM; add --dicom with a folder.")
        return paths
    if arguments.image.exists() and not arguments.image.is_dir():
        raise InputError(f"{arguments.image} is no DICOM folder, to which a DICOM segmentation belongs; omit --dicom.")
    if check_folder(folder).exists():
        raise InputError(f"The folder {folder} exists already; give a new one for the DICOM segmentation.")
    return [*paths, folder]


def _write(found: Detection, image: Volume, arguments: Namespace, outputs: Any, console: Console) -> None:
    from dataclasses import replace

    from MedGenLib.evaluation.tables import csv_text
    from MedGenLib.io.atomic import write_json
    from MedGenLib.io.dicom import write_segmentation
    from MedGenLib.io.files import write_volume
    from MedGenLib.io.markups import write_points
    from MedGenLib.io.provenance import Source
    from MedGenLib.run_files import with_forms

    facts = replace(found.provenance(), inputs=(Source.of("image", image, arguments.image),))
    write_volume(with_forms(found.labels, [image]), outputs.staged(arguments.output), facts)
    if (path := arguments.markups) is not None:
        names = found.labels.names.values()
        points = [(name, one.text, one.position_lps) for name, one in zip(names, found.candidates, strict=True)]
        write_points(points, outputs.staged(path))
    if (path := arguments.table) is not None:
        outputs.staged(path).write_text(csv_text(found.rows), encoding="utf-8")
    if (path := arguments.report) is not None:
        write_json(outputs.staged(path), {**facts.to_dict(), "candidates": found.rows})
    if (folder := arguments.dicom) is not None:
        if not found.candidates:
            raise InputError(f"{found.notes[-2]} There is nothing for a DICOM segmentation; omit --dicom.")
        options = {"series": arguments.series, "deidentify": arguments.deidentify, "progress": console}
        write_segmentation(found.labels, outputs.staged(folder), source=arguments.image, facts=facts, **options)
