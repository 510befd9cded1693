"""The imports of every file of the library and of the Slicer side, read without running anything."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ROOTS = {"MedGenLib": REPOSITORY, "MedGenSlicer": REPOSITORY / "MedGen", "MedGen": REPOSITORY / "MedGen"}
"""Top-level module -> the folder it is imported from."""
FACE = REPOSITORY / "MedGenLib" / "__init__.py"
"""Loads each public name from its own file when it is first used, so that it is no place itself."""


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes
    ----------
    module: absolute dotted name, with the name behind ``from ... import``.
    deferred: inside a function.
    typing: for type checkers only.
    """

    file: Path
    line: int
    module: str
    deferred: bool = False
    typing: bool = False

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def at_file_scope(self) -> bool:
        return not (self.deferred or self.typing)

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line} imports {self.module}"


def shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def files_in(*folders: str) -> list[Path]:
    """Every Python file below folders of the repository."""
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports_of(path: Path) -> tuple[Import, ...]:
    return tuple(walk(parsed(path), path))


def imports_in(*folders: str) -> list[Import]:
    return [item for path in files_in(*folders) for item in imports_of(path)]


def walk(node: ast.AST, path: Path, deferred: bool = False, typing: bool = False) -> Iterator[Import]:
    """All imports below a node of the syntax tree."""
    for child in ast.iter_child_nodes(node):
        for module in _modules(child, path):
            yield Import(path, child.lineno, module, deferred, typing)
        for part, for_typing in _parts(child):
            inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(part, path, inside, typing or for_typing)


def _parts(node: ast.AST) -> list[tuple[ast.AST, bool]]:
    """A node, and whether it is for type checkers; an ``if TYPE_CHECKING`` has two parts."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return [(ast.Module(node.body, []), True), (ast.Module(node.orelse, []), False)]
    return [(node, False)]


def _modules(node: ast.AST, path: Path) -> list[str]:
    """Absolute names that an import statement loads, or a call of import_module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and "import_module" in ast.dump(node.func) and node.args:
        called = node.args[0]
        return [called.value] if isinstance(called, ast.Constant) and not called.value.startswith(".") else []
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        root = next((folder for name, folder in ROOTS.items() if path.is_relative_to(folder / name)), REPOSITORY)
        package = path.relative_to(root).parts[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def file_of(module: str) -> Path | None:
    """The file of a module or package of ours."""
    top, *rest = module.split(".")
    if top not in ROOTS:
        return None
    place = ROOTS[top].joinpath(top, *rest)
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


@functools.cache
def public_names() -> Mapping[str, Path]:
    """Public name of MedGenLib -> the file it comes from, as the table in the package says."""
    tables = [node.value for node in parsed(FACE).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    pairs = [
        (ast.literal_eval(key), ast.literal_eval(value))
        for table in tables
        if isinstance(table, ast.Dict)
        for key, value in zip(table.keys, table.values, strict=True)
    ]
    return {name: found for name, home in pairs if (found := file_of(f"MedGenLib.{home}"))}


def target_of(item: Import) -> Path | None:
    """The file of ours that an import asks for: the module itself or the one that holds the name."""
    found = file_of(item.module) or file_of(item.module.rpartition(".")[0])
    if found == FACE or item.module.rpartition(".")[0] == "MedGenLib":
        return public_names().get(item.name, None if found == FACE else found)
    return found


def run_by(module: str) -> list[Path]:
    """The files that run when a module is imported: its packages and itself."""
    parts = module.split(".")
    found = [file_of(".".join(parts[:n])) for n in range(1, len(parts) + 1)]
    return [path for path in found if path is not None]


def opened_by(start: Iterable[Path]) -> dict[Path, Import | None]:
    """Every file that runs when files are imported, each with the import that asks for it."""
    found: dict[Path, Import | None] = dict.fromkeys(start)
    waiting = list(found)
    while waiting:
        for item in imports_of(waiting.pop()):
            for path in run_by(item.module) if item.at_file_scope else ():
                if path not in found:
                    found[path] = item
                    waiting.append(path)
    return found


Graph = Mapping[str, Iterable[str]]


def circles(graph: Graph) -> list[set[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            component = {stack.pop()}
            while node not in component:
                component.add(stack.pop())
            found.extend([component] if len(component) > 1 else [])

    for node in graph:
        if node not in index:
            visit(node)
    return found


def circular_edges(graph: Graph) -> set[str]:
    """The edges that lie in a circle, as "a -> b"."""
    groups = circles(graph)
    return {
        f"{a} -> {b}" for a, targets in graph.items() for b in targets for group in groups if {a, b} <= group and a != b
    }
