"""Folders of volumes to evaluate, and the folder of a report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import READABLE
from MedGenLib.io.output_names import split_suffix


def volumes_in(folder: Path) -> dict[str, Path]:
    """Name -> path of the volumes in a folder, sorted by name.

    A volume is a file with a readable suffix, or a subfolder taken as a DICOM series. The name is that of the file
    without the suffix. Hidden entries are skipped. Raises InputError if the folder is missing or has no volume, or two
    have the same name.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; check the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or is_volume(path)):
            continue
        name = path.name if path.is_dir() else split_suffix(path)[0]
        if name in found:
            raise InputError(
                f"The folder {folder} holds {found[name].name} and {path.name}, which have the same "
                "name; keep one of them there."
            )
        found[name] = path
    if not found:
        raise InputError(
            f"The folder {folder} holds no volume; put files with one of {', '.join(READABLE)} or "
            "folders with a DICOM series there."
        )
    return found


def is_volume(path: Path) -> bool:
    """Whether the file's suffix is readable."""
    return path.is_file() and path.name.lower().endswith(READABLE)


def require_apart(report: Path, inputs: Iterable[Path | None]) -> None:
    """Raise InputError if the report lies in an input folder, where it would be read as an image."""
    place = report.resolve()
    for folder in inputs:
        if folder and folder.is_dir() and folder.resolve() in (place, place.parent):
            raise InputError(f"The report would lie among the images in {folder}; choose another folder.")


@contextlib.contextmanager
def report_folder(
    folder: Path, names: Iterable[str], overwrite: bool = False, keep: Iterable[Path] = ()
) -> Iterator[Outputs]:
    """Stage the files of a report; on `commit` all appear in `folder` together.

    with report_folder(folder, ("report.html", "metrics.json")) as outputs:
        write_files(outputs, folder, {"report.html": text, "metrics.json": figures})
        outputs.commit()

    The folder is created if needed, and removed if nothing is written. Raises InputError if a file exists (without
    `overwrite`), or the folder cannot be written.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; give a folder for the report.")
    with Outputs([folder / name for name in names], overwrite, keep) as outputs:
        yield outputs


def write_files(outputs: Outputs, folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write the files of a report to their staged paths: name -> text or bytes."""
    for name, content in contents.items():
        data = content.encode() if isinstance(content, str) else content
        outputs.staged(folder / name).write_bytes(data)
