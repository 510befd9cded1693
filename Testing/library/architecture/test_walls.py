"""The walls between the rooms, read from the imports of every file without running it.

| room                        | never imports                                                    |
|-----------------------------|------------------------------------------------------------------|
| MedGenLib                   | slicer, qt, ctk, vtk                                             |
| MedGenLib but `HEAVY` rooms | torch or monai at file scope, however long the chain             |
| networks, diffusion         | the rest of MedGenLib: they know tensors (and a registry) only   |
| cluster, federated          | ray, nvflare outside of functions; only commands import them     |
| MedGen (the Slicer side)    | torch, monai; files of MedGenLib that open them                  |
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from imports import (
    REPOSITORY,
    Import,
    file_of,
    files_in,
    imports_in,
    imports_of,
    opened_by,
    public_names,
    run_by,
    shown,
    target_of,
    walk,
)

from MedGenLib.requirements import requirements

SLICER = {"slicer", "qt", "ctk", "vtk", "PythonQt", "mrml", "MedGenSlicer"}
TORCH = {"torch", "monai", "torchvision"}
SLOW = TORCH | {"numpy", "SimpleITK", "matplotlib", "scipy", "skimage", "jsonschema", "pydicom", "tqdm"}
HEAVY = ("networks", "diffusion", "training", "pipelines", "editing", "federated")
"""Rooms of MedGenLib with files that compute in torch; all others, also later ones, are light."""
TENSORS_ONLY = ("networks", "diffusion")
KNOWN_TO_TENSORS = {*TENSORS_ONLY, "errors", "registry"}
DISTRIBUTED = {"cluster": "ray", "federated": "nvflare"}
FILE_SCOPE_IN_SLICER = {"slicer", "qt", "ctk", "vtk", "numpy", "SimpleITK", "MedGen", "MedGenLib", "MedGenSlicer"}


def as_text(items: Iterable[Import]) -> list[str]:
    return [str(item) for item in items]


def room_of(item: Import) -> str:
    """The room of MedGenLib that is imported."""
    return item.module.split(".")[1]


def place_of(item: Import) -> str:
    """The room that imports."""
    return item.file.relative_to(REPOSITORY).parts[1]


def heavy_chains(path: Path) -> list[str]:
    """Which import of torch the file leads to at file scope, by whatever way."""
    return [
        f"{shown(path)}: {item}"
        for file in opened_by([path])
        for item in imports_of(file)
        if item.at_file_scope and item.top in TORCH
    ]


def test_the_library_knows_neither_slicer_nor_qt():
    items = imports_in("MedGenLib")
    assert len(items) > 1000
    assert as_text(item for item in items if item.top in SLICER) == []


def test_light_rooms_open_without_torch():
    light = [path for path in files_in("MedGenLib") if path.relative_to(REPOSITORY).parts[1] not in HEAVY]
    assert len(light) > 100
    assert [chain for path in light for chain in heavy_chains(path)] == []


def test_heavy_rooms_are_needed():
    """A room without torch at file scope is light and leaves the list."""
    for room in HEAVY:
        assert any(heavy_chains(path) for path in files_in(f"MedGenLib/{room}")), room


@pytest.mark.parametrize("room", TENSORS_ONLY)
def test_networks_and_samplers_know_tensors_only(room):
    items = [item for item in imports_in(f"MedGenLib/{room}") if item.top == "MedGenLib"]
    assert items
    assert as_text(item for item in items if room_of(item) not in KNOWN_TO_TENSORS) == []


def test_distributed_computing_stays_in_its_rooms():
    """Ray and NVFlare inside functions of their rooms; those rooms are opened by commands only."""
    items = imports_in("MedGenLib", "MedGen")
    at_home = {item for item in items if DISTRIBUTED.get(place_of(item)) == item.top and not item.at_file_scope}
    assert as_text(item for item in items if item.top in DISTRIBUTED.values() and item not in at_home) == []
    doors = [item for item in items if item.top == "MedGenLib" and room_of(item) in DISTRIBUTED]
    assert as_text(item for item in doors if place_of(item) not in (room_of(item), "cli")) == []


def test_the_slicer_side_has_no_torch():
    items = imports_in("MedGen")
    assert len(files_in("MedGen")) > 20
    assert as_text(item for item in items if item.top in TORCH) == []
    doors = {target for item in items if item.top == "MedGenLib" and (target := target_of(item))}
    assert len(doors) > 10
    assert [chain for path in doors for chain in heavy_chains(path)] == []


def test_opening_the_slicer_module_costs_nothing():
    known = FILE_SCOPE_IN_SLICER | set(sys.stdlib_module_names)
    items = [item for item in imports_in("MedGen") if item.at_file_scope]
    assert as_text(item for item in items if item.top not in known) == []


def modules_of(distributions: Iterable[str]) -> set[str]:
    """Top-level modules of distributions; a distribution that is not installed keeps its name."""
    found = {normal(name).replace("-", "_") for name in distributions}
    for module, names in importlib.metadata.packages_distributions().items():
        if {normal(name) for name in names} & {normal(name) for name in distributions}:
            found.add(module)
    return found


def normal(distribution: str) -> str:
    """The name of a requirement as the package index compares it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", distribution)[0]).lower()


