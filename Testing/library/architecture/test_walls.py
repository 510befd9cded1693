"""The walls between the rooms, read from the imports of every file without running it.

| room                                                  | never imports                          |
|-------------------------------------------------------|----------------------------------------|
| MedGenLib, all of it                                  | slicer, qt, ctk, vtk                   |
| MedGenLib volume, files, dicom, labels, packages, ... | torch or monai at file scope           |
| MedGenLib networks, diffusion                         | files, packages, worker: tensors only  |
| MedGen (the Slicer side)                              | torch, monai; MedGenLib's torch modules|
"""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SLICER = {"slicer", "qt", "ctk", "vtk", "PythonQt", "mrml"}
TORCH = {"torch", "monai", "torchvision"}
SLOW = TORCH | {"SimpleITK", "matplotlib", "scipy", "skimage", "jsonschema", "pydicom", "tqdm"}

TORCH_FREE = (
    "__init__",
    "__main__",
    "blank",
    "cli",
    "conditioning",
    "demo",
    "dicom",
    "doctor",
    "edit",
    "errors",
    "evaluation",
    "files",
    "generate",
    "grids",
    "headers",
    "home",
    "intensity",
    "labels",
    "lesions",
    "maisi/body",
    "maisi/legal",
    "maisi/limits",
    "maisi/masks",
    "maisi/published",
    "maisi/vocabulary",
    "memory",
    "orientation",
    "outputs",
    "packages",
    "pictures",
    "planning",
    "progress",
    "provenance",
    "quality",
    "reader_study",
    "report",
    "resample",
    "result",
    "runtime",
    "style",
    "translate",
    "volume",
    "worker",
)
"""Rooms of MedGenLib that can be opened without torch: files and folders."""

