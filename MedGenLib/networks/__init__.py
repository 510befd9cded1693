"""The networks that a model package may name."""

from __future__ import annotations

from torch import nn

from .autoencoder import Autoencoder
from .flow_unet import FlowUNet
from .slice_translator import SliceTranslator

NETWORKS: dict[str, type[nn.Module]] = {
    "Autoencoder": Autoencoder,
    "FlowUNet": FlowUNet,
    "SliceTranslator": SliceTranslator,
}


def build(name: str, arguments: dict) -> nn.Module:
    """The named network with random weights. Raises KeyError when the name is not allowed."""
    return NETWORKS[name](**arguments)
