"""Volumes as vectors: the features of their slices in three planes, kept for the next time.

    extract = extractor("medgen-features")
    standard = Standard.set_by(volumes[0], "first")
    cohort = [describe(volume, name, standard, extract) for name, volume in ...]

The features of a volume depend on its voxels, its orientation and spacing, and the network alone.
They are kept in the cache folder under the hash of all that, so that a second comparison with the
same cohort computes nothing; the cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from MedGenLib import user_folders
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.metrics.slices import PLANES, Standard, slices

if TYPE_CHECKING:
    import torch

    from MedGenLib.packages.manifest import Manifest

DEFAULT = "medgen-features"
SLICES = 12
"""Slices of a plane that are looked at; their number is part of the measure."""
CUBE = 32
"""Voxels along the edge of the small copy of a volume by which copies are found."""
_VERSION = 1
"""Changes whenever the same volume and network would give other numbers."""
_BATCH = 32
_WEIGHT_FILES = (".pt", ".pth", ".safetensors")


class Extractor(Protocol):
    """A feature network.

    Attributes
    ----------
    name: for reports.
    key: changes with the weights, so that no feature of other weights is taken from the cache.
    """

    name: str
    key: str

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Slices (n, h, w) on the scale of `slices.encode` -> features (n, f)."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """What is kept of a volume.

    Attributes
    ----------
    planes: features (slices, f) of the sagittal, coronal and axial slices; a plane in which the
        volume shows nothing has no rows.
    cube: the encoded volume on 32^3 voxels, whatever its shape, mean 0 and length 1.
    """

    name: str
    planes: tuple[NDArray[np.float32], ...]
    cube: NDArray[np.float32]

    @cached_property
    def vector(self) -> NDArray[np.float64]:
        """One vector for the volume: the mean of each plane that has slices, one after another."""
        return np.concatenate([p.mean(0, dtype=np.float64) for p in self.planes if len(p)])


def extractor(name: str = DEFAULT, device: str = "auto") -> Extractor:
    """The feature network of a package, or of a local file with RadImageNet's ResNet-50.

    Raises
    ------
    InputError: the file is not there or holds other weights, or the package has another task.
    PackageError: there is no such package, or it is damaged.
    """
    from MedGenLib.devices import pick_device

    place = pick_device(device)
    path = Path(name)
    if path.suffix.lower() in _WEIGHT_FILES:
        return ResNetExtractor(path, place)
    from MedGenLib.packages.catalogue import find

    manifest = find(name)
    if manifest.task != "features":
        raise InputError(
            f"The model '{name}' is for the task '{manifest.task}'; give a feature network such as "
            f"{DEFAULT}, or a file of RadImageNet's ResNet-50 weights."
        )
    return PackageExtractor(manifest, place)


class PackageExtractor:
    """The network `encoder` of a package of task "features"."""

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        self.manifest, self.device = manifest, device
        self.name = f"{manifest.name} {manifest.version}"
        self.key = manifest.checksums[manifest.networks["encoder"].weights]

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        from MedGenLib.pipelines.loading import network

        return _run(network(self.manifest, "encoder", self.device), images, self.device)


class ResNetExtractor:
    """ResNet-50 with weights from a local file, such as RadImageNet's; 2048 features.

    Mei et al., RadImageNet, Radiology: Artificial Intelligence 2022. The file is a state
    dictionary (.pt or .pth, read without running any code in it, or .safetensors) with
    torchvision's names or with those of the published file (backbone.0, backbone.1, backbone.4
    to backbone.7). Slices are brought to 224 x 224 pixels of -1 to 1, as in its training.

    Raises
    ------
    InputError: the file cannot be read or holds other weights.
    """

    SIDE = 224

    def __init__(self, path: Path, device: torch.device) -> None:
        from MedGenLib.packages.weights import sha256

        self.device, self.name = device, f"ResNet-50 of {path.name}"
        try:
            self.key = sha256(path)
            self.net = _resnet50(_read_weights(path))
        except OSError as error:
            raise InputError(
                f"The weights {path} cannot be read ({error.strerror or error}); check the path."
            ) from error
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{path} does not hold the weights of a ResNet-50 ({str(error).splitlines()[0]}); "
                "give RadImageNet's ResNet-50 as published for PyTorch."
            ) from error
        self.net = self.net.to(device)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        from torch.nn import functional

        def forward(batch: torch.Tensor) -> torch.Tensor:
            batch = functional.interpolate(batch, (self.SIDE, self.SIDE), mode="bilinear")
            return self.net(((batch - 1) / 3).clamp(-1, 1).expand(-1, 3, -1, -1))

        return _run(forward, images, self.device)


def describe(volume: Volume, name: str, standard: Standard, extract: Extractor, cache: bool = True) -> Features:
    """The features of a volume, from the cache where they are known.

    Raises
    ------
    InputError: the volume is constant, or is not what the standard is about.
    """
    encoded = standard.apply(volume, name)
    path = _cache_path(encoded, extract) if cache else None
    known = _read(path, name) if path else None
    if known is not None:
        return known
    found = Features(name, tuple(_planes(encoded, extract)), _cube(encoded))
    if not any(map(len, found.planes)):
        raise InputError(f"{name} is constant or shows nothing but air; take it out.")
    if path:
        _write(path, found)
    return found


def _planes(encoded: NDArray[np.float32], extract: Extractor) -> Iterator[NDArray[np.float32]]:
    for plane in range(len(PLANES)):
        images = list(slices(encoded, plane, SLICES))
        yield extract(np.stack(images)) if images else np.zeros((0, 1), np.float32)


def _cube(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Block means where there are more voxels than 32, linear interpolation where fewer."""
    from scipy import ndimage

    blocks = np.divide(encoded.shape, CUBE)
    smooth = ndimage.uniform_filter(encoded, np.maximum(blocks.round().astype(int), 1))
    places = [(np.arange(CUBE) + 0.5) * block - 0.5 for block in blocks]
    grid = np.meshgrid(*places, indexing="ij")
    cube = ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
    cube = cube - cube.mean()
    return (cube / max(float(np.linalg.norm(cube)), 1e-12)).astype(np.float32)


