"""Loading of a package's networks: verified, cached, on a device, in a number format."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from MedGenLib import devices, user_folders
from MedGenLib.errors import InputError, PackageError
from MedGenLib.io.atomic import write_json
from MedGenLib.networks import build
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.weights import load_weights
from MedGenLib.pipelines.measured import PROBES

_MOST_NETWORKS = 8
_networks: dict[tuple, nn.Module] = {}


def network(manifest: Manifest, role: str, device: torch.device) -> nn.Module:
    """The network of a role with its trained weights, in evaluation mode on ``device``.

    Cached by weights, arguments and device. Raises PackageError if arguments or weights do not fit the network.
    """
    spec = manifest.networks[role]
    arguments = json.dumps(spec.arguments, sort_keys=True)
    key = (spec.network, arguments, manifest.checksums[spec.weights], device)
    if key not in _networks:
        if len(_networks) >= _MOST_NETWORKS:
            _networks.clear()
        _networks[key] = _load(manifest, role, device)
    return _networks[key]


def forget() -> None:
    """Clear the cache of networks, to free memory."""
    _networks.clear()


def _load(manifest: Manifest, role: str, device: torch.device) -> nn.Module:
    spec = manifest.networks[role]
    try:
        with torch.device("meta"), _WithoutRandomWeights():  # the weights exist once
            net = build(spec.network, dict(spec.arguments))
        weights = load_weights(manifest, role)
        single = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        net.load_state_dict(single, assign=True)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        if devices.is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise PackageError(
            f"The network '{role}' of the model '{manifest.name}' does not fit its weights "
            f"({reason}); install the model again."
        ) from error
    net = net.eval().requires_grad_(False).to(device)
    layout = torch.channels_last
    if any(p.ndim == 5 for p in net.parameters()):
        layout = torch.channels_last_3d
    return net.to(memory_format=layout)


class _WithoutRandomWeights(TorchFunctionMode):
    """Skips the first values of new parameters: on the device "meta", random ones load the compiler of torch."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return function(*args, **kwargs)


def precision(device: torch.device, bfloat16: bool) -> AbstractContextManager:
    """Autocast to bfloat16, or a null context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


@lru_cache(maxsize=8)
def bfloat16_pays(device: torch.device) -> bool:
    """Whether this machine is faster in bfloat16; the result of `devices.probe_bfloat16` is stored on disk."""
    key = probe_key(device)
    path = user_folders.cache_dir() / PROBES
    known: dict[str, bool] = {}
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
    if key not in known:
        known[key] = devices.probe_bfloat16(device)
        with suppress(OSError, InputError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
    return known[key]


def probe_key(device: torch.device) -> str:
    """Key of the stored result of a device, with the properties that determine it."""
    if device.type == "cuda":
        return f"bfloat16 on {devices.describe_device(device)}"
    features = " ".join(devices.bfloat16_features()) or "no bfloat16"
    return f"bfloat16 on CPU, {platform.machine()}, {features}"
