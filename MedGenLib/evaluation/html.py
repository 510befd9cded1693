"""Reports as one HTML file that needs nothing else: no network, no scripts, no files beside it.

    text = page(
        "Evaluation",
        [
            Section("Image metrics", [Table(("Measure", "Value", "Unit"), [("MAE", 41.2, "HU")])]),
            Section("Pictures", [Picture(png, "Difference in HU")]),
        ],
    )
    outputs.staged(folder / "report.html").write_text(text, encoding="utf-8")

All text is escaped here, so callers pass what users and files said as it is.
"""

from __future__ import annotations

import base64
import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from MedGenLib import __version__
from MedGenLib.report import NOTE

Cell = str | int | float | None
"""What a table shows: a text, a number (4 digits, to the right), or nothing (a dash)."""


@dataclass(frozen=True)
class Table:
    """Rows under headers.

    Attributes
    ----------
    headers: one for each column.
    rows: as many cells each.
    caption: what the table shows, below it.
    strong: numbers of the rows that stand out, such as a total.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A PNG, as wide as the page if `wide`, else two in a row where the screen has room."""

    png: bytes
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Values:
    """A few figures in large type, each (name, value, unit)."""

    entries: Sequence[tuple[str, Cell, str]]


@dataclass(frozen=True)
class Notice:
    """A sentence in a box: something the reader must not miss."""

    text: str


Part = str | Table | Picture | Values | Notice
"""A str is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """A complete HTML document.

    Parameters
    ----------
    title: heading, and name of the browser's tab.
    sections: in their order; with more than three there is a list of contents. Empty ones are left
        out.
    subtitle: one line below the heading, such as the names of the files.
    """
    sections = [section for section in sections if section.parts]
    filled = {
        "style": _text_of("report.css"),
        "title": escape(title),
        "subtitle": f"<p class='subtitle'>{escape(subtitle)}</p>" if subtitle else "",
        "contents": _contents(sections) if len(sections) > 3 else "",
        "sections": "\n".join(_section(n, s) for n, s in enumerate(sections, 1)),
        "footer": escape(f"Made with MedGen {__version__}. {NOTE.capitalize()}."),
    }
    # All at once: a file's name with braces in it must stay as it is.
    return re.sub(r"{{(\w+)}}", lambda place: filled[place[1]], _text_of("template.html"))


def number(value: Cell) -> str:
    """A value as it is shown everywhere: 4 digits, whole numbers whole, a dash for none.

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


@functools.cache
def _text_of(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()


def _contents(sections: Sequence[Section]) -> str:
    links = (f"<li><a href='#section-{n}'>{escape(s.title)}</a></li>" for n, s in enumerate(sections, 1))
    return f"<nav aria-label='Contents'><ol>{''.join(links)}</ol></nav>"


def _section(position: int, section: Section) -> str:
    body, pictures = [], []
    for part in section.parts:
        if isinstance(part, Picture) and not part.wide:
            pictures.append(_picture(part))
            continue
        body += _gallery(pictures)
        pictures = []
        body.append(_part(part))
    body += _gallery(pictures)
    heading = f"<h2>{escape(section.title)}</h2>"
    return "\n".join([f"<section id='section-{position}'>", heading, *body, "</section>"])


def _gallery(pictures: Sequence[str]) -> list[str]:
    """Neighbouring small pictures side by side."""
    return [f"<div class='gallery'>{''.join(pictures)}</div>"] if pictures else []


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    if isinstance(part, Notice):
        return f"<p class='notice' role='note'>{escape(part.text)}</p>"
    if isinstance(part, Values):
        return _values(part)
    return _table(part) if isinstance(part, Table) else _picture(part)


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    shown = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'>{shown}</figure>"


def _values(values: Values) -> str:
    tiles = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(number(value))}<span>{escape(unit)}</span></dd></div>"
        for name, value, unit in values.entries
    )
    return f"<dl class='values'>{''.join(tiles)}</dl>"


def _table(table: Table) -> str:
    heads = "".join(
        f"<th scope='col'{_right(_is_numeric(table, column))}>{escape(head)}</th>"
        for column, head in enumerate(table.headers)
    )
    rows = (
        f"<tr{' class=strong' if n in table.strong else ''}>{''.join(map(_cell, row))}</tr>"
        for n, row in enumerate(table.rows)
    )
    caption = f"<p class='caption'>{escape(table.caption)}</p>" if table.caption else ""
    return (
        f"<div class='table'><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{caption}"
    )


def _is_numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows]
    return not all(isinstance(cell, str) for cell in cells)


def _cell(cell: Cell) -> str:
    return f"<td{_right(not isinstance(cell, str))}>{escape(number(cell))}</td>"


def _right(numeric: bool) -> str:
    return " class='number'" if numeric else ""
