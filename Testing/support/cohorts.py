"""Helpers for tests and benchmarks of cohorts: tiny cases, a run in a process of its own, and its death."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from workers import trunk

from MedGenLib.cohort.manifest import write_cohort
from MedGenLib.cohort.records import CASES, Record
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.worker.process import descendants


def write_masks(folder: Path, count: int, shape: tuple[int, int, int] = (16, 16, 12)) -> Path:
    """Masks m000 ...; each differs a little from the others."""
    folder.mkdir()
    for number in range(count):
        mask = trunk(shape)
        mask.array[number % shape[0], 0, 0] = 2
        write_volume(mask, folder / f"m{number:03}.nii.gz")
    return folder


def write_images(folder: Path, count: int, side: int = 12) -> Path:
    """Small CT volumes of noise."""
    folder.mkdir()
    for number in range(count):
        values = np.random.default_rng(number).normal(40, 20, (side, side, side)).astype(np.float32)
        write_volume(Volume(values, np.eye(4), "CT", "HU"), folder / f"i{number:03}.nii.gz")
    return folder


def generation(path: Path, masks: Path, **parameters: object) -> Path:
    """A manifest that generates a CT from each mask, in few steps."""
    shared = {"model": "ct-tissue", "steps": 2, "retries": 0, "device": "cpu", **parameters}
    names = sorted(file.name for file in masks.iterdir())
    cases = [{"id": name.split(".")[0], "inputs": {"mask": f"{masks.name}/{name}"}, "seed": 1} for name in names]
    write_cohort(path, {"cohort": "chaos", "verb": "generate", "parameters": shared, "dataset": True, "cases": cases})
    return path


def start(manifest: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """`medgen cohort run` in a process of its own."""
    words = ["cohort", "run", str(manifest), "-o", str(out), *options]
    command = [sys.executable, "-c", "import sys; from MedGenLib.cli import main; sys.exit(main())", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(driver: int) -> list[int]:
    """The worker processes of a run."""
    found = []
    for pid in descendants(driver):
        with suppress(OSError):
            if b"MedGenLib.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def records(out: Path) -> dict[str, Record]:
    folders = sorted(path for path in (out / CASES).iterdir() if not path.name.startswith("."))
    return {path.name: Record.read(path) for path in folders}


def contents(out: Path) -> dict[str, str]:
    """Case -> hash of the voxels of its image."""
    return {name: found.outputs["image.nii.gz"]["content_sha256"] for name, found in records(out).items()}


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[int], None]]:
    """A file system of this size in memory, which the yielded function enlarges; PermissionError without the right."""

    def mount(*words: str) -> None:
        if subprocess.run(["mount", *words, str(folder)], capture_output=True).returncode:
            raise PermissionError("no file system can be mounted here")

    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs")
    try:
        yield lambda larger: mount("-o", f"remount,size={larger}k")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disturbed(
    manifest: Path, out: Path, deaths: Sequence[str], seed: int, options: Sequence[str] = (), pause: float = 0.4
) -> list[str]:
    """Run a cohort to its end while workers and drivers are killed; returns the deaths that happened.

    Parameters
    ----------
    deaths: "worker" or "driver", in order; each comes when another case was finished.
    pause: most seconds from that case to the death; all deaths have to come before the last case is finished.
    """
    draw, happened, waiting = random.Random(seed), [], list(deaths)
    for _ in range(2 + len(deaths)):
        driver = start(manifest, out, *options)
        while driver.poll() is None:
            target = len(list((out / CASES).glob("*/record.json"))) if (out / CASES).is_dir() else 0
            if waiting and _another(out, target, driver):
                time.sleep(draw.uniform(0, pause))
                victims = workers_of(driver.pid) if waiting[0] == "worker" else [driver.pid]
                if victims:
                    with suppress(ProcessLookupError):
                        os.kill(draw.choice(victims), signal.SIGKILL)
                        happened.append(waiting.pop(0))
            time.sleep(0.02)
        driver.communicate()
        if driver.returncode == 0:
            return happened
    raise AssertionError(f"the cohort did not end (exit code {driver.returncode})")


def _another(out: Path, before: int, driver: subprocess.Popen[str]) -> bool:
    """Wait for one more finished case; False if the run ends first."""
    return _until(lambda: len(list((out / CASES).glob("*/record.json"))) > before, driver)


def _until(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> bool:
    while driver.poll() is None:
        if condition():
            return True
        time.sleep(0.02)
    return False
