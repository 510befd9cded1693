"""`medgen breathe`: one CT -> a breathing series."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.io.provenance import Provenance
    from MedGenLib.motion import Breathing


@command(
    "breathe",
    "make a breathing series of CTs from one CT of the chest",
    "The voxels are moved, not generated: the diaphragm rises and falls, the lungs slide along the wall and become "
    "denser where they shrink, so that their mass stays; the first phase is the input.",
)
def breathe(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import read_input
    from MedGenLib.io.atomic import Outputs
    from MedGenLib.io.provenance import Source
    from MedGenLib.motion import breathe as make
    from MedGenLib.options import validate

    points = dict(map(_point, arguments.points))
    options = validate("breathe", from_namespace("breathe", arguments, points=points))
    _as_folder(arguments)
    inputs = {name: path for name in ("image", "labels") if (path := getattr(arguments, name)) is not None}
    keep = [path for path in (*inputs.values(), arguments.trace) if path is not None]
    with Outputs(_paths(arguments), overwrite=arguments.overwrite, keep=keep) as outputs:
        images = {
            name: read_input("breathe", name, path, vars(arguments), stored=name == "image")
            for name, path in inputs.items()
        }
        voxels = images["image"].array.size
        outputs.require_space(voxels * options["phases"] * (4 + 12 * (arguments.displacements is not None)))
        series = make(**{**options, **images}, progress=console)
        sources = [Source.of(name, images[name], path) for name, path in inputs.items()]
        _write(series, arguments, outputs, _facts(series, sources), console)
        outputs.commit()
    console.wrote(*outputs.paths)
    for sentence in series.sentences:
        if sentence not in series.notes:  # those were printed before the work
            console.say(sentence)
    return 0


def _point(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and place of "tumor=10,20,30", or of "10,20,30", which is its own name."""
    name, _, place = text.rpartition("=")
    try:
        numbers = tuple(float(part) for part in place.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise InputError(f"The point {text} is no place; give NAME=R,A,S in mm, such as tumor=52,10,-120.")
    return name or text, numbers


def _as_folder(arguments: Namespace) -> None:
    """An output without a suffix is the folder of a 4-D DICOM series."""
    if not arguments.output.suffix and arguments.dicom is None:
        arguments.dicom, arguments.output = arguments.output, None
    elif arguments.deidentify and arguments.dicom is None:
        raise InputError("--deidentify is for DICOM; add --dicom with a folder.")


def _paths(arguments: Namespace) -> list[Path]:
    """All files and folders of the run, checked."""
    from MedGenLib.io.dicom import check_folder
    from MedGenLib.io.files import check_output_path
    from MedGenLib.io.frames import SEQUENCE
    from MedGenLib.io.provenance import sidecar

    wanted = [
        (arguments.output, SEQUENCE),
        (arguments.moved_labels, SEQUENCE),
        (arguments.tracks, ".csv"),
        (arguments.preview, ".png"),
        (arguments.report, ".json"),
        *((path, ".nrrd") for path in _projections(arguments)),
    ]
    paths = [check_output_path(path, (suffix,), new_folder=True) for path, suffix in wanted if path is not None]
    if arguments.output is not None:
        paths.append(sidecar(arguments.output))
    for folder in filter(None, (arguments.dicom, arguments.displacements)):
        if check_folder(folder).exists():
            raise InputError(f"The folder {folder} exists already; give a new one.")
        paths.append(folder)
    return paths


def _projections(arguments: Namespace) -> list[Path]:
    """Files of average and maximum, beside the series."""
    if not arguments.projections:
        return []
    beside = arguments.output or arguments.dicom
    stem = beside.name.removesuffix(".nrrd").removesuffix(".seq")
    return [beside.with_name(f"{stem}_{name}.nrrd") for name in ("average", "maximum")]


def _facts(series: Breathing, sources: Sequence[Any]) -> Provenance:
    from datetime import UTC, datetime

    from MedGenLib.io.provenance import Provenance

    return Provenance(
        modality="CT",
        unit="HU",
        task="breathe",
        inputs=tuple(sources),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parameters=series.parameters,
    )


def _write(series: Breathing, arguments: Namespace, outputs: Any, facts: Provenance, console: Console) -> None:
    from MedGenLib.io.files import write_volume
    from MedGenLib.io.frames import write_sequence
    from MedGenLib.io.provenance import sidecar
    from MedGenLib.visual.preview import preview_breathing

    percents = [phase.percent for phase in series.phases]
    if (path := arguments.output) is not None:
        write_sequence(series.volumes, outputs.staged(path), percents, provenance=facts)
        facts.write_beside(path, outputs.staged(sidecar(path)))
    if (path := arguments.moved_labels) is not None:
        write_sequence(series.labels, outputs.staged(path), percents, provenance=facts)
    if arguments.projections:
        for path, volume in zip(_projections(arguments), series.projections(), strict=True):
            write_volume(volume, outputs.staged(path), facts)
    if (path := arguments.tracks) is not None:
        _write_tracks(series, outputs.staged(path))
    if (path := arguments.preview) is not None:
        preview_breathing(series.source, series.volumes[series.farthest], series.lungs, outputs.staged(path))
    if (path := arguments.report) is not None:
        _write_report(series, facts, outputs.staged(path))
    _write_folders(series, arguments, outputs, facts, console)


def _write_tracks(series: Breathing, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["name", "phase_percent", "r_mm", "a_mm", "s_mm", "distance_mm"])
        for name, places in series.tracks.items():
            for phase, place in zip(series.phases, places, strict=True):
                distance = float(((place - places[0]) ** 2).sum() ** 0.5)
                table.writerow([name, f"{phase.percent:g}", *(f"{mm:.3f}" for mm in (*place, distance))])


def _write_report(series: Breathing, facts: Provenance, path: Path) -> None:
    from MedGenLib.io.atomic import write_json
    from MedGenLib.io.provenance import plain

    write_json(path, {**facts.to_dict(), "phases": plain(series.phases), "tracks": plain(series.tracks)})


def _write_folders(series: Breathing, arguments: Namespace, outputs: Any, facts: Provenance, console: Console) -> None:
    from dataclasses import replace

    from MedGenLib.io.dicom import write_series
    from MedGenLib.io.frames import write_displacement
    from MedGenLib.io.provenance import content_hash

    count = len(series.phases)
    if (folder := arguments.displacements) is not None:
        outputs.staged(folder).mkdir()
        for number, phase in enumerate(series.phases):
            path = outputs.staged(folder) / f"phase_{phase.percent:04.1f}.nrrd"
            write_displacement(series.displacement(number), series.source.affine, path)
    if (folder := arguments.dicom) is None:
        return
    outputs.staged(folder).mkdir()
    patient = {"source": arguments.image, "series": arguments.series} if arguments.image.is_dir() else {}
    for number, (phase, volume) in enumerate(zip(series.phases, series.volumes, strict=True)):
        write_series(
            volume.with_array(volume.array, modality="CT", unit="HU"),
            outputs.staged(folder) / f"phase_{number:02d}",
            facts=replace(facts, output_sha256=content_hash(volume)),
            description=f"breathing {phase.percent:g}%",
            temporal=(number + 1, count),
            deidentify=arguments.deidentify,
            progress=console,
            **patient,
        )
