"""Unpacking of an untrusted zip file."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from MedGenLib.errors import PackageError
from MedGenLib.packages import rules

BLOCK = 1 << 20


def unpack(archive: Path, folder: Path, called: str | Path) -> None:
    """Extract the files of a package into `folder`, after a check of all names and sizes.

    `called` is the name of the archive in error messages.

    Raises
    ------
    PackageError: not a zip, damaged, encrypted, larger than the limits, a file not allowed in a package, a link, or a
        path outside the folder.
    OSError: the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            members = [m for m in source.infolist() if not m.is_dir()]
            members = [m for m in members if not rules.is_litter(m.filename)]
            if problem := _problem(members):
                raise PackageError(f"The archive {called} is refused: {problem}.")
            folder.mkdir(exist_ok=True)
            require_space(sum(member.file_size for member in members), folder)
            for member in members:
                _extract(source, member, folder / member.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise PackageError(f"{called} is damaged or not a zip file ({error}).") from error
    except NotImplementedError as error:
        raise PackageError(
            f"The archive {called} uses a compression that is not supported ({error}); use deflate compression."
        ) from error


def require_space(size: int, folder: Path) -> None:
    """Raise PackageError if the disk of `folder` has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise PackageError(
            f"The package takes {size / rules.MIB:,.1f} MiB and the disk of {folder.parent} has "
            f"{free / rules.MIB:,.1f} MiB free; free some space or set MEDGEN_HOME to another disk."
        )


def _problem(members: list[zipfile.ZipInfo]) -> str | None:
    names = set()
    for member in members:
        if problem := member_problem(member):
            return problem
        names.add(member.filename.casefold())
    if len(names) < len(members):
        return "it has two files of the same name"
    return rules.listing_problem({m.filename: m.file_size for m in members})


def member_problem(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        return f"the name '{name}' in it leads out of the package"
    # The upper half holds the Unix mode, 0 in archives from other systems.
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return f"{name} in it is a symbolic link or special file"
    if member.flag_bits & 1:
        return f"{name} in it is encrypted"
    return None


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with source.open(member) as packed, path.open("xb") as stream:
        while block := packed.read(BLOCK):
            written += len(block)
            # The declared size was checked, but a zip bomb exceeds it.
            if written > member.file_size:
                raise PackageError(f"{member.filename} in the archive is larger than its declared size.")
            stream.write(block)
