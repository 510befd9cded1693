"""No import circles and no private names across files, also where an import is deferred or for type checkers."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from allowance import require
from imports import circles, circular_edges, file_of, files_in, imports_in, imports_of, parsed, shown, target_of

CODE = ("MedGenLib", "MedGen")


def between_files() -> dict[str, set[str]]:
    """File -> the files that it asks for."""
    graph = defaultdict(set)
    for item in imports_in(*CODE):
        target = target_of(item)
        if target is not None and target != item.file:
            graph[shown(item.file)].add(shown(target))
    return graph


def between_rooms() -> dict[str, set[str]]:
    """Folder of MedGenLib or of MedGenSlicer, or a file beside them -> the same."""
    graph = defaultdict(set)
    for file, targets in between_files().items():
        for target in targets:
            if room(file) != room(target):
                graph[room(file)].add(room(target))
    return graph


def room(file: str) -> str:
    depth = 3 if file.startswith("MedGen/MedGenSlicer/") else 2
    return "/".join(file.split("/")[:depth])


def private_names(*folders: str) -> Counter[str]:
    """Private names of other files: imported, or read from an imported module or class."""
    found: Counter[str] = Counter()
    for path in files_in(*folders):
        for name in [*_imported_private(path), *_read_private(path)]:
            found[f"{shown(path)}: {name}"] += 1
    return found


def _imported_private(path: Path) -> list[str]:
    return [item.module for item in imports_of(path) if _private(item.name) and target_of(item)]


def _read_private(path: Path) -> list[str]:
    ours = {}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                module = node.module if isinstance(node, ast.ImportFrom) and not node.level else alias.name
                if file_of(module or "") is not None:
                    ours[alias.asname or alias.name] = f"{module}.{alias.name}"
    return [
        f"{ours[node.value.id]}.{node.attr}"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in ours and _private(node.attr)
    ]


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


RULES = {
    "circles between files": lambda: dict.fromkeys(circular_edges(between_files()), 1),
    "circles between rooms": lambda: dict.fromkeys(circular_edges(between_rooms()), 1),
    "private names of other files": lambda: private_names(*CODE),
    "private names in tests": lambda: private_names("Testing"),
}


@pytest.mark.parametrize("kind", RULES)
def test_violations_only_become_fewer(kind):
    require(kind, RULES[kind]())


def test_the_graph_knows_the_files():
    graph = between_files()
    assert len(graph) > 100
    assert "MedGenLib/generate.py" in graph["MedGenLib/cli/demo.py"]
    assert "MedGenLib/io/files.py" in graph["MedGenLib/translate.py"]
    assert {"MedGenLib/imaging", "MedGenLib/errors.py"} <= between_rooms()["MedGenLib/io"]


def test_circles_are_found():
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(map(sorted, circles(graph))) == [["a", "b", "c"], ["d", "e"]]
    assert circular_edges(graph) == {"a -> b", "b -> c", "c -> a", "d -> e", "e -> d"}
