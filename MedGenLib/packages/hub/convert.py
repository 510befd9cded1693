"""Conversion of published weights (`.pt`) to tensors of a package, compared by name and shape.

A `.pt` file is a pickle. It is read only with PyTorch's restricted unpickler (`weights_only=True`), which creates
tensors and plain values and runs no code.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import PackageError
from MedGenLib.packages.inspection import is_pickle

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """Content of a published file.

    Attributes
    ----------
    path: the file.
    tensors: the state dictionary, memory-mapped.
    scale_factor: factor of the latents in training; None if not in the file.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    scale_factor: float | None = None


def read_checkpoint(path: Path, state: str | None = None) -> Checkpoint:
    """Read a published file.

    Parameters
    ----------
    state: key of the state dictionary inside the file; None if the file is one.

    Raises
    ------
    PackageError: not readable, requires code, or has other content.
    """
    contents = _restricted_load(path)
    tensors = contents.get(state) if state and isinstance(contents, dict) else contents
    if not isinstance(tensors, dict) or not _all_tensors(tensors):
        missing = f"no weights under '{state}'" if state else "no dictionary of weights"
        raise PackageError(f"{path} has {missing}, so it is not the published file.")
    scale = contents.get("scale_factor") if state else None
    return Checkpoint(path, tensors, None if scale is None else _positive(scale, path))


def fitted(
    checkpoint: Checkpoint,
    network: str,
    arguments: Mapping[str, Any],
    fallback: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors of a network, compared by shape.

    Other tensors in the file are ignored: the published U-Net of ddpm-ct has unused ones, which upstream does not load
    either.

    Parameters
    ----------
    network, arguments: network name and arguments as in a package's metadata.
    fallback: tensors used for those missing in the file, if their shape fits.

    Returns
    -------
    The tensors in the network's order with the values and dtype of the file.

    Raises
    ------
    PackageError: a tensor is missing or has another shape.
    """
    chosen, spare = {}, fallback or {}
    for name, shape in expected_shapes(network, arguments).items():
        tensor = checkpoint.tensors.get(name)
        if tensor is None and name in spare and tuple(spare[name].shape) == shape:
            tensor = spare[name]
        if tensor is None or tuple(tensor.shape) != shape:
            found = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
            raise PackageError(
                f"{checkpoint.path} is not the published file: '{name}' {found} and {network} "
                f"needs {shape}; use the file of this model."
            )
        chosen[name] = tensor
    return chosen


def expected_shapes(network: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network, without allocation."""
    import torch

    from MedGenLib.networks import build

    with torch.device("meta"):
        net = build(network, dict(arguments))
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def _restricted_load(path: Path) -> Any:
    import pickle

    import torch

    try:
        with torch.serialization.safe_globals(_plain_types()):
            mapped = zipfile.is_zipfile(path)  # the format before PyTorch 1.6 cannot be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise PackageError(f"There is no file '{path}'.") from error
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError) as error:
        if isinstance(error, pickle.UnpicklingError) and is_pickle(path):
            raise PackageError(
                f"{path} has objects other than weights and plain values, which could run code, so it is "
                "not read; use the published file."
            ) from error
        if isinstance(error, pickle.UnpicklingError | EOFError):
            # PyTorch's message suggests to trust the file.
            reason = "it is empty, truncated or another format"
        else:
            reason = " ".join(str(error).split())[:200]
        raise PackageError(f"{path} cannot be read as PyTorch weights ({reason}); use the published file.") from error


def _plain_types() -> list[Any]:
    """NumPy scalars and arrays, under the names of both major NumPy versions.

    Upstream's training stores the scale factor as MONAI's MetaTensor, which contains some; MONAI declares the class
    itself safe on import.
    """
    import monai.data.meta_tensor  # noqa: F401
    import numpy as np

    multiarray = np.ndarray.__reduce__(np.zeros(1))[0].__module__
    makers = {name: getattr(importlib.import_module(multiarray), name) for name in ("scalar", "_reconstruct")}
    modules = (multiarray, "numpy.core.multiarray", "numpy._core.multiarray")
    named = [(maker, f"{module}.{name}") for name, maker in makers.items() for module in modules]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if name != "ObjectDType"]
    return [*named, np.ndarray, np.dtype, *kinds]


def _all_tensors(values: Mapping[Any, Any]) -> bool:
    import torch

    return bool(values) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in values.items()
    )


def _positive(value: Any, path: Path) -> float:
    """The scale factor, stored by upstream as a tensor of one element."""
    import math

    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise PackageError(f"{path} has the scale factor {value}, so it is damaged.")
    return number
