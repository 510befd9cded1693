"""The networks that a model package may name."""

from __future__ import annotations

from torch import nn

from .autoencoder import Autoencoder
from .feature_encoder import FeatureEncoder
from .flow_unet import FlowUNet
from .segmenter import Segmenter
from .slice_translator import SliceTranslator

NETWORKS: dict[str, type[nn.Module]] = {
    "Autoencoder": Autoencoder,
    "FeatureEncoder": FeatureEncoder,
    "FlowUNet": FlowUNet,
    "Segmenter": Segmenter,
    "SliceTranslator": SliceTranslator,
}


def build(name: str, arguments: dict) -> nn.Module:
    """The named network with random weights. Raises KeyError when the name is not allowed."""
    return NETWORKS[name](**arguments)
