"""The pipeline of packages that diffuse the voxels themselves.

They differ from a latent flow in what their network predicts, and in an autoencoder that is the bare Haar transform.
"""

from MedGenLib.pipelines.base import pipeline
from MedGenLib.pipelines.latent_flow import LatentFlow


@pipeline("pixel-diffusion")
class PixelDiffusion(LatentFlow):
    """See the module."""
