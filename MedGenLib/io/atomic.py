"""Atomic writes: files and folders are written under a hidden name beside the final path, then renamed.

After an interruption, a file or folder is either complete or unchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError


def hidden_beside(path: Path) -> Path:
    """New hidden path in the folder of ``path``, with the same suffix."""
    return path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Temporary path of a file, renamed to `path` on exit; after an exception `path` is unchanged."""
    temporary = hidden_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically; NumPy scalars, arrays and tensors become numbers and lists.

    Raises
    ------
    ValueError: the data contain NaN or infinity, which JSON does not support.
    OSError: the file cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def hidden_folder(parent: Path) -> Iterator[Path]:
    """Hidden folder in `parent`, deleted on exit; its files can be renamed into `parent`."""
    folder = hidden_beside(parent / "folder")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Replace `folder` by the folder `new`; if that fails, `folder` is unchanged."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = hidden_beside(folder)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder after renaming it, so that it is never visible with a part of its files."""
    hidden = hidden_beside(folder)
    os.replace(folder, hidden)
    shutil.rmtree(hidden)


class Outputs:
    """Stages the files of a run in hidden folders beside their final paths.

    The paths are checked on construction and the folders on entry, before the run starts.
    `commit` moves the files. Leaving the context without it, also after an error or Ctrl-C,
    removes what was written.

    >>> with Outputs(["ct.nii.gz", "ct.json"]) as outputs:      # doctest: +SKIP
    ...     write_volume(volume, outputs.staged("ct.nii.gz"))
    ...     report.write(outputs.staged("ct.json"))
    ...     outputs.commit()

    Parameters
    ----------
    paths: all files that the run writes.
    overwrite: whether existing files may be replaced.
    keep: input files, which are never replaced.

    Raises
    ------
    InputError: a folder is not writable, a file exists, or a path is given twice.
    """

    def __init__(self, paths: Iterable[str | Path], overwrite: bool = False, keep: Iterable[str | Path] = ()) -> None:
        self.paths = [Path(path) for path in paths]
        self._stages: dict[Path, Path] = {}
        self._check(overwrite, [Path(path) for path in keep])

    def _check(self, overwrite: bool, keep: list[Path]) -> None:
        kept = {path.resolve() for path in keep}
        seen = set()
        for path in self.paths:
            resolved = path.resolve()
            if resolved in seen:
                raise InputError(f"The output {path} is named twice; give each file its own name.")
            if resolved in kept:
                raise InputError(f"The output {path} is also the input; choose another name.")
            if path.exists() and not overwrite:
                raise InputError(f"The output {path} exists already; choose another name or add --overwrite.")
            seen.add(resolved)

    def __enter__(self) -> Outputs:
        with contextlib.ExitStack() as folders:
            for folder in dict.fromkeys(path.parent for path in self.paths):
                try:
                    self._stages[folder] = folders.enter_context(hidden_folder(folder))
                except OSError as error:
                    raise InputError(
                        f"Nothing can be written into the folder {folder}: {error.strerror}; choose another."
                    ) from error
            self._folders = folders.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with _no_interrupts():
            self._folders.close()

    def require_space(self, n_bytes: int) -> None:
        """Raise InputError if a disk has less than ``n_bytes`` free, the total of all outputs."""
        for folder in self._stages:
            free = shutil.disk_usage(folder).free
            if free < n_bytes:
                raise InputError(
                    f"The disk of {folder} has {free / 2**20:.0f} MiB free and the output may "
                    f"need {n_bytes / 2**20:.0f} MiB; free some space or write elsewhere."
                )

    def staged(self, path: str | Path) -> Path:
        """Path to write to; `commit` moves the file to `path`."""
        path = Path(path)
        return self._stages[path.parent] / path.name

    def commit(self) -> None:
        """Move every file to its final path; Ctrl-C is ignored meanwhile."""
        with _no_interrupts():
            for path in self.paths:
                os.replace(self.staged(path), path)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C during a cleanup or a commit, which are short and must complete."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
