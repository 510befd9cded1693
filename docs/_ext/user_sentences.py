"""Every sentence that a user can meet, read from the syntax tree of the code.

A sentence is a string in the code of the library or of the Slicer module that begins like a sentence and ends with a
period, and that is neither a docstring nor help: `HELP` names the calls whose texts other pages show.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("MedGenLib", "MedGen/MedGenSlicer")
HELP = {"action", "command", "add_argument", "add_parser", "ArgumentParser", "sampler", "recipe"}
"""Calls whose texts are help, descriptions of commands or of options."""
HELP_FILES = ("options/declarations.py", "options/surfaces.py")
KINDS = {
    "InputError": "refused",
    "DiskFullError": "refused",
    "PackageError": "refused",
    "LicenseError": "refused",
    "MemoryPlanError": "refused",
    "WorkerError": "failed",
    "ProtocolError": "failed",
    "Cancelled": "stopped",
    "Interrupted": "stopped",
    "ValueError": "refused",
    "Finding": "warning",
    "_warning": "warning",
    "warning": "warning",
    "_error": "refused",
    "fail": "failed check",
}
"""Name that is called with a sentence -> kind of the sentence; others are notes."""
MEANINGS = {
    "refused": "The run does not start or writes nothing (exit code 2).",
    "failed": "The process that computes ended or did not answer; the input is unchanged.",
    "stopped": "The run was stopped; nothing was written.",
    "warning": "The run goes on; its result may be worse than the model card states.",
    "failed check": "The outputs are written, but a check of them failed (exit code 3).",
    "note": "Something to know; nothing failed.",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence of the code; ``{name}`` stands for a value.

    Attributes
    ----------
    room: folder of the code, as in the architecture.
    place: file, relative to the root, and line.
    kind: one of `MEANINGS`.
    """

    text: str
    room: str
    place: tuple[str, int]
    kind: str

    @property
    def problem(self) -> str:
        """What it says."""
        return self.text.rpartition("; ")[0] or self.text.rstrip(".")

    @property
    def advice(self) -> str:
        """What to do: the part behind the last semicolon; empty without one."""
        head, _, tail = self.text.rpartition("; ")
        return tail if head else ""

    def matches(self, message: str) -> bool:
        """Whether a message is this sentence, with values in it."""
        parts = [re.escape(part) for part in re.split(r"\{[^{}]*\}", self.text)]
        return re.search(".*".join(parts), message, re.S) is not None


@cache
def sentences() -> tuple[Sentence, ...]:
    """All sentences, by room and place."""
    trees = {}
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not place.endswith(HELP_FILES):
                trees[place] = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    makers = {name: kind for tree in trees.values() for name, kind in _makers(tree, functions - {"_", "tr"})}
    return tuple(sentence for place, tree in trees.items() for sentence in _of_file(tree, place, makers))


def _makers(tree: ast.AST, functions: set[str]) -> Iterator[tuple[str, str]]:
    """(name, kind) of functions, and of variables as ``function.variable``, whose value a call of `KINDS` gets."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        variables: dict[str, str] = {}
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call) and _name(node.func) in KINDS):
            for value in (*call.args, *(keyword.value for keyword in call.keywords)):
                if isinstance(value, ast.Name):
                    variables[value.id] = KINDS[_name(call.func)]
                elif isinstance(value, ast.Call) and _name(value.func) in functions:
                    yield _name(value.func), KINDS[_name(call.func)]
        for node in ast.walk(function):
            target = _target(node)
            if target in variables and isinstance(node.value, ast.Call) and _name(node.value.func) in functions:
                yield _name(node.value.func), variables[target]
        yield from ((f"{function.name}.{name}", kind) for name, kind in variables.items())


def _target(node: ast.AST) -> str:
    """The variable that a node assigns; empty for other nodes."""
    if isinstance(node, ast.NamedExpr):
        return node.target.id
    return _name(node.targets[0]) if isinstance(node, ast.Assign) and len(node.targets) == 1 else ""


def _of_file(tree: ast.AST, place: str, makers: dict[str, str]) -> Iterator[Sentence]:
    room = place.rpartition("/")[0] + "/"
    seen = set()
    for text, line, around in _texts(tree):
        kind = next(filter(None, (KINDS.get(name) or makers.get(name) for name in around)), "note")
        if is_sentence(text, kind) and text not in seen and not HELP.intersection(around):
            seen.add(text)
            yield Sentence(text, room, (place, line), kind)


def is_sentence(text: str, kind: str = "note") -> bool:
    """Whether a text begins like a sentence, has a few words on one line and ends with a period.

    An error and a finding may end with a value, which is then another sentence.
    """
    ends = (".", ".)") if kind == "note" else (".", ".)", "}")
    return bool(re.match(r"[A-Z{'\d]", text)) and text.endswith(ends) and len(text.split()) > 3 and "\n" not in text


def _texts(
    tree: ast.AST, around: tuple[str, ...] = (), function: str = ""
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(text, line, names around it) of every string that is no docstring.

    The names are those of calls, of the variable as ``function.variable`` and of the function, innermost first.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        text = text_of(node)
        if text is not None:
            yield text, node.lineno, around
        elif isinstance(node, ast.FunctionDef):
            yield from _texts(node, (node.name,), node.name)
        elif isinstance(node, ast.Call):
            yield from _texts(node, (_name(node.func), *around), function)
        else:
            target = _target(node)
            yield from _texts(node, (f"{function}.{target}", *around) if target else around, function)


def text_of(node: ast.AST) -> str | None:
    """The text of a string, an f-string, or a sum of them, with ``{name}`` for values; None for other nodes."""
    if isinstance(node, ast.Constant):
        return re.sub(r"\{(\w+)[^{}\w][^{}]*\}", r"{\1}", node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or _value(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        texts = {side: text_of(side) for side in (node.left, node.right)}
        if any(text is not None for text in texts.values()):
            return "".join(_value(side) if text is None else text for side, text in texts.items())
    return None


def _value(node: ast.AST) -> str:
    """The name of a value in a sentence, such as ``{spacing}`` for ``{volume.spacing:.3g}``."""
    if isinstance(node, ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.IfExp):
        ends = [text for text in map(text_of, (node.body, node.orelse)) if text and text.strip() and "{" not in text]
        return "{" + " or ".join(text.strip(" ,;()") for text in ends) + "}" if ends else "{...}"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return "{" + node.slice.value + "}"
    if isinstance(node, ast.Call):
        arguments = [*node.args, node.func]
        return _value(arguments[0]) if node.args else _value(node.func)
    names = [part.attr if isinstance(part, ast.Attribute) else part.id for part in ast.walk(node) if _is_name(part)]
    return "{" + (names[0] if names else "...") + "}"


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute | ast.Name)


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
