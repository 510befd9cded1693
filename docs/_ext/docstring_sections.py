"""Reads the sections of the library's docstrings, whose entries are `name: text`, for napoleon.

NumPy's own form puts a type behind the colon. Here types are annotations, so the text moves to a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

SECTIONS = {"Attributes", "Parameters", "Raises"}
ENTRY = re.compile(r"(?P<names>\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*(?:\([\w, ]*\))?): (?P<text>.+)")


def with_own_lines(lines: list[str]) -> Iterator[str]:
    """The docstring with every entry of a section as a line of names and an indented text."""
    section = ""
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if following and set(following) == {"-"}:
            section = line.strip()
        entry = ENTRY.fullmatch(line) if section in SECTIONS else None
        if entry is None:
            yield line
        else:
            yield entry["names"]
            yield f"    {entry['text']}"


def _rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = with_own_lines(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _rewrite, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
