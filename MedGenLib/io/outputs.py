"""Output files of one run, which appear together when the run succeeds or not at all."""

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

    def _discard(self) -> None:
        with _no_interrupts():
            for stage in self._stages.values():
                shutil.rmtree(stage, ignore_errors=True)


def numbered(path: Path, count: int) -> list[Path]:
    """Paths of `count` samples: `ct.nii.gz` alone, or `ct_1.nii.gz`, `ct_2.nii.gz`, ..."""
    if count == 1:
        return [path]
    stem, suffix = split_suffix(path)
    return [path.with_name(f"{stem}_{number}{suffix}") for number in range(1, count + 1)]


def split_suffix(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file name; `.nii.gz` counts as one suffix."""
    if path.name.lower().endswith(".nii.gz"):
        return path.name[:-7], path.name[-7:]
    return path.stem, path.suffix


def _make_stage(folder: Path) -> Path:
    """Create a hidden folder on the same file system, so that the final move is atomic."""
    try:
        return Path(tempfile.mkdtemp(prefix=".medgen-", dir=folder))
    except OSError as error:
        raise InputError(
            f"Nothing can be written into the folder {folder}: {error.strerror}; choose another."
        ) from error


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
