"""The files of one run: they appear together when it has succeeded, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from MedGenLib.errors import InputError


class Outputs:
    """Collects the files of a run in hidden folders beside their final places.

    Everything that can be known about the places is checked on entry, before the run spends
    time. `commit` moves the files; leaving the context without it removes what was written,
    whatever the reason (an error, Ctrl-C).

    >>> with Outputs(["ct.nii.gz", "ct.json"]) as outputs:      # doctest: +SKIP
    ...     write_volume(volume, outputs.staged("ct.nii.gz"))
    ...     report.write(outputs.staged("ct.json"))
    ...     outputs.commit()

    Parameters
    ----------
    paths: every file that the run is going to write.
    overwrite: whether files that exist may be replaced.
    keep: input files, which are never replaced.

    Raises
    ------
    InputError: a folder is not writable, a file exists, or a name is used twice.
    """

    def __init__(self, paths: Iterable[str | Path], overwrite: bool = False, keep: Iterable[str | Path] = ()) -> None:
        self.paths = [Path(path) for path in paths]
        self._stages: dict[Path, Path] = {}
        self._check(overwrite, [Path(path) for path in keep])

    def _check(self, overwrite: bool, keep: list[Path]) -> None:
        kept = {path.resolve() for path in keep}
        seen = set()
        for path in self.paths:
            place = path.resolve()
            if place in seen:
                raise InputError(f"The output {path} is named twice; give each file its own name.")
            if place in kept:
                raise InputError(f"The output {path} is also the input; choose another name.")
            if path.exists() and not overwrite:
                raise InputError(f"The output {path} exists already; choose another name or add --overwrite.")
            seen.add(place)

    def __enter__(self) -> Outputs:
        try:
            for folder in dict.fromkeys(path.parent for path in self.paths):
                self._stages[folder] = _make_stage(folder)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def require_space(self, n_bytes: int) -> None:
        """Raises InputError when a disk cannot take that many bytes, for all outputs together."""
        for folder in self._stages:
            free = shutil.disk_usage(folder).free
            if free < n_bytes:
                raise InputError(
                    f"The disk of {folder} has {free / 2**20:.0f} MiB free and the output may "
                    f"need {n_bytes / 2**20:.0f} MiB; free some space or write elsewhere."
                )

    def staged(self, path: str | Path) -> Path:
        """Where to write the file that `commit` will move to `path`."""
        path = Path(path)
        return self._stages[path.parent] / path.name

    def commit(self) -> None:
        """Moves every file to its place; from here on Ctrl-C comes too late to stop the run."""
        with _no_interrupts():
            for path in self.paths:
                os.replace(self.staged(path), path)

    def _discard(self) -> None:
        with _no_interrupts():
            for stage in self._stages.values():
                shutil.rmtree(stage, ignore_errors=True)


def numbered(path: Path, count: int) -> list[Path]:
    """The names of `count` samples: `ct.nii.gz` alone, or `ct_1.nii.gz`, `ct_2.nii.gz`, ..."""
    if count == 1:
        return [path]
    stem, suffix = split_suffix(path)
    return [path.with_name(f"{stem}_{number}{suffix}") for number in range(1, count + 1)]


def split_suffix(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file name, where `.nii.gz` is one suffix."""
    if path.name.lower().endswith(".nii.gz"):
        return path.name[:-7], path.name[-7:]
    return path.stem, path.suffix


def _make_stage(folder: Path) -> Path:
    """A hidden folder on the same file system, so that the final move cannot be half done."""
    try:
        return Path(tempfile.mkdtemp(prefix=".medgen-", dir=folder))
    except OSError as error:
        raise InputError(
            f"Nothing can be written into the folder {folder}: {error.strerror}; choose another."
        ) from error


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C waits outside: a clean-up or a commit is short and must not be half done."""
    if threading.current_thread() is not threading.main_thread():  # signals go to the main one
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
