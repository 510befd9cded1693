"""The pipeline of diffusion in voxels.

It differs from a latent flow in the network's prediction, and in an autoencoder that is the Haar transform.
"""

from MedGenLib.pipelines.base import pipeline
from MedGenLib.pipelines.latent_flow import LatentFlow


@pipeline("pixel-diffusion")
class PixelDiffusion(LatentFlow):
    """Pipeline of the module."""
