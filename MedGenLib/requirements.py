"""The dependencies in requirements.txt beside this module, from which the package's metadata are generated.

The file is part of every installation, also in Slicer, where MedGenLib is not a distribution.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("requirements.txt")


class Needed(NamedTuple):
    """A distribution, its version specifier such as ">=4.20" (may be empty), what provides it in Slicer, and the use
    for which it is installed there; both are empty where the first image needs it."""

    name: str
    specifier: str
    brought_by: str = ""
    used_for: str = ""


def requirements(path: Path = FILE) -> list[Needed]:
    """The distributions of a requirements file."""
    lines = (line.partition("#") for line in path.read_text(encoding="utf-8").splitlines())
    return [
        Needed(found[1], re.sub(r"\s", "", found[2]), *_provided(comment.strip()))
        for line, _, comment in lines
        if (found := re.match(r"\s*([A-Za-z0-9][\w.-]*)([^;]*)", line))
    ]


def _provided(comment: str) -> tuple[str, str]:
    return ("", comment.removeprefix("for ")) if comment.startswith("for ") else (comment, "")


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(use: str | None = None) -> list[str]:
    """Required distributions that are not installed; use: only those for it, "" for those of the first image."""
    return [
        needed.name
        for needed in requirements()
        if use in (None, needed.used_for) and installed_version(needed.name) is None
    ]


def use_of(module: str) -> str:
    """The use for which the distribution of a module is needed, "" for the first image."""
    plain = module.partition(".")[0].replace("_", "").lower()
    uses = {re.sub(r"[-_.]", "", needed.name).lower(): needed.used_for for needed in requirements()}
    return uses.get(plain, "")
