"""What a model package may hold: plain data and safetensors, nothing that could run.

Each check returns None or one sentence fragment that names the file and what is wrong with it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from MedGenLib.errors import PackageError

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
CARD = "docs/README.md"
LICENSE = "LICENSE"
REQUIRED_FILES = (METADATA, INFERENCE, CARD, LICENSE)

MIB = 1 << 20
MAX_WEIGHTS_BYTES = 4096 * MIB
MAX_PACKAGE_BYTES = 8192 * MIB
MAX_DATA_BYTES = 16 * MIB
"""Largest file that is not weights (JSON, text, pictures)."""
MAX_FILES = 200

ALLOWED_SUFFIXES = {".safetensors", ".json", ".md", ".txt", ".png", ".jpg", ".jpeg"}
ALLOWED_BARE_NAMES = {"LICENSE", "NOTICE"}
PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy", ".npz", ".joblib", ".h5", ".mat"}
CODE_SUFFIXES = {
    ".py",
    ".pyc",
    ".pyd",
    ".pyi",
    ".so",
    ".dll",
    ".dylib",
    ".ts",
    ".exe",
    ".sh",
    ".bat",
    ".ps1",
    ".js",
    ".ipynb",
    ".onnx",
    ".yaml",
    ".yml",
}
DESKTOP_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"}
"""Names that operating systems drop into folders and archives; never copied, never an error."""

EXPRESSION_KEYS = {"_target_", "_requires_", "_mode_", "_disabled_"}
"""Keys by which a MONAI bundle asks to have Python objects made or calls deferred."""


def is_litter(name: str) -> bool:
    """True for a relative path that an operating system left behind."""
    return bool(DESKTOP_LITTER.intersection(PurePosixPath(name).parts))


def name_problem(name: str) -> str | None:
    """Why a file of this relative path may not be in a package, judged by its name alone."""
    if not name.isprintable():
        return f"the file name {name!a} holds control characters"
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return f"{name} may hold a pickle, which can run code; weights have to be safetensors"
    if suffix in CODE_SUFFIXES:
        return f"{name} is code or configuration that could run; a package holds data only"
    if suffix in ALLOWED_SUFFIXES or path.name in ALLOWED_BARE_NAMES:
        return None
    return f"{name} is a kind of file that a package may not hold; take it out"


def size_problem(name: str, size: int) -> str | None:
    """Why a file of `size` bytes is too large, or None."""
    limit = MAX_WEIGHTS_BYTES if name.endswith(".safetensors") else MAX_DATA_BYTES
    if size <= limit:
        return None
    return f"{name} has {size / MIB:,.1f} MiB, more than the limit of {limit / MIB:,.1f} MiB"


def listing_problem(files: dict[str, int]) -> str | None:
    """First problem of a listing of relative paths and sizes in bytes, or None."""
    if len(files) > MAX_FILES:
        return f"it holds more than {MAX_FILES} files"
    for name, size in files.items():
        if problem := name_problem(name) or size_problem(name, size):
            return problem
    if sum(files.values()) > MAX_PACKAGE_BYTES:
        return f"it is larger than the limit of {MAX_PACKAGE_BYTES / MIB:,.0f} MiB"
    return None


def list_files(folder: Path) -> dict[str, int]:
    """Relative path (with "/") and size in bytes of every file of a package, sorted.

    Raises
    ------
    PackageError: a link or a special file is in it, there are too many files, or it is unreadable.
    """
    files: dict[str, int] = {}
    try:
        for entry in _walk(folder):
            name = Path(entry.path).relative_to(folder).as_posix()
            files[name] = _regular_size(entry, name)
            if len(files) > MAX_FILES:
                raise PackageError(f"The folder {folder} holds more than {MAX_FILES} files.")
    except OSError as error:
        raise PackageError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return dict(sorted(files.items()))


def read_json(path: Path, name: str) -> Any:
    """Plain JSON of a package; `name` is how an error calls the file.

    Raises
    ------
    PackageError: unreadable, too large, not JSON, NaN inside, or it holds an expression.
    """
    try:
        size = path.stat().st_size
        if problem := size_problem(name, size):
            raise PackageError(f"{problem}.")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise PackageError(f"{path} is missing, so {path.parent.parent} is not a model package.") from error
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not valid JSON: {error}.") from error
    if where := find_expression(data):
        # In ASCII, because a key from a stranger may hold terminal escapes.
        raise PackageError(
            f"{path} holds an expression at {ascii(where)[1:-1]}, and MedGen evaluates nothing "
            "in a package; ask for a package of plain data."
        )
    return data


def find_expression(data: Any, where: str = "$") -> str | None:
    """JSON path of the first MONAI expression ("$..." or "_target_" and its kin), or None."""
    if isinstance(data, str):
        return where if data.lstrip().startswith("$") else None
    if isinstance(data, dict):
        children = []
        for key, value in data.items():
            if key in EXPRESSION_KEYS or key.lstrip().startswith("$"):
                return f"{where}.{key}"
            children.append((value, f"{where}.{key}"))
    elif isinstance(data, list):
        children = [(value, f"{where}[{index}]") for index, value in enumerate(data)]
    else:
        return None
    return next((found for child in children if (found := find_expression(*child))), None)


def _walk(folder: Path | str) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in DESKTOP_LITTER:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry


def _regular_size(entry: os.DirEntry, name: str) -> int:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise PackageError(f"{name} is a symbolic link; a package holds plain files only.")
    if not stat.S_ISREG(status.st_mode):
        raise PackageError(f"{name} is not a plain file; a package holds plain files only.")
    return status.st_size


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
