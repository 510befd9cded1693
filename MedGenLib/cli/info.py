"""`medgen info`: how a file was made, and whether it has changed since."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError, PackageError
from MedGenLib.findings import Finding
from MedGenLib.io.files import READABLE, read_volume
from MedGenLib.io.provenance import Provenance, content_hash, plain, sidecar
from MedGenLib.io.recorded import read_beside, read_inside

_CONTENTS = {
    "image": "synthetic image",
    "uncertainty": "uncertainty of synthetic images",
    "error map": "error map, image minus reference",
}


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="volume or DICOM folder")
    parser.add_argument("--json", action="store_true", help="print as JSON")


@command(
    "info",
    "print how a file was made",
    "Reads the record of MedGen in the image, beside it, or in its DICOM attributes.",
    extra_arguments,
)
def info(arguments: Namespace, console: Console) -> int:
    """Print the provenance. Exit code 1 if the voxels or the records differ."""
    path = arguments.file
    made, findings = _facts(path)
    findings += [*_of_voxels(path, made), *_of_model(made)]
    if arguments.json:
        facts = {**made.to_dict(), "findings": plain(findings)}
        console.say(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for line in _lines(path, made):
            # one line without control characters
            console.say("".join(letter if letter.isprintable() else " " for letter in line))
    for finding in findings:
        console.note(f"warning: {finding.sentence}")
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _facts(path: Path) -> tuple[Provenance, list[Finding]]:
    """The provenance in the file, otherwise beside it; and findings on its location.

    Raises InputError if the file does not exist, or has no record.
    """
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; check the path.")
    inside, beside = read_inside(path), read_beside(path)
    if inside is None and beside is None:
        raise InputError(
            f"{path} has no record of how it was made: MedGen did not write it, or another program rewrote it."
        )
    if beside is None:
        return inside, []
    place = sidecar(path)
    if inside is None:
        lost = f"{path.name} has no record of its own; this is from {place.name}."
        return beside, [] if path == place else [Finding("warning", "header-lost", lost)]
    if inside == _shortened(beside, inside.left_out):
        return beside, []
    differ = f"{place.name} and {path.name} have different records."
    return inside, [Finding("error", "facts-differ", differ)]


def _shortened(made: Provenance, left_out: tuple[str, ...]) -> Provenance:
    """The provenance as in a header without space for these keys."""
    kept = {key: value for key, value in made.to_dict().items() if key not in left_out}
    return replace(Provenance.from_dict(kept), left_out=left_out)


def _of_voxels(path: Path, made: Provenance) -> Iterator[Finding]:
    """Whether the voxels are unchanged; a single file of a DICOM series cannot be compared."""
    whole = path.is_dir() or path.name.lower().endswith(READABLE)
    if not made.output_sha256 or not whole:
        return
    try:
        found = content_hash(read_volume(path))
    except InputError as error:  # such as a folder with several series
        yield Finding("warning", "not-compared", f"The voxels were not compared. {error}")
        return
    if found != made.output_sha256:
        changed = f"The voxels of {path.name} differ from those written by MedGen; "
        yield Finding("error", "voxels-changed", f"{changed}they were changed afterwards.")


def _of_model(made: Provenance) -> Iterator[Finding]:
    """Whether the model is still installed."""
    if not made.model:
        return
    from MedGenLib.packages.catalogue import find, package_hash

    try:
        installed = find(made.model)
    except PackageError:
        absent = f"The model {made.model} is not installed here; only it can reproduce this image."
        yield Finding("warning", "model-missing", absent)
        return
    if made.package_sha256 not in ("", package_hash(installed)):
        other = f"The model {made.model} {installed.version} installed here has other "
        other += "weights than the one used; the same seed may give another image."
        yield Finding("warning", "model-differs", other)


def _lines(path: Path, made: Provenance) -> Iterator[str]:
    modality = f", {made.modality}" if made.modality else ""
    yield f"{path}: {_CONTENTS.get(made.content, made.content)}{modality} in {made.unit}"
    facts = {
        "note": made.note,
        "made by": " ".join(filter(None, ("MedGen", made.software.get("medgen")))),
        "made on": made.created.replace("T", " ").replace("+00:00", " UTC"),
        "model": f"{made.model} {made.version}".strip(),
        "package": made.package_sha256 and f"sha256 {made.package_sha256}",
        "task": made.task,
        "seed": made.seed,
        "preset": made.preset,
        "sampler": made.sampler and f"{made.sampler}, {made.steps} steps",
        "device": made.device,
    }
    for name, value in facts.items():
        if value not in (None, ""):
            yield f"  {name:<9} {value}"
    for source in made.inputs:
        name, content = source.name or "unnamed", source.sha256 or "left out"
        yield f"  {source.role:<9} {name}, sha256 {content}"
    if made.passed is not None:
        yield f"  {'checks':<9} {'passed' if made.passed else 'FAILED'}"
    for sentence in made.checks:
        yield f"  {'':<9} {sentence}"
