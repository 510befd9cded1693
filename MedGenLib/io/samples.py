"""Sample data shipped with MedGen."""

from __future__ import annotations

from pathlib import Path

from MedGenLib.errors import InputError


def sample(name: str) -> Path:
    """Path of a sample file, in the source tree or in the installed package.

    Raises
    ------
    InputError: the installation does not contain the file.
    """
    library = Path(__file__).resolve().parents[1]
    for parent in (library, library.parent):
        path = parent / "Resources" / "SampleData" / name
        if path.is_file():
            return path
    raise InputError(f"The sample file '{name}' is missing; install MedGen again.")
