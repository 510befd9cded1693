"""The networks that a model package may name."""

from __future__ import annotations

from torch import nn

from MedGenLib.networks.autoencoder import Autoencoder
from MedGenLib.networks.feature_encoder import FeatureEncoder
from MedGenLib.networks.flow_unet import FlowUNet
from MedGenLib.networks.latent_classifier import LatentClassifier
from MedGenLib.networks.segmenter import SegmentationUNet
from MedGenLib.networks.slice_translator import SliceTranslator

NETWORKS: dict[str, type[nn.Module]] = {
    "Autoencoder": Autoencoder,
    "FeatureEncoder": FeatureEncoder,
    "FlowUNet": FlowUNet,
    "LatentClassifier": LatentClassifier,
    "Segmenter": SegmentationUNet,
    "SliceTranslator": SliceTranslator,
}

MAISI_NETWORKS = ("MaisiAutoencoder", "MaisiControlNet", "MaisiUNet")
"""Networks of the module `maisi`, which needs MONAI and seconds to import."""


def build(name: str, arguments: dict) -> nn.Module:
    """The named network with random weights. Raises KeyError when the name is not allowed."""
    if name in MAISI_NETWORKS:
        from MedGenLib.networks import maisi

        return getattr(maisi, name)(**arguments)
    return NETWORKS[name](**arguments)
