"""Output folder of a series, which is new or empty and filled completely or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.io.atomic import Outputs


def check_folder(folder: str | Path) -> Path:
    """Return the folder if a series can be written there; call before the work.

    Raises
    ------
    InputError: the folder is not empty or is a file.
    """
    path = Path(folder)
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file, but a DICOM series needs a folder; give another.")
        if path.is_dir() and any(path.iterdir()):
            raise InputError(
                f"The folder {path} holds files already, and a series is never mixed "
                "with other files or overwritten; give a new or an empty folder."
            )
    except OSError as error:
        raise _refusal(path, error) from error
    return path


@contextlib.contextmanager
def new_files(folder: str | Path, names: Iterable[str], n_bytes: int) -> Iterator[Outputs]:
    """Files of these names in the folder, which appear when the block ends without an error.

    Raises
    ------
    InputError: as in `check_folder`, or the folder is not writable or has less than `n_bytes` free.
    """
    path = check_folder(folder)
    try:
        with Outputs((path / name for name in names), claims=()) as outputs:
            outputs.require_space(n_bytes)
            yield outputs
            outputs.commit()
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"DICOM files cannot be written into {path}: {reason}; free some space or choose another folder.")
