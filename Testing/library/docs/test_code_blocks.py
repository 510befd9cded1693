"""The code blocks of README.md and docs/ run as they stand, page by page, on the sample data of the repository.

A `console` block is a session: lines after `$ ` are commands (`> ` continues one), other lines are what they print, in
which `...` stands for anything. A `python` block continues the ones above it on the same page. A comment before the
block says what does not run here: `<!-- slow -->` (it does with MEDGEN_SLOW_DOCS=1) or `<!-- not run: why -->`. The
command lines of such a block are parsed by the parser of `medgen`, its Python is compiled. `<!-- file: NAME -->` makes
the block a file of that name for the ones below it.
"""

from __future__ import annotations

import ast
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from MedGenLib.cli import main
from MedGenLib.cli.commands import build_parser

ROOT = Path(__file__).resolve().parents[3]
GENERATED = [ROOT / "docs" / "reference" / name for name in ("commands", "options", "models", "organs", "sentences")]
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent not in GENERATED)]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>slow|not run: [^>]+|file: [\w./-]+) -->\n\n?)?^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
LANGUAGES = {"console", "python", "json", "text"}
PLAIN = re.compile(r"medgen [^|<>&;$`*?]*")
"""A command that needs no shell."""
OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its text and the mark above it."""

    place: str
    language: str
    text: str
    mark: str

    @property
    def runs(self) -> bool:
        return not self.mark or self.mark == "slow" and bool(os.environ.get("MEDGEN_SLOW_DOCS"))


@dataclass
class Command:
    """A command of a console session and the output that the page shows for it."""

    text: str
    output: str = ""


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield Block(f"{page.relative_to(ROOT)}:{line}", found["language"], found["text"], found["mark"] or "")


def commands(session: str) -> list[Command]:
    found: list[Command] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        elif line.startswith("> "):
            found[-1].text += f"\n{line[2:]}"
        elif found[-1].text.endswith("\\"):
            found[-1].text += f"\n{line}"
        else:
            found[-1].output += f"{line}\n"
    return found


COSTLY = {
    "get-started/index.md",
    "tutorials/cohorts.md",
    *(f"how-to/{name}.md" for name in ("cohorts", "evaluation", "labels", "lesions", "organs", "sampling")),
}
"""Pages of many generations, which run in `make bench`."""


def _page(page: Path):
    name = str(page.relative_to(ROOT))
    costly = name.removeprefix("docs/") in COSTLY
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if costly else [])


@pytest.mark.parametrize("page", map(_page, PAGES))
def test_code_blocks(page, tmp_path, monkeypatch):
    (tmp_path / "Resources").symlink_to(ROOT / "Resources")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    namespace = {"__name__": "docs"}
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            code = compile(block.text, block.place, "exec")
            if block.mark.startswith("file: "):
                (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
            elif block.runs:
                exec(code, namespace)
            else:
                check_slicer_calls(block)
        elif block.language == "console":
            session = commands(block.text)
            run_session(session, block) if block.runs else check_session(session, block)


def run_session(session: list[Command], block: Block) -> None:
    for command in session:
        status, got, errors = run_here(command.text) if PLAIN.fullmatch(command.text) else run_in_shell(command.text)
        assert status == 0, f"{block.place}: {errors}"
        shown = doctest.OutputChecker().check_output(command.output, got, OUTPUT)
        assert shown or not command.output, f"{block.place}: {command.text}\nprinted\n{got}"


def run_here(text: str) -> tuple[int, str, str]:
    """`medgen` in this process, which has loaded PyTorch already; a new one would take 3 s for it."""
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as errors:
        status = main(shlex.split(text.replace("\\\n", " "), comments=True)[1:])
    return status, printed.getvalue(), errors.getvalue()


def run_in_shell(text: str) -> tuple[int, str, str]:
    done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def check_session(session: list[Command], block: Block) -> None:
    """The options of `medgen` and the targets of `make` exist."""
    for command in session:
        words = shlex.split(command.text.replace("\\\n", " ").partition("||")[0], comments=True)
        if words[:1] == ["medgen"]:
            try:
                build_parser().parse_args(words[1:])
            except SystemExit:
                pytest.fail(f"{block.place}: medgen refuses `{command.text}`")
        elif words[:1] == ["make"]:
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), block.place


def check_slicer_calls(block: Block) -> None:
    """The methods of the module's logic and their options exist."""
    tree = ast.parse((ROOT / "MedGen" / "MedGenSlicer" / "logic.py").read_text(encoding="utf-8"))
    methods = {node.name: node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for call in ast.walk(ast.parse(block.text)):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logic"), attr=name)):
                assert name in methods, f"{block.place}: the logic has no {name}"
                known = {argument.arg for argument in methods[name].args + methods[name].kwonlyargs}
                unknown = {keyword.arg for keyword in call.keywords} - known
                assert not unknown or methods[name].kwarg, f"{block.place}: {name} has no {unknown}"


def test_every_block_has_a_language_that_is_checked():
    others = [
        block.place
        for page in PAGES
        for block in blocks(page)
        if block.language not in LANGUAGES and not block.language.startswith("{")
    ]
    assert others == []


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^):#]+)\)", text)
    assert len(text.encode()) < 10_000
    assert targets and [target for target in targets if not (ROOT / target).exists()] == []
