"""Peak memory of a training: on a CPU all of the process, on a GPU the tensors."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from MedGenLib.devices import MIB, peak_memory_mib, release_memory

MEMORY = "memory.json"
"""File of a run: the peak of a process in MiB."""


def restart_peak(device: torch.device) -> None:
    """Measure the peak from now on (on a CPU only Linux can; elsewhere it is that of the whole process)."""
    release_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM


def peak_mib(device: torch.device) -> float:
    """The highest memory in MiB since `restart_peak`."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else peak_memory_mib()