def _run(forward: Any, images: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    """In float32 on every machine: features of the cache must not depend on who made them."""
    import torch

    with torch.inference_mode():
        batches = torch.from_numpy(np.ascontiguousarray(images))[:, None].split(_BATCH)
        return torch.cat([forward(batch.to(device)).float().cpu() for batch in batches]).numpy()


# the cache


def _cache_path(encoded: NDArray[np.float32], extract: Extractor) -> Path:
    digest = hashlib.sha256(f"{_VERSION} {SLICES} {CUBE} {extract.key} {encoded.shape}".encode())
    digest.update(np.ascontiguousarray(encoded))
    return user_folders.cache_dir() / "features" / f"{digest.hexdigest()}.npz"


def _read(path: Path, name: str) -> Features | None:
    """None where nothing is kept, or what is kept is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Features(name, tuple(kept[plane] for plane in PLANES), kept["cube"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, found: Features) -> None:
    """Without room or permission the features are simply computed again next time."""
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.part.npz")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            arrays = dict(zip(PLANES, found.planes, strict=True))
            np.savez(temporary, cube=found.cube, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


# ResNet-50

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""torchvision's name of each part in a Sequential of the network's children."""


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError("it is no plain state dictionary") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it is no plain state dictionary")
    return state


def _resnet50(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    from monai.networks.nets import resnet50

    net = resnet50(
        spatial_dims=2, n_input_channels=3, feed_forward=False, bias_downsample=False, conv1_t_size=7, conv1_t_stride=2
    )
    renamed = {_torchvision_name(name): value for name, value in state.items()}
    wanted = net.state_dict()
    if missing := [name for name in wanted if name not in renamed]:
        raise KeyError(f"it lacks {missing[0]}")
    net.load_state_dict({name: renamed[name] for name in wanted})
    return net.eval().requires_grad_(False)


def _torchvision_name(name: str) -> str:
    parts: Sequence[str] = name.removeprefix("module.").split(".")
    if parts[0] == "backbone" and len(parts) > 1:
        parts = [_CHILDREN.get(parts[1], parts[1]), *parts[2:]]
    return ".".join(parts)
