"""Packages with small NV-Generate networks and random weights, for tests.

Types of networks, conditions, schedules and limits are those of `MedGenLib.packages.hub.nv_generate`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch

from MedGenLib.imaging.volume import LabelMap
from MedGenLib.networks import build
from MedGenLib.packages.export import write_package
from MedGenLib.packages.hub.nv_generate import PUBLISHED
from MedGenLib.packages.manifest import Manifest, load_manifest

SCALE_FACTOR = 0.9
CHANNELS = {
    "autoencoder": {"num_channels": [8, 8, 16], "num_res_blocks": [1, 2, 1], "norm_num_groups": 4},
    "flow": {
        "num_channels": [8, 16, 16],
        "attention_levels": [False, False, True],
        "num_head_channels": [0, 0, 8],
        "num_res_blocks": 1,
        "norm_num_groups": 4,
    },
}
CHANNELS["controlnet"] = {**CHANNELS["flow"], "conditioning_embedding_num_channels": [4, 8, 8]}
"""Channels of the small networks."""


def small_metadata(name: str) -> dict:
    """Metadata of the published package with small networks."""
    metadata = PUBLISHED[name].metadata()
    for role, network in metadata["medgen"]["networks"].items():
        network["arguments"].update(copy.deepcopy(CHANNELS[role]))
    metadata["medgen"]["preprocessing"]["scale_factor"] = SCALE_FACTOR
    return {"version": "1.0.0", "changelog": {"1.0.0": "random weights"}, **metadata}


def random_network(name: str, arguments: dict, seed: int = 0) -> torch.nn.Module:
    """Network with random weights everywhere, also in layers initialized to zero."""
    network = build(name, copy.deepcopy(arguments))
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            fresh = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(fresh / max(1, parameter[0].numel()) ** 0.5)
    if name == "MaisiUNet" and network.num_class_embeds:
        network.class_embedding.weight.data.mul_(20)  # spacings come as hundreds and would drown it
    return network.eval().requires_grad_(False)


def small_package(name: str, folder: Path) -> Manifest:
    """Write a small package of that name below a models folder."""
    metadata = small_metadata(name)
    weights = {
        role: random_network(spec["network"], spec["arguments"], seed).state_dict()
        for seed, (role, spec) in enumerate(metadata["medgen"]["networks"].items())
    }
    return write_package(folder / name, metadata, weights, "# Random weights\n", "No license.\n")


def manifest_of(name, folder, **preprocessing):
    """Manifest of an installed NV-Generate package, without weights."""
    data = PUBLISHED[name].metadata()
    medgen = data["medgen"]
    medgen["checksums"] = {net["weights"]: "0" * 64 for net in medgen["networks"].values()}
    medgen["preprocessing"].update({"scale_factor": 1.0, **preprocessing})
    data |= {
        "version": "1.0.0",
        "changelog": {"1.0.0": "-"},
        "monai_version": "1.5",
        "pytorch_version": "2.6",
        "numpy_version": "2.0",
    }
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(data))
    return load_manifest(folder)


def trunk(shape=(40, 34, 28), affine=None) -> LabelMap:
    """A body (200) with liver, right kidney and both lungs at arbitrary positions."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    labels[np.hypot(x, y) < 0.95] = 200
    labels[(np.hypot(x - 0.4, y) < 0.35) & (z < 0)] = 1
    labels[(np.hypot(x + 0.4, y) < 0.3) & (z < 0)] = 5
    labels[(np.hypot(x - 0.45, y) < 0.3) & (z > 0.1)] = 28
    labels[(np.hypot(x + 0.45, y) < 0.3) & (z > 0.1)] = 32
    return LabelMap(labels, np.diag([1.5, 1.5, 2.0, 1.0]) if affine is None else affine)
