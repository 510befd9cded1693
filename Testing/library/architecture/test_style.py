"""Short functions with few parameters, and one style for all files."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from allowance import require
from imports import REPOSITORY, files_in, parsed, shown

FOLDERS = ("MedGenLib", "MedGen", "Testing")
LINES, PARAMETERS = 60, 10
OPTIONS = "MedGenLib/options"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function below a node, with the names of what it lies in."""
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, ast.ClassDef | Function):
            name = f"{prefix}{node.name}"
            if isinstance(node, Function):
                yield name, node
            name += "."
        yield from functions(node, name)


def length(function: Function) -> int:
    """Lines of the body without its docstring."""
    first, *rest = function.body
    if ast.get_docstring(function) is None:
        return function.end_lineno - first.lineno + 1
    return function.end_lineno - rest[0].lineno + 1 if rest else 0


def parameters(function: Function) -> int:
    found = function.args
    names = [item.arg for item in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def every_function() -> list[tuple[str, Function]]:
    return [(f"{shown(path)}: {name}", node) for path in files_in(*FOLDERS) for name, node in functions(parsed(path))]


def repeated_classes() -> dict[str, int]:
    """Names of public classes that mean more than one thing."""
    count = Counter(
        node.name
        for path in files_in("MedGenLib", "MedGen")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name: number for name, number in count.items() if number > 1}


RULES = {
    "names of several classes": repeated_classes,
    f"functions above {LINES} lines": lambda: {name: 1 for name, node in every_function() if length(node) > LINES},
    f"more than {PARAMETERS} parameters": lambda: {
        name: 1 for name, node in every_function() if parameters(node) > PARAMETERS and not name.startswith(OPTIONS)
    },
}


@pytest.mark.parametrize("kind", RULES)
def test_violations_only_become_fewer(kind):
    require(kind, RULES[kind]())


def test_lines_and_parameters_are_counted():
    source = 'class A:\n    def f(self, a, /, b, *c, d=1, **e):\n        """Text.\n\n        More.\n        """\n'
    source += "        a = (\n            b\n        )\n        return a\n\n\ndef g(): pass\n"
    (name, f), (other, g) = functions(ast.parse(source))
    assert (name, length(f), parameters(f)) == ("A.f", 4, 3)
    assert (other, length(g), parameters(g)) == ("g", 1, 0)


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_is_content(arguments):
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    command = [sys.executable, "-m", "ruff", *arguments, "--output-format", "concise", "."]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_formatter_is_never_switched_off():
    words = ("fmt: " + "skip", "fmt: " + "off", "yapf: " + "disable")
    files = files_in(*FOLDERS, "docs")
    assert [shown(p) for p in files if any(word in p.read_text(encoding="utf-8") for word in words)] == []
