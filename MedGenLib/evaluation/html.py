"""Reports as one self-contained HTML file, without scripts or external files.

    text = page(
        "Evaluation",
        [
            Section("Image metrics", [Table(("Measure", "Value", "Unit"), [("MAE", 41.2, "HU")])]),
            Section("Pictures", [Picture(png, "Difference in HU")]),
        ],
    )
    write_files(outputs, folder, {"report.html": text})

The template escapes all text, so callers pass text of users and files unchanged.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from MedGenLib import __version__
from MedGenLib.io.provenance import NOTE

Cell = str | int | float | None
"""Table cell: text, a number (4 digits, right-aligned), or None (a dash)."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    headers: one per column.
    rows: cells, one per column.
    caption: text below the table.
    strong: indices of highlighted rows, such as a total.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG, as wide as the page if `wide`, else two in a row where they fit."""

    png: bytes
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Values:
    """Key figures in large type, each (name, value, unit)."""

    entries: Sequence[tuple[str, Cell, str]]


@dataclass(frozen=True)
class Notice:
    """A highlighted sentence in a box."""

    text: str


Part = str | Table | Picture | Values | Notice
"""A str is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    title: str
    parts: Sequence[Part]

    @property
    def blocks(self) -> Iterator[tuple[str, Iterator[Part]]]:
        """Consecutive parts of one kind, under its name; small pictures form a gallery."""
        return groupby(self.parts, lambda part: "gallery" if _is_small(part) else type(part).__name__)


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """A complete HTML document.

    Parameters
    ----------
    title: heading, and title of the browser tab.
    sections: in order; empty ones are left out. More than three get a table of contents.
    subtitle: one line below the heading, such as the names of the files.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    environment.filters |= {"number": number, "base64": lambda data: base64.b64encode(data).decode("ascii")}
    return environment.get_template("template.html").render(
        title=title,
        subtitle=subtitle,
        sections=[section for section in sections if section.parts],
        footer=f"Made with MedGen {__version__}. {NOTE.capitalize()}.",
    )


def number(value: Cell) -> str:
    """Format a value: 4 digits, integers without decimals, a dash for None.

    >>> number(0.123456), number(1234567), number(None)
    ('0.1235', '1234567', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    value += 0.0  # -0.0 becomes 0.0
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _is_small(part: Part) -> bool:
    return isinstance(part, Picture) and not part.wide
