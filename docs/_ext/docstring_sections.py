"""Turns the library's docstrings into what napoleon and docutils read.

Entries of a section are `name: text`; NumPy's form puts a type behind the colon, so the text moves to a line of its own
(types are annotations here). An indented block after a paragraph is code or a formula, so it becomes a literal block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

SECTIONS = {"Attributes", "Parameters", "Raises"}
ENTRY = re.compile(r"(?P<names>\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*(?:\([\w, ]*\))?): (?P<text>.+)")


def rewritten(lines: list[str]) -> Iterator[str]:
    section, paragraph = "", ""
    for previous, line, following in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if following and set(following) == {"-"}:
            section = line.strip()
        entry = ENTRY.fullmatch(line) if section in SECTIONS else None
        if (
            section not in SECTIONS
            and line.startswith("    ")
            and not previous
            and not paragraph.startswith((" ", "-"))
        ):
            yield from ("::", "")
        paragraph = line or paragraph
        if entry is None:
            yield line
        else:
            yield entry["names"]
            yield f"    {entry['text']}"


def _rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = rewritten(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _rewrite, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
