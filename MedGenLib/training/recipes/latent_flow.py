"""Recipe `latent-flow`: rectified flow in the latent of a trained autoencoder, given a mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from MedGenLib.diffusion import DENOISERS, SAMPLERS
from MedGenLib.diffusion.flow import velocity_target
from MedGenLib.errors import InputError
from MedGenLib.networks import Autoencoder, FlowUNet
from MedGenLib.training.data import read_data
from MedGenLib.training.loop import DataRecipe, Draw, Log, Objective, start_from, to_device_of
from MedGenLib.training.losses import Terms, TrainingStep
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.autoencoder import WEIGHTS_FILE
from MedGenLib.training.warm_start import load_flow

MASK_DROP = 0.05
OUTSIDE_WEIGHT = 0.05


@recipe("latent-flow")
class LatentFlowRecipe(DataRecipe):
    """Recipe of the module. The configuration's sections are ``data`` and ``flow``.

    ``flow.train`` "conditioner" freezes all but the conditioner, after ``start_from``, to add a condition to a trained
    network by a ControlNet (``flow.network.conditioner`` "control").

    ``continues`` has the ``name`` of an installed package to start from, the number of labels ``added`` to it, and the
    weight ``keep`` of the squared distance from its weights, which keeps what it knows (L2-SP, Li et al. 2018, arXiv
    1802.01483, eq. 2).

    ``<out>/../autoencoder`` must contain the export of the recipe `autoencoder`.
    """

    prediction = "velocity"
    """Prediction of the network, as in the sampler section of packages."""
    sampling = ("euler", 12)
    """Sampler and steps of the validation picture."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        self.data = read_data(config, config["flow"]["patch"])
        self.autoencoder = self._made_autoencoder(out)
        network = FlowUNet(maps=self.data.maps, scalars=self.data.scalars, **config["flow"]["network"])
        self.networks: dict[str, nn.Module] = {"flow": network.to(memory_format=torch.channels_last_3d)}
        only_conditioner = config["flow"].get("train") == "conditioner"
        start_from(config, out, "flow", network, "mask_encoder" if only_conditioner else "")
        if only_conditioner:
            network.freeze_base()
        if "continues" in config:
            load_flow(network, config["continues"]["name"], config["continues"]["added"])
        self.keep = float(config.get("continues", {}).get("keep", 0.0))
        self.known = [weight.detach().clone() for weight in network.parameters()] if self.keep else []
        self.terms = Terms.of(config, self.data.codec, self.autoencoder)
        self.objectives = [Objective("flow", ("flow",), self._loss)]

    def _made_autoencoder(self, out: Path) -> Autoencoder:
        return trained_autoencoder(out.parent / "autoencoder")

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the velocity at logit-normal times (Esser et al. 2024, eq. 19).

        The configuration can add terms, see `training.losses`.
        """
        data = self._encode(batch["x"])
        size = data.shape[0]
        noise = torch.randn(data.shape, generator=draw.torch).to(data.device)
        time = torch.sigmoid(torch.randn(size, generator=draw.torch)).to(data.device)
        keep = (torch.rand(size, generator=draw.torch) >= MASK_DROP).float().to(data.device)
        point, velocity = velocity_target(data, noise, time)
        network = self.networks["flow"]
        maps, scalars = batch["maps"] * keep.view(-1, 1, 1, 1, 1), batch.get("scalars")
        point = point.contiguous(memory_format=torch.channels_last_3d)
        estimate = network(point, time, network.encode_mask(maps), scalars)
        error = (estimate - velocity).square()
        weight = F.avg_pool3d(batch["valid"], self.autoencoder.stride).clamp(min=OUTSIDE_WEIGHT)
        weight = self.terms.weights(batch["maps"], weight)
        loss = (weight * error).sum() / (weight.sum() * error.shape[1])
        made = TrainingStep(maps, batch["valid"], point, velocity, estimate, time, scalars)
        more, figures = self.terms(network, made)
        figures = {"velocity": float(loss.detach()), **figures}
        if self.keep:
            self.known = [known.to(weight) for known, weight in zip(self.known, network.parameters(), strict=True)]
            pairs = zip(network.parameters(), self.known, strict=True)
            moved = sum((weight - known).square().sum() for weight, known in pairs)
            more, figures["moved"] = more + self.keep / 2 * moved, float(moved.detach())
        return loss + more, figures

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        return self.autoencoder.to(image.device).encode(image).float()

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Loss at fixed data and noise, and a picture of a sample and the real patch."""
        total = 0.0
        trained, self.networks = self.networks, {**self.networks, **networks}
        for index in range(8):
            draw = Draw.of(7, index)
            batch = to_device_of(networks["flow"], self.data.sample(draw.numpy, 2))
            loss, _ = self._loss(batch, draw)
            total += float(loss) / 8
        self.networks = trained
        draw = Draw.of(7, 100)
        batch = to_device_of(networks["flow"], self.data.sample(draw.numpy, 1))
        image = self._sample(networks["flow"], batch, draw)
        middle = image.shape[2] // 2
        both = torch.cat([image[0, 0, middle], batch["x"][0, 0, middle]], 1)
        log.picture("validation/sampled_beside_real", (both.cpu().numpy() + 2) / 4, step)
        return {self.prediction: total}

    @torch.no_grad()
    def samples(self, networks: dict[str, nn.Module]) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
        """Samples from masks of the people who choose the weights, and their images; None without such people."""
        cases = self.config["data"].get("validation_cases")
        if not cases:
            return None
        unseen = read_data(
            {**self.config, "data": {**self.config["data"], "cases": cases}}, self.config["flow"]["patch"]
        )
        unseen.texture = self.data.texture
        made, real = [], []
        for number in range(len(cases)):
            draw = Draw.of(8, number)
            batch = to_device_of(networks["flow"], unseen.sample(draw.numpy, 1))
            sample = self._sample(networks["flow"], batch, draw) * batch["valid"]
            for side, image in ((made, sample), (real, batch["x"] * batch["valid"])):
                side.append(image[0, 0].cpu().numpy())
        return made, real

    def _sample(self, network: nn.Module, batch: dict[str, Tensor], draw: Draw) -> Tensor:
        features = network.encode_mask(batch["maps"])
        name, steps = self.sampling

        def predict(x: Tensor, t: float) -> Tensor:
            return network(x, torch.full((1,), t).to(x), features, batch.get("scalars"))

        shape = (1, self.autoencoder.channels, *(n // self.autoencoder.stride for n in batch["x"].shape[2:]))
        noise = torch.randn(shape, generator=draw.torch).to(batch["x"].device)
        latent = SAMPLERS[name](DENOISERS[self.prediction](predict), noise, steps)
        return self.autoencoder.decode(latent)

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(
            self.config,
            {"autoencoder": self.autoencoder, "flow": networks["flow"]},
            step=step,
            held_out=self.data.held_out,
            statistics={"tissues": self.data.statistics()},
            preprocessing={
                **self.data.preprocessing(),
                "latent_channels": self.autoencoder.channels,
                "latent_stride": self.autoencoder.stride,
            },
            out=out,
        )


def trained_autoencoder(folder: Path) -> Autoencoder:
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise InputError(
            f"There is no trained autoencoder at {path}; run `medgen train autoencoder` with the "
            f"same configuration and --out {folder} first."
        )
    arguments = json.loads((folder / "autoencoder.json").read_text())["network"]
    network = Autoencoder(**arguments)
    network.load_state_dict(load_file(str(path)))
    return network.eval().requires_grad_(False)
