"""Adding and removing packages of the user."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from MedGenLib import user_folders
from MedGenLib.errors import PackageError
from MedGenLib.io.atomic import hidden_folder, remove_folder
from MedGenLib.packages import rules, weights
from MedGenLib.packages.archive import require_space, unpack
from MedGenLib.packages.catalogue import broken, catalogue, find, is_embedded
from MedGenLib.packages.hub.download import download, is_url
from MedGenLib.packages.inspection import require_sound, verify, verify_all
from MedGenLib.packages.manifest import Manifest, load_manifest
from MedGenLib.progress import ProgressCallback

__all__ = ["add", "remove", "verify", "verify_all"]


def add(source: str | Path, *, sha256: str | None = None, progress: ProgressCallback | None = None) -> Manifest:
    """Add a model package to the user's models after all checks have passed.

    Parameters
    ----------
    source: folder, .zip file or http(s) URL of a .zip file; the package may be in a single folder in the zip.
    sha256: expected checksum of the zip file in hexadecimal.
    progress: called while downloading, in KiB.

    Raises
    ------
    PackageError: no such file, an invalid package, an existing name, or a disk that is full or not writable. Nothing is
        left behind.
    """
    with _workshop() as workshop:
        folder = _obtain(source, workshop, sha256, progress)
        manifest = require_sound(folder, called=source)
        refuse_taken(manifest.name)
        target = user_folders.models_dir() / manifest.name
        os.replace(folder, target)
    return load_manifest(target)


def remove(name: str) -> Path:
    """Delete a package added by the user, broken or not; returns the deleted folder.

    Raises PackageError for an unknown name, an embedded package, or a folder that cannot be deleted.
    """
    folder = _removable(name)
    try:
        remove_folder(folder)
    except OSError as error:
        raise PackageError(f"The model '{name}' cannot be removed: {error.strerror}.") from error
    return folder


def _removable(name: str) -> Path:
    for package in broken():
        if package.folder.name == name and package.folder.parent == user_folders.models_dir():
            return package.folder
    manifest = find(name)
    if is_embedded(manifest):
        raise PackageError(f"The model '{name}' is part of MedGen and cannot be removed.")
    return manifest.folder


def _obtain(source: str | Path, workshop: Path, sha256: str | None, progress: ProgressCallback | None) -> Path:
    """A private copy of the package, to add exactly what was checked."""
    if isinstance(source, str) and is_url(source):
        archive = workshop / "package.zip"
        download(source, archive, sha256, progress)
        return _from_zip(archive, workshop, source)
    path = Path(source).expanduser()
    if not path.exists():
        raise PackageError(f"There is no file or folder '{path}'.")
    if path.is_dir():
        return _from_folder(path, workshop)
    if problem := _local_problem(path, sha256):
        raise PackageError(problem)
    return _from_zip(path, workshop, source)


def _local_problem(path: Path, sha256: str | None) -> str | None:
    if path.suffix.lower() in rules.PICKLE_SUFFIXES:
        return f"'{path}' may hold a pickle, which can run code; a package is a folder or a .zip."
    if not zipfile.is_zipfile(path):
        return f"'{path}' is neither a folder nor a .zip file, so it is not a model package."
    if sha256 is not None and weights.sha256(path) != sha256.strip().lower():
        return f"The checksum of '{path}' is not {sha256}, so it is not the expected file."
    return None


def _from_zip(archive: Path, workshop: Path, source: str | Path) -> Path:
    unpacked = workshop / "unpacked"
    unpack(archive, unpacked, source)
    return _root(unpacked, source)


def _from_folder(path: Path, workshop: Path) -> Path:
    root = _root(path, path)
    files = rules.list_files(root)
    if problem := rules.listing_problem(files):
        raise PackageError(f"The package {root} is refused: {problem}.")
    require_space(sum(files.values()), workshop)
    copy = workshop / "copy"
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy / name, follow_symlinks=False)
    return copy


def _root(folder: Path, source: str | Path) -> Path:
    """The folder itself, or its only subfolder if that is the package."""
    if (folder / rules.METADATA).is_file():
        return folder
    entries = list(folder.iterdir()) if folder.is_dir() else []
    folders = [entry for entry in entries if not rules.is_litter(entry.name)]
    if len(folders) == 1 and (folders[0] / rules.METADATA).is_file():
        return folders[0]
    raise PackageError(f"'{source}' has no {rules.METADATA}, so it is not a model package.")


def refuse_taken(name: str) -> None:
    """Raise PackageError if a model with this name exists, valid or broken."""
    taken = {manifest.name: manifest for manifest in catalogue()}
    if name in taken:
        kind = "is embedded" if is_embedded(taken[name]) else "was added before"
        hint = "rename the package" if is_embedded(taken[name]) else "remove it first"
        raise PackageError(f"A model named '{name}' {kind}; {hint}.")
    if (user_folders.models_dir() / name).exists():
        raise PackageError(f"A broken model named '{name}' exists; remove it first.")


@contextmanager
def _workshop() -> Iterator[Path]:
    """A hidden folder among the user's models, so that the last step is a rename."""
    models = user_folders.models_dir()
    try:
        models.mkdir(parents=True, exist_ok=True)
        with hidden_folder(models) as folder:
            yield folder
    except OSError as error:
        raise PackageError(_disk_sentence(error, models)) from error


def _disk_sentence(error: OSError, folder: Path) -> str:
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    reason = "the disk is full" if full else str(error.strerror or error).lower()
    if error.filename and not full:
        reason += f" ({error.filename})"
    return f"The package cannot be added to {folder}: {reason}; set MEDGEN_HOME to a writable folder with free space."
