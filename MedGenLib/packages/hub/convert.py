"""Weights as they were published (`.pt`) -> tensors of a package, compared name by name.

A `.pt` file is a pickle. It is read by PyTorch's restricted reader alone (`weights_only=True`),
which makes tensors and plain values and runs nothing.
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
    """What a published file holds.

    Attributes
    ----------
    path: the file.
    tensors: the state dictionary, memory-mapped.
    scale_factor: what latents were multiplied by in training; None where the file does not tell.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    scale_factor: float | None = None


def read_checkpoint(path: Path, state: str | None = None) -> Checkpoint:
    """Read a published file.

    Parameters
    ----------
    state: key of the state dictionary inside the file; None where the file is one.

    Raises
    ------
    PackageError: not readable, needs code to be run, or holds something else.
    """
    contents = _restricted_load(path)
    tensors = contents.get(state) if state and isinstance(contents, dict) else contents
    if not isinstance(tensors, dict) or not _all_tensors(tensors):
        wanted = f"no weights under '{state}'" if state else "no dictionary of weights"
        raise PackageError(f"{path} holds {wanted}, so it is not the published file.")
    scale = contents.get("scale_factor") if state else None
    return Checkpoint(path, tensors, None if scale is None else _positive(scale, path))


def fitted(
    checkpoint: Checkpoint,
    network: str,
    arguments: Mapping[str, Any],
    fallback: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors that a network needs, each of the shape it has there.

    What else the file holds is left out: the published U-Net of ddpm-ct has tensors that its
    network does not use, and upstream does not load them either.

    Parameters
    ----------
    network, arguments: the network by name as in a package's metadata.
    fallback: tensors that stand in for those that the file lacks, where the shape is right.

    Returns
    -------
    The tensors in the network's order with the numbers and the dtype of the file.

    Raises
    ------
    PackageError: a tensor is missing or has another shape; nothing is guessed.
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
                f"needs {shape}; take the file that belongs to this model."
            )
        chosen[name] = tensor
    return chosen


def expected_shapes(network: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network; nothing is allocated for it."""
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
            mapped = zipfile.is_zipfile(path)  # the format of before PyTorch 1.6 cannot be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise PackageError(f"There is no file '{path}'.") from error
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError) as error:
        if isinstance(error, pickle.UnpicklingError) and is_pickle(path):
            raise PackageError(
                f"{path} holds more than weights and plain values, which could run code, so it is "
                "not read; take the published file."
            ) from error
        if isinstance(error, pickle.UnpicklingError | EOFError):
            # PyTorch's own words tell how to trust the file.
            reason = "it is empty, cut off or something else"
        else:
            reason = " ".join(str(error).split())[:200]
        raise PackageError(f"{path} cannot be read as PyTorch weights ({reason}); take the published file.") from error


def _plain_types() -> list[Any]:
    """NumPy's numbers and arrays, by the names of both NumPy versions: data, like tensors.

    Upstream's training stores the scale factor as MONAI's tensor with metadata, which holds some;
    the tensor class itself is declared safe by MONAI when it is imported.
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
    """A scale factor: upstream stores a tensor of one element."""
    import math

    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise PackageError(f"{path} has the scale factor {value}, so it is damaged.")
    return number
