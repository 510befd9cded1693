"""`medgen repeat`: make a volume again from its own record, and compare."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.provenance import Provenance, Source, content_hash, sidecar
from MedGenLib.io.recorded import read

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.result import Result

REPEATABLE = ("generate", "translate", "enhance", "edit", "insert-lesion")
STORED = ("edit", "insert_lesion")
"""Commands that read scans in the number format of their files."""


def extra_arguments(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="volume that MedGen wrote (.nii .nrrd .mha)")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="input of the run, or folder with it, by default that of FILE and the current one; repeatable",
    )
    parser.add_argument("--series", metavar="UID", help="UID of the series of an input folder that holds several")
    parser.add_argument("--device", metavar="auto|cpu|cuda:0", help="where to compute, by default as before")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="also write the new volume")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--accept-license", action="store_true", help="accept the license of the model")


@command(
    "repeat",
    "make a volume again from its own record and compare",
    "Runs generate, translate, enhance, edit or insert-lesion with the recorded options, seed and inputs; the inputs "
    "are found by name and content. The exit code is 0 for equal voxels and 1 for others.",
    extra_arguments,
)
def repeat(arguments: Namespace, console: Console) -> int:
    made = _record_of(arguments.file)
    task = made.task.replace("-", "_")
    images = dict(_inputs(task, made, arguments))

    from MedGenLib.io.atomic import Outputs
    from MedGenLib.io.files import check_output_path

    path = arguments.output and check_output_path(arguments.output, new_folder=True)
    paths = [path, sidecar(path)] if path else []
    with Outputs(paths, overwrite=arguments.overwrite, keep=[arguments.file, *arguments.input]) as outputs:
        result = _functions()[task](**_options(task, made, arguments), **images, progress=console)
        result = replace(result, volumes=[result.volumes[made.parameters.get("frame", 0)]])
        if path:
            facts = replace(result.provenance(made.inputs), options=made.options)
            write_volume(result.volume, outputs.staged(path), facts)
            facts.write_beside(path, outputs.staged(paths[1]))
        outputs.commit()
    return _compare(arguments.file, made, result, console)


def _functions() -> dict[str, Callable[..., Result]]:
    """Function of each task; imports torch."""
    from MedGenLib import enhance, generate, translate
    from MedGenLib.editing.lesions import insert_lesion
    from MedGenLib.editing.session import edit_image

    def insert(**options: Any) -> Result:
        return insert_lesion(**options).result

    return {
        "generate": generate,
        "translate": translate,
        "enhance": enhance,
        "edit": edit_image,
        "insert_lesion": insert,
    }


def _record_of(path: Path) -> Provenance:
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; check the path.")
    made = read(path)
    if made is None:
        raise InputError(f"{path} has no record of how it was made; give a volume that medgen wrote.")
    if made.content != "image" or made.task not in REPEATABLE:
        raise InputError(f"{path} is {made.content or 'no image'} of the task '{made.task}'; give an image of one run.")
    if made.options is None:
        raise InputError(
            f"The record of {path} holds no options: it is DICOM, or another program or version wrote it; "
            "give the volume that the command line wrote."
        )
    return made


def _options(task: str, made: Provenance, arguments: Namespace) -> dict[str, Any]:
    """The recorded options as keyword arguments."""
    from MedGenLib.options import of

    known = {option.name for option in of(task).values()}
    options = {name: value for name, value in made.options.items() if name in known}
    made_by = {"model": made.model if made.version else None, "seed": made.seed}
    options |= {name: value for name, value in made_by.items() if name in known}
    options["accept_license"] = arguments.accept_license
    options |= {"memory": made.parameters["memory"]} if made.parameters.get("memory") in ("normal", "small") else {}
    options |= {"retries": 0} if task == "generate" else {}
    return options | ({"device": arguments.device} if arguments.device else {})


def _inputs(task: str, made: Provenance, arguments: Namespace) -> Iterator[tuple[str, Volume | LabelMap]]:
    """Option and image of each recorded input."""
    from MedGenLib.options import of
    from MedGenLib.run_files import ROLES

    options = {ROLES[option.name]: option.name for option in of(task, "cli").values() if option.image}
    for source in made.inputs:
        yield options[source.role], _found(task, options[source.role], source, made, arguments)


def _found(task: str, name: str, source: Source, made: Provenance, arguments: Namespace) -> Volume | LabelMap:
    from MedGenLib.run_files import read_input

    stated, changed = {"series": arguments.series, **made.options}, []
    for path in _candidates(source, arguments):
        image = read_input(task, name, path, stated, task in STORED)
        if source.sha256 in ("", content_hash(image)):
            return image
        changed.append(str(path))
    if changed:
        raise InputError(
            f"The {source.role} of the run had other voxels than {' and '.join(changed)}; give the original with "
            "--input."
        )
    raise InputError(
        f"The {source.role} '{source.name}' of the run was not found; give its file or folder with --input."
    )


def _candidates(source: Source, arguments: Namespace) -> Iterator[Path]:
    """Files of the source's name in the folders to search, and files given by themselves."""
    for place in (*arguments.input, arguments.file.parent, Path()):
        inside = place / source.name
        if source.name and inside.exists():
            yield inside
        elif place in arguments.input and (place.is_file() or place.name == source.name):
            yield place


def _compare(path: Path, made: Provenance, result: Result, console: Console) -> int:
    """Print whether the voxels are equal, and what differs otherwise; the exit code."""
    old, new = read_volume(path), result.volume
    if content_hash(old) != made.output_sha256:
        console.note(f"warning: the voxels of {path.name} were changed after the run; they are compared as they are.")
    if content_hash(new) == content_hash(old):
        seed = "" if made.seed is None else f", seed {made.seed}"
        console.say(f"Equal: {made.task} with {made.model} {made.version}{seed} gives the voxels of {path} again.")
        return 0
    if old.shape != new.shape:
        console.say(f"Not equal: the new volume has another size than {path}.")
        return 1
    difference = np.abs(new.array.astype(np.float64) - old.array)
    console.say(
        f"Not equal: {np.count_nonzero(difference)} of {difference.size} voxels of {path} differ, by up to "
        f"{difference.max():.4g} {new.unit} and {difference.mean():.3g} on average."
    )
    for reason in _reasons(made, result.provenance(made.inputs)):
        console.say(f"  {reason}")
    return 1


def _reasons(made: Provenance, again: Provenance) -> Iterator[str]:
    """What differs between two runs besides the voxels."""
    pairs = {
        "weights of the model": (made.package_sha256, again.package_sha256),
        "device": (made.device, again.device),
        "number format": (made.parameters.get("precision"), again.parameters.get("precision")),
        **{name: (made.software.get(name), version) for name, version in again.software.items()},
    }
    for name, (before, now) in pairs.items():
        if before != now:
            yield f"{name}: {before} before, {now} now"
