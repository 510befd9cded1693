"""The sample data that come with MedGen."""

from __future__ import annotations

from pathlib import Path

from MedGenLib.errors import InputError


def sample(name: str) -> Path:
    """A file of the sample data, in the source tree or in the installed package.

    Raises
    ------
    InputError: this installation lacks it.
    """
    library = Path(__file__).resolve().parents[1]
    for parent in (library, library.parent):
        path = parent / "Resources" / "SampleData" / name
        if path.is_file():
            return path
    raise InputError(f"The sample file '{name}' is missing; install MedGen again.")
