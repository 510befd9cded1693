"""Helpers for tests that start workers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from MedGenLib import user_folders
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.atomic import write_json
from MedGenLib.pipelines import loading
from MedGenLib.worker.process import descendants, is_alive

QUICK = {"seed": 1, "steps": 2, "retries": 0, "device": "cpu"}


def trunk(shape=(24, 20, 16), affine=None) -> LabelMap:
    """A trunk of fat, soft tissue and lung on a small grid."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    slab = np.zeros(shape[:2], np.uint8)
    slab[np.hypot(x, y) < 0.95] = 1
    slab[np.hypot(x, y) < 0.75] = 2
    slab[np.hypot(x - 0.35, y) < 0.25] = 4
    labels = np.repeat(slab[..., None], shape[2], axis=2)
    return LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine)


def left_handed_oblique(spacing=(2.0, 2.0, 2.0)) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([-1.0, 1.0, 1.0]) * np.array(spacing)
    affine[:3, 3] = [-31.25, 12.5, 1 / 3]
    return affine


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition becomes true within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def gone(*processes: int) -> Callable[[], bool]:
    return lambda: not any(map(is_alive, processes))


def tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def at_start(folder: Path, code: str) -> dict[str, str]:
    """Environment in which every Python runs `code` before anything else."""
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def data_mib(pid: int) -> int:
    """Memory counted by RLIMIT_DATA."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmData"))


def temporary_environment(**values: str) -> AbstractContextManager:
    """Environment variables for the duration of a block."""
    return mock.patch.dict(os.environ, values)


@contextlib.contextmanager
def number_format(bfloat16: bool) -> Iterator[None]:
    """The number format of this process, and of workers started in this home, whatever their processor is."""
    path = user_folders.cache_dir() / loading.PROBES
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {loading.probe_key(torch.device("cpu")): bfloat16})
    loading.bfloat16_pays.cache_clear()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        loading.bfloat16_pays.cache_clear()
