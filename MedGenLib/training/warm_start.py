"""Training that continues an installed package, also with more labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from MedGenLib.packages.catalogue import find
from MedGenLib.packages.weights import load_weights
from MedGenLib.pipelines.conditioning import COORDINATES
from MedGenLib.pipelines.loading import network as trained_network
from MedGenLib.training.recipes.autoencoder import write_autoencoder

ENTRANCE = "mask_encoder.enter.weight"
"""The only weights of a flow that depend on the number of labels."""
FOLDED = 8
"""Channels into which `networks.blocks.space_to_depth` folds a map."""


def load_flow(network: nn.Module, name: str, added: int) -> None:
    """Initialize a flow with the weights of a package.

    ``added`` is the number of labels that the package lacks; they have no effect at first.
    """
    weights = {key: value.float() for key, value in load_weights(find(name), "flow").items()}
    weights[ENTRANCE] = _with_labels(weights[ENTRANCE], added)
    network.load_state_dict(weights)


def _with_labels(weight: Tensor, added: int) -> Tensor:
    """(width, maps x 8, 3, 3, 3) with zeros for more labels, which come before the coordinates."""
    maps = weight.unflatten(1, (-1, FOLDED))
    new = maps.new_zeros(len(maps), added, *maps.shape[2:])
    return torch.cat([maps[:, :-COORDINATES], new, maps[:, -COORDINATES:]], 1).flatten(1, 2)


def copy_autoencoder(name: str, out: Path) -> Path:
    """Write the autoencoder of a package as its recipe does: a flow only fits the latent that it has learned."""
    manifest = find(name)
    out.mkdir(parents=True, exist_ok=True)
    network = trained_network(manifest, "autoencoder", torch.device("cpu"))
    return write_autoencoder(network, dict(manifest.networks["autoencoder"].arguments), 0, out)
