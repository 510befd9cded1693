"""Files in the layout published by NVIDIA, with random weights.

    python hubfiles.py FOLDER

writes those of the small model for `hubserver`, for tests that cannot import PyTorch.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.packages.hub.nv_generate import PUBLISHED, Published

if TYPE_CHECKING:
    import torch

NAME = "nv-generate-ct"
SCALE = 1.0312345
SMALL_UNET = {
    "spatial_dims": 3,
    "in_channels": 4,
    "num_channels": [32, 32],
    "num_res_blocks": 1,
    "attention_levels": [False, True],
    "num_head_channels": [0, 32],
    "resblock_updown": True,
    "include_fc": True,
    "num_class_embeds": 128,
}
SMALL = {
    "autoencoder": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": 4,
        "num_channels": [32, 32, 32],
        "num_res_blocks": [1, 1, 1],
        "norm_num_groups": 16,
        "norm_eps": 1e-6,
        "attention_levels": [False, False, False],
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    },
    "flow": {**SMALL_UNET, "out_channels": 4, "include_spacing_input": True},
    "controlnet": {
        **SMALL_UNET,
        "conditioning_embedding_in_channels": 8,
        "conditioning_embedding_num_channels": [8, 16, 16],
    },
}
"""Arguments of small networks of the published types."""


def shrunk(model: Published) -> Published:
    """The published model with small networks."""
    networks = {
        role: {"network": network["network"], "arguments": dict(SMALL[role])}
        for role, network in model.networks.items()
    }
    for part in ("top", "bottom"):
        key = f"include_{part}_region_index_input"
        networks["flow"]["arguments"][key] = model.networks["flow"]["arguments"][key]
    return dataclasses.replace(model, networks=networks)


def shrink() -> None:
    """Replace the published model by the small one in this process."""
    PUBLISHED[NAME] = shrunk(PUBLISHED[NAME])


def publish(model: Published, root: Path, dtype: str = "float32") -> dict[str, dict]:
    """Write the files of a model in the upstream layout; returns the tensors by role."""
    import torch

    from MedGenLib.packages.hub.convert import expected_shapes

    written = {}
    for seed, (role, file) in enumerate(model.files.items()):
        network = model.networks[role]
        shapes = expected_shapes(network["network"], network["arguments"])
        tensors = random_tensors(shapes, getattr(torch, dtype), seed)
        contents = tensors if file.state is None else {file.state: tensors, "epoch": 3}
        if role == "flow":
            contents["scale_factor"] = torch.tensor(SCALE)
        path = root / file.repo / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(contents, path)
        written[role] = tensors
    return written


def random_tensors(shapes: dict, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """Random tensors of these shapes, drawn from a pool, because new random numbers are slow."""
    import torch

    largest = max(int(np.prod(shape)) for shape in shapes.values())
    numbers = torch.Generator().manual_seed(seed)
    pool = torch.randn(largest + 7 * len(shapes), generator=numbers).to(dtype)
    tensors = {}
    for number, (name, shape) in enumerate(shapes.items()):
        size, start = int(np.prod(shape)), 7 * number
        tensors[name] = pool[start : start + size].clone().view(shape)
    return tensors


if __name__ == "__main__":
    publish(shrunk(PUBLISHED[NAME]), Path(sys.argv[1]))
