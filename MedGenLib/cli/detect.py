"""`medgen detect`: candidates of lesions in an image."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.detection import Detection
    from MedGenLib.imaging.volume import Volume
    from MedGenLib.io.atomic import Outputs


@command(
    "detect",
    "find candidates of lesions in an image",
    "Each candidate has a score, a position and a size; they are no diagnosis. The model comes from `medgen train "
    "segmenter --data CONFIG.json` with a package of the task detect, see the page on it.",
)
def detect(arguments: Namespace, console: Console) -> int:
    """Write the candidates in all forms asked for, and print them."""
    from MedGenLib.detection import detect as find
    from MedGenLib.io.atomic import Outputs
    from MedGenLib.options import validate
    from MedGenLib.run_files import read_input

    options = validate("detect", from_namespace("detect", arguments))
    with Outputs(_paths(arguments), overwrite=arguments.overwrite, keep=[arguments.image]) as outputs:
        image = read_input("detect", "image", arguments.image, vars(arguments))
        found = find(**{**options, "image": image}, progress=console)
        _write(found, image, arguments, outputs)
        if arguments.dicom is not None and not found.candidates:
            outputs.paths.remove(arguments.dicom)
            console.say("Without a candidate there is no DICOM segmentation.")
        outputs.commit()
    console.wrote(*outputs.paths)
    if found.candidates:
        console.say(table(list(found.rows[0]), [[f"{x:g}" for x in row.values()] for row in found.rows]))
    console.announce(list(found.notes))
    return 0


def _paths(arguments: Namespace) -> list[Path]:
    """All files and folders of the run, checked."""
    from MedGenLib.io.dicom import check_folder
    from MedGenLib.io.files import WRITABLE, check_output_path
    from MedGenLib.io.markups import SUFFIX

    forms = {"output": WRITABLE, "markups": (SUFFIX,), "table": (".csv",), "report": (".json",)}
    given = [(path, suffixes) for name, suffixes in forms.items() if (path := getattr(arguments, name)) is not None]
    paths = [check_output_path(path, suffixes, new_folder=True) for path, suffixes in given]
    folder, image = arguments.dicom, arguments.image
    if folder is None and arguments.deidentify:
        raise InputError("--deidentify is for DICOM; add --dicom with a folder.")
    if folder is not None and image.exists() and not image.is_dir():
        raise InputError(f"{image} is no DICOM folder, to which a DICOM segmentation belongs; leave out --dicom.")
    if folder is not None and check_folder(folder).exists():
        raise InputError(f"The folder {folder} exists already; give a new one for the DICOM segmentation.")
    return [*paths, *filter(None, (folder,))]


def _write(found: Detection, image: Volume, arguments: Namespace, outputs: Outputs) -> None:
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
        points = [(name, one.position_lps) for name, one in zip(names, found.candidates, strict=True)]
        write_points(points, outputs.staged(path))
    if (path := arguments.table) is not None:
        outputs.staged(path).write_text(csv_text(found.rows), encoding="utf-8")
    if (path := arguments.report) is not None:
        write_json(outputs.staged(path), {**facts.to_dict(), "candidates": found.rows})
    if (folder := arguments.dicom) is not None and found.candidates:
        options = {"source": arguments.image, "series": arguments.series, "deidentify": arguments.deidentify}
        write_segmentation(found.labels, outputs.staged(folder), facts=facts, **options)
