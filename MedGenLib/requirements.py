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
    """A distribution, its version specifier such as ">=4.20" (may be empty), and what provides it in Slicer."""

    name: str
    specifier: str
    brought_by: str = ""


def requirements(path: Path = FILE) -> list[Needed]:
    """The distributions of a requirements file."""
    lines = (line.partition("#") for line in path.read_text(encoding="utf-8").splitlines())
    return [
        Needed(found[1], re.sub(r"\s", "", found[2]), comment.strip())
        for line, _, comment in lines
        if (found := re.match(r"\s*([A-Za-z0-9][\w.-]*)([^;]*)", line))
    ]


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing() -> list[str]:
    """Required distributions that are not installed."""
    return [needed.name for needed in requirements() if installed_version(needed.name) is None]
