"""Measurement of one training step of each stage of a plan, on the device of the run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.devices import MIB
from MedGenLib.networks import Autoencoder, FlowUNet
from MedGenLib.pipelines.conditioning import COORDINATES
from MedGenLib.pipelines.loading import bfloat16_pays
from MedGenLib.training.loop import Draw, to_device_of
from MedGenLib.training.memory import peak_mib, restart_peak
from MedGenLib.training.recipes import RECIPES

LIBRARIES_MIB = 40.0
"""Memory of the libraries for curves and pictures, as measured."""


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step of one part of a batch, and the memory of a process that trains: with the averaged weights."""

    seconds: float
    memory_mib: float


def cost_of_steps(config: dict[str, Any], device: torch.device) -> dict[str, StepCost]:
    """The cost of a step by stage, with networks, patch and batch of the configuration.

    The first step of each is not counted: libraries prepare themselves in it.
    """
    autoencoder = Autoencoder(**config["autoencoder"]["network"]).to(device)
    maps = max(map(int, config["data"]["labels"])) + 1 + COORDINATES
    flow = FlowUNet(maps=maps, scalars=0, **config["flow"]["network"]).to(device)

    def restore(x: Tensor) -> Tensor:
        return F.l1_loss(autoencoder.decode(autoencoder.encode(x)), x)

    def follow(x: Tensor) -> Tensor:
        with torch.no_grad():
            latent = autoencoder.encode(x)
        given = torch.zeros(len(x), maps, *x.shape[2:], device=device)
        time_ = torch.full((len(x),), 0.5, device=device)
        return F.mse_loss(flow(latent, time_, flow.encode_mask(given)), latent)

    return {
        "autoencoder": _timed(autoencoder, restore, _image(config, "autoencoder", device)),
        "latent-flow": _timed(flow, follow, _image(config, "flow", device, "latent-flow")),
    }


def cost_of_recipe_step(recipe: str, config: dict[str, Any], device: torch.device) -> dict[str, StepCost]:
    """As `cost_of_steps`, for a recipe that makes a `random_batch`, with all its networks and losses."""
    restart_peak(device)
    made = RECIPES[recipe](config, Path())
    for network in made.networks.values():
        network.to(device)
    optimizers = [
        torch.optim.AdamW([p for name in objective.networks for p in made.networks[name].parameters()], lr=1e-6)
        for objective in made.objectives
    ]
    batch = to_device_of(next(iter(made.networks.values())), made.random_batch(_part(config, recipe)))
    fast = config["optimisation"][recipe].get("precision", "auto") == "auto" and bfloat16_pays(device)
    seconds = []
    for step in (0, 0, 1):  # some work is done in step 0 and in each `period`-th one only
        start = time.perf_counter()
        for objective, optimizer in zip(made.objectives, optimizers, strict=True):
            if step % objective.every:
                continue
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                loss, _ = objective.loss(batch, Draw.of(0, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    _, whole, usual = seconds
    mean = usual + max(0.0, whole - usual) / getattr(made, "period", 1)
    return {recipe: StepCost(mean, peak_mib(device) + _later(made.networks.values(), device))}


def _image(config: dict[str, Any], section: str, device: torch.device, recipe: str | None = None) -> Tensor:
    return torch.randn(_part(config, recipe or section), 1, *config[section]["patch"], device=device)


def _part(config: dict[str, Any], recipe: str) -> int:
    """Images of a part of a batch."""
    settings = config["optimisation"][recipe]
    return settings["batch"] // settings.get("parts", 1)


def _later(networks: Iterable[nn.Module], device: torch.device) -> float:
    """Memory in MiB of what a training has and these steps have not: averaged weights and, on a CPU, libraries."""
    averages = sum(x.nbytes for network in networks for x in network.state_dict().values()) / MIB
    return averages + (LIBRARIES_MIB if device.type == "cpu" else 0)


def _timed(network: nn.Module, loss: Any, x: Tensor) -> StepCost:
    restart_peak(x.device)
    network.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16_pays(x.device)):
            value = loss(x)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
    return StepCost(time.perf_counter() - start, peak_mib(x.device) + _later([network], x.device))
