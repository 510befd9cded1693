"""Networks that a model package may name (the allow-list)."""

from __future__ import annotations

from torch import nn

from MedGenLib.networks.autoencoder import Autoencoder
from MedGenLib.networks.feature_encoder import FeatureEncoder
from MedGenLib.networks.flow_unet import FlowUNet
from MedGenLib.networks.image_classifier import ImageClassifier
from MedGenLib.networks.latent_classifier import LatentClassifier
from MedGenLib.networks.level_net import LevelNet, VoxelLevelNet
from MedGenLib.networks.mesh_net import MeshNet
from MedGenLib.networks.residual_translator import ResidualTranslator
from MedGenLib.networks.restorer import Restorer
from MedGenLib.networks.segmenter import SegmentationUNet
from MedGenLib.networks.sequence_net import SequenceNet
from MedGenLib.networks.slice_translator import SliceTranslator
from MedGenLib.networks.style_generator import StyleGenerator
from MedGenLib.networks.volume_gan import VolumeGenerator

NETWORKS: dict[str, type[nn.Module]] = {
    "Autoencoder": Autoencoder,
    "FeatureEncoder": FeatureEncoder,
    "FlowUNet": FlowUNet,
    "ImageClassifier": ImageClassifier,
    "LatentClassifier": LatentClassifier,
    "LevelNet": LevelNet,
    "MeshNet": MeshNet,
    "ResidualTranslator": ResidualTranslator,
    "Restorer": Restorer,
    "Segmenter": SegmentationUNet,
    "SequenceNet": SequenceNet,
    "SliceTranslator": SliceTranslator,
    "StyleGenerator": StyleGenerator,
    "VolumeGenerator": VolumeGenerator,
    "VoxelLevelNet": VoxelLevelNet,
}

MAISI_NETWORKS = ("MaisiAutoencoder", "MaisiControlNet", "MaisiUNet")
"""Networks of the module `maisi`. It imports MONAI, which takes seconds, so it is loaded on demand."""


def build(name: str, arguments: dict) -> nn.Module:
    """Construct a network with random weights. Raises KeyError if ``name`` is not on the allow-list."""
    if name in MAISI_NETWORKS:
        from MedGenLib.networks import maisi

        return getattr(maisi, name)(**arguments)
    return NETWORKS[name](**arguments)
