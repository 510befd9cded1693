"""Allowed content of a model package: plain data and safetensors, no code.

Each check returns None or a sentence fragment with the file and its problem.
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
"""Names of files that operating systems add to folders and archives; ignored."""

EXPRESSION_KEYS = {"_target_", "_requires_", "_mode_", "_disabled_"}
"""Keys of a MONAI bundle that create Python objects or defer calls."""


def is_litter(name: str) -> bool:
    """Whether a relative path was added by an operating system."""
    return bool(DESKTOP_LITTER.intersection(PurePosixPath(name).parts))


def name_problem(name: str) -> str | None:
    """Why a file with this relative path is not allowed in a package, or None."""
    if not name.isprintable():
        return f"the file name {name!a} has control characters"
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return f"{name} may hold a pickle, which can run code; weights must be safetensors"
    if suffix in CODE_SUFFIXES:
        return f"{name} is code or configuration that could run; a package has data only"
    if suffix in ALLOWED_SUFFIXES or path.name in ALLOWED_BARE_NAMES:
        return None
    return f"{name} is a kind of file not allowed in a package; remove it"


def size_problem(name: str, size: int) -> str | None:
    """Why a file of `size` bytes is too large, or None."""
    limit = MAX_WEIGHTS_BYTES if name.endswith(".safetensors") else MAX_DATA_BYTES
    if size <= limit:
        return None
    return f"{name} has {size / MIB:,.1f} MiB, more than the limit of {limit / MIB:,.1f} MiB"


def listing_problem(files: dict[str, int]) -> str | None:
    """First problem of a listing of relative paths and sizes in bytes, or None."""
    if len(files) > MAX_FILES:
        return f"it has more than {MAX_FILES} files"
    for name, size in files.items():
        if problem := name_problem(name) or size_problem(name, size):
            return problem
    if sum(files.values()) > MAX_PACKAGE_BYTES:
        return f"it is larger than the limit of {MAX_PACKAGE_BYTES / MIB:,.0f} MiB"
    return None


def list_files(folder: Path) -> dict[str, int]:
    """Relative path (with "/") and size in bytes of every file of a package, sorted.

    Raises PackageError if it has a link, a special file or too many files, or is unreadable.
    """
    files: dict[str, int] = {}
    try:
        for entry in _walk(folder):
            name = Path(entry.path).relative_to(folder).as_posix()
            files[name] = _regular_size(entry, name)
            if len(files) > MAX_FILES:
                raise PackageError(f"The folder {folder} has more than {MAX_FILES} files.")
    except OSError as error:
        raise PackageError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return dict(sorted(files.items()))


def read_json(path: Path, name: str) -> Any:
    """Read plain JSON of a package; `name` is the file's name in errors.

    Raises PackageError if it is unreadable, too large or not JSON, or has NaN or an expression.
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
        # In ASCII, as an untrusted key may have terminal escapes.
        raise PackageError(
            f"{path} has an expression at {ascii(where)[1:-1]}, and MedGen evaluates nothing "
            "in a package; ask for a package of plain data."
        )
    return data


def find_expression(data: Any, where: str = "$") -> str | None:
    """JSON path of the first MONAI expression ("$..." or keys such as "_target_"), or None."""
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
        raise PackageError(f"{name} is a symbolic link; a package has plain files only.")
    if not stat.S_ISREG(status.st_mode):
        raise PackageError(f"{name} is not a plain file; a package has plain files only.")
    return status.st_size


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")