TENSORS_ONLY = ("networks", "diffusion")
FORBIDDEN_TO_TENSORS = {"files", "dicom", "packages", "worker", "outputs", "home", "cli"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its absolute dotted name; `deferred` when inside a function."""

    file: Path
    line: int
    module: str
    deferred: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(REPOSITORY)}:{self.line} imports {self.module}"


def imports_of(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), path, deferred=False))


def _walk(node, path, deferred):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue  # for type checkers only: never executed
        for module in _modules(child, path):
            yield Import(path, child.lineno, module, deferred)
        inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, path, inside)


def _modules(node, path):
    """Absolute names of all that an import statement may load, submodules included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = path.relative_to(REPOSITORY).parts[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def files_of(*rooms: str) -> list[Path]:
    """All Python files below the given folders or files without suffix, as far as they exist."""
    found = []
    for room in rooms:
        path = REPOSITORY / room
        found += sorted(path.rglob("*.py"))
        found += [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []
    return found


def imports_in(*rooms: str) -> list[Import]:
    return [item for path in files_of(*rooms) for item in imports_of(path)]


def told(items) -> list[str]:
    return [str(item) for item in items]


def test_the_library_knows_neither_slicer_nor_qt():
    assert files_of("MedGenLib")
    assert told(i for i in imports_in("MedGenLib") if i.top in SLICER) == []


@pytest.mark.parametrize("room", TORCH_FREE)
def test_light_rooms_open_without_torch(room):
    assert files_of(f"MedGenLib/{room}")
    items = imports_in(f"MedGenLib/{room}")
    assert told(i for i in items if i.top in TORCH and not i.deferred) == []


def test_light_rooms_open_only_light_rooms():
    """What a light room imports at file scope is light too, however long the chain."""
    light = {path for room in TORCH_FREE for path in files_of(f"MedGenLib/{room}")}
    doors = [
        (item, target)
        for path in light
        for item in imports_of(path)
        if not item.deferred and item.top == "MedGenLib"
        for target in _files_behind(item.module)
    ]
    assert doors
    heavy = [
        f"{item}, and {inner}"
        for item, target in doors
        for inner in imports_of(target)
        if inner.top in TORCH and not inner.deferred
    ]
    assert heavy == []


def _files_behind(module: str) -> list[Path]:
    """The files that run when a module of MedGenLib is imported: its packages and itself."""
    parts = module.split(".")
    candidates = [REPOSITORY.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    files = [c / "__init__.py" for c in candidates] + [c.with_suffix(".py") for c in candidates]
    return [file for file in files if file.is_file()]


ABSENT = (
    "torch",
    "monai",
    "einops",
    "huggingface_hub",
    "jsonschema",
    "platformdirs",
    "psutil",
    "skimage",
    "safetensors",
)
"""What a fresh Slicer lacks."""

PANEL_NEEDS = (
    "errors",
    "files",
    "home",
    "labels",
    "lesions.library",
    "planning",
    "progress",
    "report",
    "volume",
    "packages.catalogue",
    "packages.install",
    "packages.license",
    "packages.manifest",
    "packages.text",
    "quality.finding",
    "quality.input_check",
    "reader_study.reading",
    "worker.client",
    "worker.connection",
    "worker.messages",
    "worker.process",
    "worker.transfer",
)


def test_a_fresh_slicer_can_open_what_the_panel_needs(tmp_path):
    """Really imported, with those packages out of reach; and the models are listed quickly."""
    code = f"""
import sys, time
for name in {ABSENT!r}:
    sys.modules[name] = None
import importlib
for name in {PANEL_NEEDS!r}:
    importlib.import_module("MedGenLib." + name)
from MedGenLib.packages.catalogue import light_catalogue
from MedGenLib.packages.license import is_accepted, require_acceptance
light_catalogue()
start = time.perf_counter()
models = light_catalogue()
print(time.perf_counter() - start < 0.05, sorted(m.name for m in models))
asking = next(m for m in models if m.license.acceptance_required)
print(is_accepted(asking), require_acceptance(asking, True), is_accepted(asking))
"""
    home = {**os.environ, "MEDGEN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=home, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    names = str(sorted(folder.name for folder in (REPOSITORY / "Resources/Models").iterdir()))
    assert done.stdout.splitlines() == [f"True {names}", "False True True"]


@pytest.mark.parametrize("room", TENSORS_ONLY)
def test_networks_and_samplers_know_tensors_only(room):
    assert files_of(f"MedGenLib/{room}")
    wrong = [
        item
        for item in imports_in(f"MedGenLib/{room}")
        if item.top == "MedGenLib" and item.module.split(".")[1] in FORBIDDEN_TO_TENSORS
    ]
    assert told(wrong) == []


def test_the_command_line_opens_without_anything_slow():
    files = files_of("MedGenLib/cli/__init__", "MedGenLib/cli/parser", "MedGenLib/cli/console")
    files += files_of("MedGenLib/__init__", "MedGenLib/errors", "MedGenLib/progress")
    assert len(files) == 6
    slow = [i for f in files for i in imports_of(f) if not i.deferred and i.top in SLOW | {"numpy"}]
    assert told(slow) == []


def test_the_slicer_side_has_no_torch():
    items = imports_in("MedGen")
    assert len(files_of("MedGen")) > 20
    assert told(i for i in items if i.top in TORCH) == []
    light = {f"MedGenLib.{room.replace('/', '.')}" for room in TORCH_FREE}
    doors = [i for i in items if i.top == "MedGenLib"]
    assert told(i for i in doors if not any(i.module.startswith(room) for room in light)) == []


def test_only_declared_distributions_are_imported():
    """What is imported is the standard library, ourselves or a dependency in pyproject.toml."""
    declared = {
        "torch",
        "monai",
        "SimpleITK",
        "numpy",
        "pydicom",
        "safetensors",
        "jsonschema",
        "matplotlib",
        "tqdm",
        "scipy",
        "skimage",
        "platformdirs",
        "psutil",
        "highdicom",
        "dicomanonymizer",
        "einops",
        "huggingface_hub",
    }
    known = declared | set(sys.stdlib_module_names) | {"MedGenLib"}
    assert told(i for i in imports_in("MedGenLib") if i.top not in known) == []


def test_the_reader_of_imports_sees_what_it_should():
    path = REPOSITORY / "MedGenLib" / "packages" / "imagined.py"
    source = (
        "import torch.nn\nfrom ..files import x\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import slicer\n"
        "try:\n    import qt\nexcept ImportError:\n    pass\n"
        "def f():\n    from . import store\n"
    )
    found = {(i.module, i.deferred) for i in _walk(ast.parse(source), path, deferred=False)}
    assert found == {
        ("torch.nn", False),
        ("MedGenLib.io.files.x", False),
        ("typing.TYPE_CHECKING", False),
        ("qt", False),
        ("MedGenLib.packages.store", True),
    }
