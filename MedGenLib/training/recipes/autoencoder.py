"""Recipe `autoencoder`: image <-> latent of eight channels at a half, a quarter or an eighth of the resolution.

The decoder is trained on slightly noisy latents, as those of a flow are not exact; with the quantizer "kl" the encoder
learns how noisy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.networks import Autoencoder
from MedGenLib.training.data import read_data
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, to_device_of
from MedGenLib.training.losses import divergence
from MedGenLib.training.recipes import recipe

WEIGHTS_FILE = "autoencoder.safetensors"
LATENT_NOISE, KL_WEIGHT, COMMITMENT = 0.05, 1e-3, 0.25
"""Noise without a quantizer; weight of the divergence in nats for each voxel; weight of the distance of the latent from
its code, as published."""


@recipe("autoencoder")
class AutoencoderRecipe(DataRecipe):
    """Recipe of the module. The configuration's sections are ``data`` and ``autoencoder``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        self.data = read_data(config, config["autoencoder"]["patch"])
        network = Autoencoder(**config["autoencoder"]["network"])
        self.networks: dict[str, nn.Module] = {"autoencoder": network.to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective("reconstruction", ("autoencoder",), self._loss)]

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        network = self.networks["autoencoder"]
        latent, log_variance = network.posterior(batch["x"])
        noise = torch.randn(latent.shape, generator=draw.torch).to(latent)
        if log_variance is not None:
            penalty = KL_WEIGHT * divergence(latent, log_variance).mean() * network.channels / network.stride**3
            point = latent + (log_variance / 2).exp() * noise
        else:
            # Unit variance of the latent keeps the added noise and the first entries of a codebook meaningful.
            penalty = 0.1 * (latent.square().mean(dim=(0, 2, 3, 4)) - 1).square().mean()
            point = latent + LATENT_NOISE * noise
        if network.codebook is not None:
            codes, point = network.quantized(latent), latent
            learned = (codes - latent.detach()).square().mean()
            penalty = penalty + learned + COMMITMENT * (codes.detach() - latent).square().mean()
        restored = network.decode(point)
        weight = batch["valid"] + 0.1 * (1 - batch["valid"])
        error = (weight * (restored - batch["x"]).abs()).sum() / weight.sum()
        return error + penalty, {"l1": float(error.detach()), "penalty": float(penalty.detach())}

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Image error with the true latent and with that of another image."""
        network = networks["autoencoder"]
        batch = to_device_of(network, self.data.sample(Draw.of(7, 0).numpy, 4))
        latent = network.encode(batch["x"])
        inside = batch["valid"] > 0
        true = (network.decode(latent) - batch["x"])[inside].abs().mean()
        shuffled = latent.flip(0).flip(2)
        permuted = (network.decode(shuffled) - batch["x"])[inside].abs().mean()
        return {"l1": float(true), "permuted_l1": float(permuted)}

    @torch.no_grad()
    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        """Measure the latent's mean and standard deviation, fold them into the weights, and write the files."""
        network = networks["autoencoder"]
        latents = []
        for index in range(16):
            batch = to_device_of(network, self.data.sample(Draw.of(8, index).numpy, 4))
            latents.append(_inside(network.encode(batch["x"]), batch["valid"], network.stride))
        network.normalize(torch.cat(latents, dim=1))
        return write_autoencoder(network, self.config["autoencoder"]["network"], step, out)


def write_autoencoder(network: nn.Module, arguments: dict[str, Any], steps: int, out: Path) -> Path:
    """Write the weights and the arguments; returns the path of the weights."""
    path = out / WEIGHTS_FILE
    state = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary)
    write_json(out / "autoencoder.json", {"network": arguments, "steps": steps})
    return path


def _inside(latent: Tensor, valid: Tensor, stride: int) -> Tensor:
    """Latent vectors inside the valid region: (channels, count)."""
    keep = torch.nn.functional.avg_pool3d(valid, stride)[:, 0] > 0.5
    return latent.movedim(1, 0)[:, keep]