def test_only_declared_distributions_are_imported():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [names for extra, names in project["optional-dependencies"].items() if extra != "dev"]
    needed = [needed.name for needed in requirements()]
    declared = modules_of([*needed, *(name for names in extras for name in names)])
    assert {"torch", "skimage", "SimpleITK", "dicomanonymizer"} <= declared
    known = declared | set(sys.stdlib_module_names) | {"MedGenLib"}
    assert as_text(item for item in imports_in("MedGenLib") if item.top not in known) == []


def absent_in_slicer() -> set[str]:
    """Modules that a fresh Slicer lacks: what the extension installs, and PyTorch."""
    return TORCH | modules_of(needed.name for needed in requirements() if not needed.brought_by)


def test_a_fresh_slicer_can_open_what_the_panel_needs(tmp_path):
    """Really imported, with those packages out of reach; and the models are listed quickly."""
    targets = {target_of(item) for item in imports_in("MedGen") if item.top == "MedGenLib"} - {None}
    needed = sorted(shown(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in targets)
    assert len(needed) > 10 and len(absent_in_slicer()) > 8
    code = f"""
import sys, time
for name in {sorted(absent_in_slicer())!r}:
    sys.modules[name] = None
import importlib
for name in {needed!r}:
    importlib.import_module(name)
from MedGenLib.packages.catalogue import light_catalogue
from MedGenLib.packages.license import is_accepted, require_acceptance
light_catalogue()
start = time.process_time()
models = light_catalogue()
print(time.process_time() - start < 0.1, sorted(m.name for m in models))
asking = next(m for m in models if m.license.acceptance_required)
print(is_accepted(asking), require_acceptance(asking, True), is_accepted(asking))
"""
    home = {**os.environ, "MEDGEN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=home, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    names = str(sorted(folder.name for folder in (REPOSITORY / "Resources/Models").iterdir()))
    assert done.stdout.splitlines() == [f"True {names}", "False True True"]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["generate", "--help"]], ids=" ".join)
def test_the_command_line_opens_without_anything_slow(arguments):
    code = f"""
import sys
from MedGenLib.cli import main
main({arguments!r})
print(sorted(set({sorted(SLOW)!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_reader_of_imports_sees_what_it_should():
    path = REPOSITORY / "MedGenLib" / "packages" / "imagined.py"
    source = (
        "import torch.nn\nfrom ..io.files import x\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import slicer\nelse:\n    import vtk\n"
        "try:\n    import qt\nexcept ImportError:\n    pass\n"
        "def f():\n    from . import manifest\n    importlib.import_module('MedGenLib.packages.text')\n"
    )
    found = {(i.module, i.deferred, i.typing) for i in walk(ast.parse(source), path)}
    assert found == {
        ("torch.nn", False, False),
        ("MedGenLib.io.files.x", False, False),
        ("typing.TYPE_CHECKING", False, False),
        ("slicer", False, True),
        ("vtk", False, False),
        ("qt", False, False),
        ("MedGenLib.packages.manifest", True, False),
        ("MedGenLib.packages.text", True, False),
    }


def test_imports_lead_to_their_files():
    path = REPOSITORY / "MedGenLib" / "imagined.py"
    wanted = {
        "MedGenLib.io.files": "MedGenLib/io/files.py",
        "MedGenLib.io.files.read_volume": "MedGenLib/io/files.py",
        "MedGenLib.io.dicom": "MedGenLib/io/dicom/__init__.py",
        "MedGenLib.Canvas": "MedGenLib/editing/session.py",
        "MedGenLib.generate": "MedGenLib/generate.py",
        "MedGenSlicer.logic.MedGenLogic": "MedGen/MedGenSlicer/logic.py",
    }
    found = {module: target_of(Import(path, 1, module)) for module in wanted}
    assert {module: shown(target) for module, target in found.items()} == wanted
    assert target_of(Import(path, 1, "MedGenLib.__version__")) is None
    assert target_of(Import(path, 1, "numpy.typing")) is None
    assert [shown(file) for file in run_by("MedGenLib.io.files.read_volume")] == [
        "MedGenLib/__init__.py",
        "MedGenLib/io/__init__.py",
        "MedGenLib/io/files.py",
    ]
    assert {"generate", "translate", "Canvas", "insert_lesion", "Volume"} <= set(public_names())
    assert file_of("MedGenLib.nowhere") is None
