"""Devices, memory, number formats and software versions of this machine."""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import os
import platform
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError
from MedGenLib.requirements import installed_version, requirements

if TYPE_CHECKING:
    import torch

MIB = 2**20


def let_threads_sleep() -> None:
    """Let the waiting threads of this process and its children sleep instead of spin.

    It must be called before PyTorch is loaded; a policy in the environment has precedence. Slicer and other processes
    need the same cores: two processes that spin took three to five times as long as two that sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Parameters
    ----------
    name: "auto" (the first CUDA device, otherwise the CPU), "cpu", "cuda" or "cuda:N".

    Raises
    ------
    InputError: the name is unknown, or the machine has no such device.
    """
    import torch

    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if name != "auto" and match is None:
        raise InputError(f"The device '{name}' is unknown; use auto, cpu or cuda:0.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if match is None:
        return torch.device("cuda:0" if count else "cpu")
    index = int(match[1] or 0)
    if index >= count:
        found = f"only {count}" if count else "no"
        raise InputError(
            f"The device '{name}' does not exist: PyTorch finds {found} usable CUDA device"
            f"{'s' if count > 1 else ''}; choose auto or cpu."
        )
    return torch.device("cuda", index)


BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")
"""Processor features with bfloat16 arithmetic; without them it is emulated, slower than float32."""


def probe_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are clearly faster than float32 ones, by the features of the device.

    It is not measured, because the number format changes the last digits of each result: the answer must not depend on
    the load of the machine. Measured once on a processor with avx512_bf16: half the time of float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(bfloat16_features())


@functools.cache
def bfloat16_features() -> tuple[str, ...]:
    """Those of `BFLOAT16_FEATURES` that the processor has."""
    import torch

    found: Collection[str] = ()
    if hasattr(torch.cpu, "get_capabilities"):  # newer versions of PyTorch
        found = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
    else:
        with suppress(OSError):
            found = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return tuple(name for name in BFLOAT16_FEATURES if name in found)


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes available on a device.

    For the CPU this is the system's available memory, or what a container's limit leaves of it.
    """
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min(psutil.virtual_memory().available, container_room())


def container_room(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes left below the control group's limit (Linux), infinity without a limit.

    Pages of the file cache count as used but are released on demand, so they are added.
    """
    layouts = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit, usage, stat, cache in layouts:
        try:
            maximum = int((root / limit).read_text())
            used = int((root / usage).read_text())
            cached = dict(line.split() for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):  # no such file, or the word "max": no limit
            continue
        return max(0, maximum - used + int(cached.get(cache, 0)))
    return float("inf")


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / MIB
    with suppress(OSError, TypeError):
        # The system's peak includes the memory of the parent process at the fork, which may be a large
        # Slicer; Linux also reports that of the program itself.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def memory_mib() -> float:
    """Resident memory of this process in MiB."""
    import psutil

    return psutil.Process().memory_info().rss / MIB


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means that an allocation failed."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch
    "Cannot allocate memory",  # the system
    "bad_alloc",  # any C++ library
    "Failed to allocate memory",  # SimpleITK
    "PlatformMultiThreader",  # SimpleITK, whose threads allocate memory
    "could not create a primitive",  # oneDNN, which has no other cause in a known network
    "could not create a memory object",
)


def release_memory() -> None:
    """Return unused memory to the system and to the device.

    The C library keeps freed memory for reuse, which looks like a leak in a long-lived process.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)


def favor_small_memory() -> None:
    """Return each freed array to the system at once, at about 10 % more time.

    Otherwise glibc keeps arrays below 32 MiB in one heap, which becomes fragmented.
    """
    if sys.platform == "linux":
        mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(mmap_threshold, MIB)


def software_versions() -> dict[str, str]:
    """Versions of MedGen, Python and every dependency; "missing" if not installed."""
    from MedGenLib import __version__

    versions = {"medgen": __version__, "python": platform.python_version()}
    return versions | {name: _loaded_version(name) or "missing" for name, *_ in requirements()}


_loaded_version = functools.cache(installed_version)  # a running process keeps the versions that it has loaded


def describe_device(device: torch.device) -> str:
    """One phrase for reports and model cards, such as "CPU, 2 threads" or "CUDA, NVIDIA H200"."""
    import torch

    if device.type == "cuda":
        return f"CUDA, {torch.cuda.get_device_name(device)}"
    count = torch.get_num_threads()
    return f"CPU, {count} thread{'' if count == 1 else 's'} of {os.cpu_count()}"
