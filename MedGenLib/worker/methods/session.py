"""The worker's methods for its own process: versions, devices, self-test."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from typing import Any

from MedGenLib.errors import WorkerError
from MedGenLib.progress import Stage
from MedGenLib.worker.faults import explained
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method
from MedGenLib.worker.protocol.messages import PROTOCOL

LOADED = (
    "torch",
    "scipy.ndimage",
    "SimpleITK",
    "jsonschema",
    "psutil",
    "safetensors",
    "skimage",
    "MedGenLib.pipelines.flow_sampling",
    "MedGenLib.pipelines.slice_sampling",
    "MedGenLib.generate",
    "MedGenLib.translate",
)
"""Modules that take long to import, and those needed by all runs."""


@method("initialize")
def initialize(job: Request, folder: str | None = None, parent: int | None = None) -> dict[str, Any]:
    """Load the libraries and return versions and devices.

    Parameters
    ----------
    folder: the client's private folder for images, which is emptied if the client ends.
    parent: process ID of the client if it is not the parent; the worker ends with it.

    Raises
    ------
    WorkerError: packages are missing or cannot be loaded.
    """
    job.session.adopt(folder, parent)
    stage = Stage("loading PyTorch", len(LOADED), job.progress)
    for name in LOADED:
        _load(name)
        stage.advance()
    gc.collect()
    gc.freeze()  # of the libraries, so that the collection after each job takes 1 ms instead of 100

    from MedGenLib.devices import software_versions

    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": sys.executable,
        "versions": software_versions(),
        **devices(job),
    }


@method("devices")
def devices(job: Request) -> dict[str, Any]:
    """The devices of this machine with their memory in MiB."""
    import psutil
    import torch

    from MedGenLib.devices import MIB, describe_device, free_memory

    found = []
    for name in _device_names():
        device = torch.device(name)
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
        else:
            total = psutil.virtual_memory().total
        found.append(
            {
                "name": name,
                "description": describe_device(device),
                "free_mib": int(free_memory(name) // MIB),
                "total_mib": int(total // MIB),
            }
        )
    return {"devices": found}


@method("self_test")
def self_test(job: Request) -> dict[str, Any]:
    """Run a small network with random weights on every device and compare it with the CPU."""
    names = _device_names()
    stage = Stage("testing", len(names), job.progress)
    rows = []
    for name in names:
        rows.append(_test_device(name))
        stage.advance()
    return {"passed": all(row["passed"] for row in rows), "devices": rows}


def _load(name: str) -> None:
    """Import an installed module; raises WorkerError if the installation is damaged."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise explained(error) from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkerError(
            f"The package {name.partition('.')[0]} of the worker's Python ({sys.executable}) "
            f"cannot be loaded ({reason}); install it again."
        ) from error


def _device_names() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(count))]


def _test_device(name: str) -> dict[str, Any]:
    import torch

    from MedGenLib.networks import build

    start = time.perf_counter()
    try:
        torch.manual_seed(0)
        arguments = {"maps": 2, "widths": (8, 16), "blocks": (1, 1)}
        net = build("FlowUNet", arguments).eval().requires_grad_(False)
        torch.nn.init.normal_(net.leave.weight, std=0.1)  # zeros would always compare equal
        x, maps = torch.randn(1, 8, 8, 8, 8), torch.randn(1, 2, 16, 16, 16)
        expected = net(x, torch.ones(1), net.encode_mask(maps))
        net = net.to(name)
        found = net(x.to(name), torch.ones(1, device=name), net.encode_mask(maps.to(name))).cpu()
        passed = bool(torch.isfinite(found).all()) and torch.allclose(found, expected, atol=2e-2)
        sentence = f"{name} computes{'.' if passed else ' wrong values; do not use it.'}"
    except Exception as error:  # any error means that the device does not work
        passed = False
        sentence = f"{name} does not compute ({' '.join(str(error).split())[:200]})."
    seconds = round(time.perf_counter() - start, 3)
    return {"name": name, "passed": passed, "seconds": seconds, "sentence": sentence}
