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
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError

_HIDDEN_NAME = 50
"""Characters of the name that a hidden name keeps, with the suffix; file systems limit names to 255 bytes."""


def hidden_beside(path: Path) -> Path:
    """New hidden path in the folder of ``path``, with the same suffix."""
    return path.with_name(f".{secrets.token_hex(4)}.part.{path.name[-_HIDDEN_NAME:]}")


def remove_unfinished(folder: Path) -> None:
    """Delete hidden files that a killed process left in a folder or below; no other process may write there."""
    for path in folder.rglob(".*.part.*"):
        if path.is_file():
            path.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Temporary path of a file, renamed to `path` on exit; after an exception `path` is unchanged."""
    temporary = hidden_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any, mode: int = 0o666) -> None:
    """Write a JSON file atomically; NumPy scalars, arrays and tensors become numbers and lists.

    mode: permissions of the file, less those that the umask takes.

    Raises
    ------
    ValueError: the data contain NaN or infinity, which JSON does not support.
    OSError: the file cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
    with replacing(path) as temporary:
        temporary.touch(mode)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create a folder with its parents; on exit, those that are empty are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


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


_LONGEST_NAME = 240
"""Characters of a hidden name; file systems allow 255 bytes."""


_MAKING = 10.0
"""Seconds after which an empty claim belongs to no run."""


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
    claims: paths that no other run may write meanwhile, by default all.

    Raises
    ------
    InputError: a folder is not writable, a file exists, a path is given twice, or another run writes it.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        overwrite: bool = False,
        keep: Iterable[str | Path] = (),
        claims: Iterable[str | Path] | None = None,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self._overwrite, self._claims = overwrite, self.paths if claims is None else [Path(path) for path in claims]
        self._stages: dict[Path, Path] = {}
        self._check([Path(path) for path in keep])

    def _check(self, keep: list[Path]) -> None:
        kept = {path.resolve() for path in keep}
        seen = set()
        for path in self.paths:
            resolved = path.resolve()
            if resolved in seen:
                raise InputError(f"The output {path} is named twice; give each file its own name.")
            if resolved in kept:
                raise InputError(f"The output {path} is also the input; choose another name.")
            if path.exists() and not self._overwrite:
                raise InputError(f"The output {path} exists already; choose another name or add --overwrite.")
            seen.add(resolved)

    def __enter__(self) -> Outputs:
        with contextlib.ExitStack() as folders:
            with _signals_later():
                for folder in dict.fromkeys(path.parent for path in self.paths):
                    try:
                        folders.enter_context(_created(folder))
                        self._stages[folder] = folders.enter_context(hidden_folder(folder))
                    except OSError as error:
                        raise InputError(
                            f"Nothing can be written into the folder {folder}: {error.strerror}; choose another."
                        ) from error
                for path in self._claims:
                    folders.enter_context(_claimed(path))
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
        """Move every file to its final path, or none if one cannot be moved; signals are ignored meanwhile.

        Raises
        ------
        InputError: a file appeared at one of the paths since the start.
        """
        moved: list[tuple[Path, Path | None]] = []
        with _no_interrupts():
            try:
                for path in self.paths:
                    moved.append((path, self._set_aside(path)))
                    os.replace(self.staged(path), path)
            except BaseException:
                for path, old in reversed(moved):
                    if path.exists():
                        os.replace(path, self.staged(path))
                    if old is not None:
                        os.replace(old, path)
                raise

    def _set_aside(self, path: Path) -> Path | None:
        """Move a file that is to be replaced into the hidden folder; None if there is none."""
        if not os.path.lexists(path):
            return None
        if not self._overwrite:
            raise InputError(
                f"The output {path} was written by another program during this run, so nothing was written; choose "
                "another name or add --overwrite."
            )
        old = hidden_beside(self.staged(path))
        os.replace(path, old)
        return old


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Keep a path from other runs, by a hidden file beside it that names this process.

    Raises
    ------
    InputError: another run that still works has claimed the path.
    """
    claim = path.with_name(f".{path.name}.claim"[-_LONGEST_NAME:])
    try:
        stream = claim.open("x", encoding="utf-8")
    except FileExistsError:
        if _is_at_work(claim):
            raise InputError(
                f"Another run is writing {path}; wait for its end or choose another name (if there is none, delete "
                f"{claim})."
            ) from None
        stream = claim.open("w", encoding="utf-8")
    except OSError:  # a name that is too long for a claim, or a disk that allows no more files
        yield
        return
    try:
        with stream:
            stream.write(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        claim.unlink(missing_ok=True)


def _is_at_work(claim: Path) -> bool:
    """Whether the process of a claim may still run; one on another machine may."""
    import psutil

    process, _, host = claim.read_text(encoding="utf-8").partition(" ")
    if not process:  # it is being made, or its process ended at that moment
        return time.time() - claim.stat().st_mtime < _MAKING
    if host and host != socket.gethostname():
        return True
    return process.isdigit() and psutil.pid_exists(int(process))


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Hold back signals that end the program while something is made that a cleanup has to know of."""
    caught: list[int] = []
    with _signals_to(lambda found, _: caught.append(found)):
        yield
    for number in caught[:1]:
        signal.raise_signal(number)


def _ending_signals() -> list[int]:
    """Signals that end the program and that this program may handle."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not None]


def _no_interrupts() -> contextlib.AbstractContextManager[None]:
    """Ignore signals that end the program during a cleanup or a commit, which are short and must complete."""
    return _signals_to(signal.SIG_IGN)


@contextlib.contextmanager
def _signals_to(other: Any) -> Iterator[None]:
    """Another handler for the signals that end the program."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    previous = {number: signal.signal(number, other) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
