"""Weights of a package, loaded after a check of the checksum."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.errors import PackageError
from MedGenLib.packages.compression import expand
from MedGenLib.packages.manifest import Manifest

if TYPE_CHECKING:
    import torch


def load_weights(manifest: Manifest, role: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """State dictionary of the network with a role ("autoencoder", "flow", "translator", ...), decompressed.

    The checksum of the file is verified before its first use in this process, and after changes. Raises PackageError:
    no such role, or the file is missing, damaged or changed.
    """
    stored = stored_weights(manifest, role, device)
    base = manifest.networks[role].base
    try:
        return expand(stored, load_weights(manifest, base, device) if base else None)
    except ValueError as error:
        raise PackageError(f"The weights {manifest.weights_path(role)} cannot be decompressed: {error}.") from error


def stored_weights(manifest: Manifest, role: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Tensors of the file of a network as they are stored, see `packages.compression`. Raises as `load_weights`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = manifest.weights_path(role)
    try:
        check_sha256(path, manifest.checksums[manifest.networks[role].weights])
        return load_file(path, device=device)
    except SafetensorError as error:
        raise PackageError(f"The weights {path} cannot be read: {error}.") from error
    except OSError as error:
        raise PackageError(f"The weights {path} cannot be read: {error.strerror or error}.") from error


def check_sha256(path: Path, expected: str) -> None:
    """Raise PackageError unless the file has this checksum, OSError if it cannot be read."""
    status = path.stat()
    if _remembered_sha256(path, status.st_size, status.st_mtime_ns) != expected:
        raise PackageError(
            f"The checksum of {path} is wrong, so the file is damaged or was changed; install the model again."
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _remembered_sha256(path: Path, size: int, modified_ns: int) -> str:
    return sha256(path)
