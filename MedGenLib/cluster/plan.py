"""How many workers a computer carries, from MedGen's own estimates and the cores. No torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.verbs import VERBS
from MedGenLib.errors import MedGenError

IDLE_MIB = 600.0
"""Memory of a worker without a case."""
EVALUATION_BYTES = 60
"""Bytes per voxel of an evaluation, an upper bound."""
SHARE = 0.8
"""Part of the free memory that all workers may take."""
TRIED = 3


@dataclass(frozen=True)
class WorkerPlan:
    """Workers of a computer.

    Attributes
    ----------
    threads: CPU threads of each.
    memory_mib: the largest memory of a case.
    gpus: those that the workers share out, empty where they compute on the CPU.
    cpu_only: every case states the CPU.
    """

    workers: int
    threads: int
    memory_mib: float
    gpus: tuple[str, ...] = ()
    cpu_only: bool = False


def plan_workers(cases: Sequence[CohortCase], workers: int | None = None, threads: int | None = None) -> WorkerPlan:
    """Plan for these cases on this computer; numbers that are given stay.

    One worker for each core (on a computer with GPUs, for each GPU), as far as the memory for the largest case allows.
    """
    from MedGenLib.devices import MIB, free_memory

    cpu_only = all(case.parameters.get("device") == "cpu" for case in cases)
    needed, cores, gpus = memory_of(cases), usable_cores(), () if cpu_only else usable_gpus()
    if workers is None:
        room = int(SHARE * free_memory() / MIB / needed)
        workers = max(1, min(len(gpus) or cores // (threads or 1), room, len(cases)))
    return WorkerPlan(workers, threads or max(1, cores // workers), needed, gpus, cpu_only)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_gpus() -> tuple[str, ...]:
    """CUDA devices of this computer."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    if shutil.which("nvidia-smi") is None:
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
        return tuple(str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU "))
    return ()


def memory_of(cases: Sequence[CohortCase]) -> float:
    """Memory in MiB of the largest case, judged by the largest input files."""
    sized = [(_size(case), case) for case in {(c.verb, *sorted(c.inputs.values())): c for c in cases}.values()]
    largest = sorted(sized, key=lambda item: item[0], reverse=True)[:TRIED]
    needs = [IDLE_MIB]
    for _, case in largest:
        with suppress(MedGenError, OSError):  # a bad input, which its case will name
            needs.append(_memory(case))
    return max(needs)


def _size(case: CohortCase) -> int:
    with suppress(OSError, KeyError):
        path = Path(case.inputs[VERBS[case.verb].first])
        return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size
    return 0


def _memory(case: CohortCase) -> float:
    from MedGenLib.packages.catalogue import find, for_translation
    from MedGenLib.pipelines.estimate import plan_run
    from MedGenLib.run_files import read_input

    verb, parameters = VERBS[case.verb], case.parameters
    path = case.inputs.get(verb.first)
    if path is None:
        return 4 * IDLE_MIB
    geometry = read_input(verb.command, verb.first, Path(path), parameters).geometry
    if case.verb == "evaluate":
        voxels = geometry.shape[0] * geometry.shape[1] * geometry.shape[2]
        return IDLE_MIB + EVALUATION_BYTES * voxels / 2**20
    options = verb.checked(parameters, case.inputs, case.seed)
    manifest = find(options["model"]) if options["model"] else for_translation(None, options["to"])
    device = "cpu" if options["device"] == "auto" else options["device"]
    return max(IDLE_MIB, plan_run(manifest, geometry, options["preset"], device).memory_mib)
