"""Feature networks from packages, and ResNet-50 with weights from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.devices import pick_device
from MedGenLib.errors import InputError
from MedGenLib.metrics.features import Extractor
from MedGenLib.packages.catalogue import find

if TYPE_CHECKING:
    import torch

    from MedGenLib.packages.manifest import Manifest

DEFAULT = "medgen-features"
_BATCH = 32
_WEIGHT_FILES = (".pt", ".pth", ".safetensors")


def extractor(name: str = DEFAULT, device: str = "auto") -> Extractor:
    """The feature network of a package, or RadImageNet's ResNet-50 from a local file.

    Raises
    ------
    InputError: the file is missing or holds other weights, or the package is for another task.
    PackageError: the package is missing or damaged.
    """
    chosen = pick_device(device)
    path = Path(name)
    if path.suffix.lower() in _WEIGHT_FILES:
        return ResNetExtractor(path, chosen)
    manifest = find(name)
    if manifest.task != "features":
        raise InputError(
            f"The model '{name}' is for the task '{manifest.task}'; give a feature network such as "
            f"{DEFAULT}, or a file of RadImageNet's ResNet-50 weights."
        )
    return PackageExtractor(manifest, chosen)


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

    Mei et al., RadImageNet, Radiology: Artificial Intelligence 2022. The file is a state dictionary (.safetensors, or
    .pt or .pth loaded with weights only) with the names of torchvision or of the published file (backbone.0,
    backbone.1, backbone.4 to backbone.7). Slices are resampled to 224 x 224 pixels and scaled to -1..1, as in its
    training. Raises InputError if the file cannot be read or holds other weights.
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


def _run(forward: Any, images: NDArray[np.float32], device: torch.device) -> NDArray[np.float32]:
    """Run in float32 on every device, so that cached features do not depend on the device."""
    import torch

    with torch.inference_mode():
        batches = torch.from_numpy(np.ascontiguousarray(images))[:, None].split(_BATCH)
        return torch.cat([forward(batch.to(device)).float().cpu() for batch in batches]).numpy()


CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""torchvision's name of each part at its index in a Sequential of the network's children."""


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
        parts = [CHILDREN.get(parts[1], parts[1]), *parts[2:]]
    return ".".join(parts)
