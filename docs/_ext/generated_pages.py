"""Writes the pages that the code knows best: commands from the parser, option tables from the declaration of the
options, model cards from the packages, the table of organs, sentences from the syntax tree.

They lie in `docs/reference/commands`, `options`, `models`, `organs` and `sentences`, are not tracked, and are written
only when they change.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from sphinx.application import Sphinx
from user_sentences import MEANINGS, Sentence, sentences

from MedGenLib.cli.commands import build_parser
from MedGenLib.labels.organs import PHASES, Organ, organs, sources
from MedGenLib.options import COMMANDS, table
from MedGenLib.packages.catalogue import is_embedded, light_catalogue
from MedGenLib.packages.manifest import Manifest

EVERYWHERE = {"help", "quiet", "verbose"}
"""Options that every command has; the list of commands names them."""


def command_pages() -> dict[str, str]:
    """File name -> page, one for each command of `medgen`, and the list of all."""
    commands = _actions(build_parser())
    pages = {f"{name.replace(' ', '-')}.md": _command(parser) for name, parser in commands.items()}
    summaries = [f"| [medgen {name}]({name.replace(' ', '-')}.md) | {_summary(p)} |" for name, p in commands.items()]
    pages["index.md"] = "\n".join(
        [
            "# Commands\n",
            "Every command prints the same text with `--help`. Exit codes: 0 done; 1 an unexpected error, a problem",
            "that `doctor`, `models verify` or `info` found, or cases of `evaluate` or `cohort run` that failed; 2 a",
            "request that cannot be met, with one sentence on stderr; 3 the outputs were written but failed their",
            "checks; 130 stopped by Ctrl-C. Every command takes `-q` (print only errors) and `-v` (more details).\n",
            "| command | what it does |\n| --- | --- |",
            *summaries,
            _toctree(name for name in pages),
        ]
    )
    return pages


def option_pages() -> dict[str, str]:
    """The tables of all commands on one page."""
    tables = (f"## {name.replace('_', '-')}\n\n{table(name)}" for name in COMMANDS)
    text = (
        "# Options\n\nEach option is declared once and has these names in Python, on the command line and in Slicer. "
        "`redraw` is one edit of an open canvas.\n"
    )
    return {"index.md": "\n".join([text, *tables])}


def model_pages() -> dict[str, str]:
    """File name -> page, one for each embedded package, and the list of all."""
    models = [model for model in light_catalogue() if is_embedded(model)]
    pages = {f"{model.name}.md": _model(model) for model in models}
    rows = [f"| [{m.name}]({m.name}.md) | {m.description} | {m.license.spdx} |" for m in models]
    pages["index.md"] = "\n".join(
        [
            "# Model cards\n",
            "The card of each embedded package as it ships with the weights; `medgen models info NAME` prints it.\n",
            "| model | makes | license |\n| --- | --- | --- |",
            *rows,
            _toctree(name for name in pages),
        ]
    )
    return pages


def organ_pages() -> dict[str, str]:
    """The table of organs with its sources on one page."""
    rows = [
        f"| {organ.name} | {organ.tissue} | {' | '.join(_with_shell(organ, n) for n in range(len(PHASES)))} | "
        f"{', '.join(organ.sources)} |"
        for organ in organs()
    ]
    text = [
        "# Organs\n",
        "HU in the interior of each organ by contrast phase, with the standard deviation between people: of a hollow",
        "organ the content (and the wall), of the kidney the medulla (and the cortex), of a bone the marrow.",
        "[How to use them](../../how-to/organs.md).\n",
        f"| organ | tissue | {' | '.join(PHASES)} | sources |\n|{' --- |' * (len(PHASES) + 3)}",
        *rows,
        "\n## Sources\n",
        "| source | what it says |\n| --- | --- |",
        *(f"| {key} | {_escaped(what)} |" for key, what in sources().items()),
        "\n## Names\n",
        "Names of other tools are found by the [tables of labels](../../how-to/labels.md).\n",
        "| organ | names |\n| --- | --- |",
        *(f"| {organ.name} | {_escaped(', '.join(organ.names))} |" for organ in organs()),
    ]
    return {"index.md": "\n".join(text) + "\n"}


def _with_shell(organ: Organ, phase: int) -> str:
    shell = "" if organ.shell is None or organ.shell[phase] == organ.hu[phase] else f" ({organ.shell[phase]:g})"
    return f"{organ.hu[phase]:g}{shell} ± {organ.sd[phase]:g}"


def sentence_pages() -> dict[str, str]:
    """Every sentence of the code on one page, by room."""
    rooms: dict[str, list[Sentence]] = {}
    for sentence in sentences():
        rooms.setdefault(sentence.room, []).append(sentence)
    text = [
        "# Sentences\n",
        "Every sentence that a command, a function, the worker or the panel can answer with, by the",
        "[room](../architecture.md#rooms) of the code that says it. *Words in italics* stand for values. Search this",
        "page for the words of a sentence to see what to do.\n",
        "| kind | what it means |\n| --- | --- |",
        *(f"| {kind} | {meaning} |" for kind, meaning in MEANINGS.items()),
    ]
    for room, found in rooms.items():
        text += [f"\n## {room}\n", "| what it says | what to do | kind |\n| --- | --- | --- |"]
        text += [f"| {_with_values(s.problem)} | {_with_values(s.advice)} | {s.kind} |" for s in found]
    return {"index.md": "\n".join(text) + "\n"}


def _with_values(text: str) -> str:
    """The text on one line, with its values in italics."""
    parts = re.split(r"\{([^{}]*)\}", " ".join(text.split()))
    return "".join(
        f"*{_escaped(part.strip('_').replace('_', ' ').lower() or '...')}*" if number % 2 else _escaped(part)
        for number, part in enumerate(parts)
    )


def _model(model: Manifest) -> str:
    card = Path("../../..") / "Resources" / "Models" / model.name / "docs" / "README.md"
    return f"```{{include}} {card.as_posix()}\n```\n"


def _command(parser: argparse.ArgumentParser, level: int = 1) -> str:
    """The command, then its actions as sections."""
    parts = [f"{'#' * level} {parser.prog}\n", f"{_escaped(_description(parser))}\n"]
    parts += [f"```text\n{textwrap.dedent(parser.format_usage().replace('usage:', ' ' * 6)).rstrip()}\n```\n"]
    parts += [f"```{{program}} {parser.prog}\n```\n", *_options(parser)]
    if parser.epilog:
        parts += [f"```text\n{textwrap.dedent(parser.epilog).rstrip()}\n```\n"]
    parts += [_command(action, level + 1) for action in _actions(parser).values()]
    return "\n".join(parts)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A directive for every argument, positional ones first, as `--help` orders them."""
    formatter = parser._get_formatter()  # argparse has no public way to its texts
    for action in sorted(parser._actions, key=lambda action: bool(action.option_strings)):
        if isinstance(action, argparse._SubParsersAction) or action.dest in EVERYWHERE:
            continue
        invocation = formatter._format_action_invocation(action)
        help_text = formatter._expand_help(action) if action.help else ""
        required = "Required. " if action.required and action.option_strings else ""
        yield f":::{{option}} {invocation}\n{required}{_escaped(help_text)}\n:::\n"


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name -> parser of the commands below a parser."""
    return {
        name: child.filled()
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, child in action.choices.items()
    }


def _description(parser: argparse.ArgumentParser) -> str:
    return " ".join((parser.description or "").split())


def _summary(parser: argparse.ArgumentParser) -> str:
    return _escaped(_description(parser).split(". ")[0].rstrip("."))


def _escaped(text: str) -> str:
    """Markdown that shows a plain text as it is; what stands between backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]#~|])", r"\\\1", part) for part in parts)


def _toctree(names: Iterable[str]) -> str:
    entries = "\n".join(name.removesuffix(".md") for name in names)
    return f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def _write(app: Sphinx) -> None:
    written = {"commands": command_pages(), "options": option_pages(), "models": model_pages()}
    written |= {"organs": organ_pages(), "sentences": sentence_pages()}
    for folder, pages in written.items():
        place = Path(app.srcdir) / "reference" / folder
        place.mkdir(exist_ok=True)
        for path in place.glob("*.md"):
            if path.name not in pages:
                path.unlink()
        for name, text in pages.items():
            path = place / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
