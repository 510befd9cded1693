"""`medgen doctor`: checks of the installation and the machine."""

from __future__ import annotations

import platform
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from MedGenLib import devices, user_folders
from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console

ENOUGH_MEMORY = 1.5 * 2**30
"""Peak memory in bytes of the largest measured run of an embedded model."""


@dataclass(frozen=True)
class Diagnosis:
    """One line of the report."""

    healthy: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'OK' if self.healthy else 'PROBLEM':<9}{self.sentence}"


@command("doctor", "check this installation and this machine")
def run(_: Namespace, console: Console) -> int:
    """Print the diagnoses one by one; exit code 1 if there is a problem."""
    problems = 0
    for diagnosis in examine():
        console.say(str(diagnosis))
        problems += not diagnosis.healthy
    console.say(f"{problems or 'No'} problem{'' if problems == 1 else 's'} found.")
    return 1 if problems else 0


def examine() -> Iterator[Diagnosis]:
    """All examinations in order; a failing one does not stop the others."""
    examinations: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
        _versions,
        _devices,
        _memory,
        _write_access,
        _packages,
    )
    for examination in examinations:
        try:
            yield from examination()
        except Exception as error:  # any error is a diagnosis
            what = examination.__name__.strip("_").replace("_", " ")
            yield Diagnosis(False, f"{what}: {type(error).__name__}: {error}")


def _versions() -> Iterator[Diagnosis]:
    versions = devices.software_versions()
    python = f"python {versions.pop('python')} ({sys.executable})"
    yield Diagnosis(True, f"medgen {versions.pop('medgen')}, {python}, {platform.platform()}")
    for name, version in versions.items():
        if version == "missing":
            yield Diagnosis(False, f"{name} is not installed; install MedGen again")
        else:
            yield Diagnosis(True, f"{name} {version}")


def _devices() -> Iterator[Diagnosis]:
    import torch

    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in names:
        device = devices.pick_device(name)
        float_format = "bfloat16" if devices.probe_bfloat16(device) else "float32"
        description = devices.describe_device(device)
        yield Diagnosis(True, f"device {name} ({description}) computes, {float_format} is fastest")


def _memory() -> Iterator[Diagnosis]:
    free = devices.free_memory()
    enough = free >= ENOUGH_MEMORY
    advice = "" if enough else ", large volumes need 1.5 GiB; close other programs"
    yield Diagnosis(enough, f"memory: {free / 2**30:.1f} GiB free{advice}")


def _write_access() -> Iterator[Diagnosis]:
    folders = {
        "configuration": user_folders.config_dir(),
        "cache": user_folders.cache_dir(),
        "added models": user_folders.models_dir(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for purpose, folder in folders.items():
        problem = _write_problem(folder)
        advice = f" cannot be written ({problem}); set MEDGEN_HOME to another folder"
        yield Diagnosis(not problem, f"{purpose}: {folder}{advice if problem else ' is writable'}")


def _write_problem(folder: Path) -> str:
    """Try to write in the folder or its closest existing parent; the file is removed."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _packages() -> Iterator[Diagnosis]:
    from MedGenLib.packages.catalogue import broken, catalogue
    from MedGenLib.packages.store import verify

    manifests = catalogue()
    if not manifests:
        yield Diagnosis(False, "models: none is installed; install MedGen again")
    for manifest in manifests:
        problems = verify(manifest)
        yield from (Diagnosis(False, problem) for problem in problems)
        if not problems:
            yield Diagnosis(True, f"model {manifest.name} {manifest.version}: all checksums are right")
    yield from (Diagnosis(False, package.reason) for package in broken())
