"""Recipe `vae`: volumes without a mask by a variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114).

A volume has one latent vector, which `medgen generate` draws from the standard normal distribution. The decoder is the
generator of the recipe `gan`, the encoder its discriminator with mean and variance in place of a logit. The variance of
the voxels is the mean squared error of the batch, so that no weight is needed (Rybkin et al. 2021, arXiv 2006.13202).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedGenLib.networks import VolumeGenerator
from MedGenLib.networks.volume_gan import VolumeDiscriminator
from MedGenLib.training.loop import Draw, Log, Objective
from MedGenLib.training.losses import divergence
from MedGenLib.training.recipes import recipe
from MedGenLib.training.unconditional import ImageRecipe, show


@recipe("vae")
class Vae(ImageRecipe):
    """Recipe of the module; the section ``discriminator`` describes the encoder."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        decoder = VolumeGenerator(**config["network"], classes=len(config["classes"]))
        grid, latent = config["network"]["grid"], decoder.latent
        encoder = VolumeDiscriminator(grid, **config["discriminator"], classes=2 * latent)
        super().__init__(config, {"encoder": encoder, "generator": decoder})
        self.objectives = [Objective("evidence", ("encoder", "generator"), self._loss)]

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """The negative lower bound of the evidence in nats for each voxel, without its constant."""
        restored, mean, log_variance = self._restored(self.networks, batch["image"], batch["kind"], draw.torch)
        error = (restored - batch["image"]).square().mean()
        nats = divergence(mean, log_variance).sum(1).mean()
        loss = 0.5 * torch.log(error + 1e-6) + nats / batch["image"][0].numel()
        return loss, {"error": float(error.detach()), "nats": float(nats.detach())}

    @staticmethod
    def _restored(
        networks: dict[str, nn.Module], image: Tensor, kind: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The images from a random point of their latent, and its mean and logarithm of the variance."""
        mean, log_variance = networks["encoder"].logits(image).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=draw).to(mean)
        return networks["generator"](mean + (log_variance / 2).exp() * noise, kind), mean, log_variance

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Errors of restored images; a network that learns people by heart restores those of others worse."""
        known, unknown, made = self.checked(networks)
        figures = {}
        for name, batch in (("error", known), ("held_out_error", unknown)):
            draw, parts = (
                torch.Generator().manual_seed(7),
                zip(batch["image"].split(4), batch["kind"].split(4), strict=True),
            )
            restored = torch.cat([self._restored(networks, *part, draw)[0] for part in parts])
            figures[name] = float((restored - batch["image"]).square().mean())
        show(log, step, made, restored, unknown["image"])
        return figures
