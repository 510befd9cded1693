"""Recipe `pixel-diffusion`: mask-conditioned diffusion in voxels.

As Med-DDPM (Dorjsembe et al. 2024, arXiv 2305.18453) it has no learned latent, an absolute error and a cosine schedule.
Unlike there, the mask is encoded once instead of concatenated to the noisy volume, and v is predicted instead of the
noise (see `MedGenLib.diffusion.cosine`). The volume is transformed by the orthonormal Haar transform, in which white
noise remains white: the same diffusion at an eighth of the positions. All bands are divided by one number, so that
coarse structure, most of an image's variance, is not determined in the first few steps (Chen 2023, arXiv 2301.10972,
section 2.2).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from MedGenLib.diffusion.cosine import v_target
from MedGenLib.networks import Autoencoder
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.latent_flow import MASK_DROP, OUTSIDE_WEIGHT, LatentFlowRecipe

LOW_PASS_SPREAD = 2.5
"""Approximate standard deviation of the low-pass Haar band of an image of unit variance."""


@recipe("pixel-diffusion")
class PixelDiffusionRecipe(LatentFlowRecipe):
    """Recipe of the module. Configuration as for `latent-flow`, but no autoencoder is trained."""

    prediction = "v"
    sampling = ("ddim", 25)

    def _made_autoencoder(self, out: Path) -> Autoencoder:
        """The Haar transform: an untrained autoencoder, whose learned correction is 0."""
        codec = Autoencoder(width=1, blocks=0).eval().requires_grad_(False)
        codec.spread.fill_(LOW_PASS_SPREAD)
        return codec

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """Absolute error of v at uniform times."""
        data = self._encode(batch["x"])
        size = data.shape[0]
        noise = torch.randn(data.shape, generator=draw.torch).to(data.device)
        time = torch.rand(size, generator=draw.torch).to(data.device)
        keep = (torch.rand(size, generator=draw.torch) >= MASK_DROP).float().to(data.device)
        network = self.networks["flow"]
        features = network.encode_mask(batch["maps"] * keep.view(-1, 1, 1, 1, 1))
        point, target = v_target(data, noise, time)
        point = point.contiguous(memory_format=torch.channels_last_3d)
        error = (network(point, time, features, batch.get("scalars")) - target).abs()
        weight = F.avg_pool3d(batch["valid"], self.autoencoder.stride).clamp(min=OUTSIDE_WEIGHT)
        loss = (weight * error).sum() / (weight.sum() * error.shape[1])
        return loss, {"v": float(loss.detach())}
