"""Weights between sites and server: their bytes, what is refused, their average, and their privacy.

The differential privacy is that of all data of a site at once, against everybody who sees its updates, the server
included. Numbers of cases and figures of the validation are sent as they are.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor, nn

from MedGenLib.errors import InputError

Weights = Mapping[str, Tensor]
LARGEST = 1e6
"""Largest change of a weight in one round that can be meant."""


def trained_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The trained parameters as "network.parameter"; what is frozen is the same at all sites."""
    named = ((f"{role}.{name}", value) for role, net in networks.items() for name, value in net.named_parameters())
    return {name: value for name, value in named if value.requires_grad}


@torch.no_grad()
def put_weights(networks: Mapping[str, nn.Module], weights: Weights) -> None:
    """Set the trained parameters. Raises InputError if the weights are those of other networks."""
    own = trained_weights(networks)
    if problem := problem_of(weights, own):
        raise InputError(f"The server sent weights of another network: {problem}; compare the configurations.")
    for name, value in own.items():
        value.copy_(weights[name])


def to_bytes(weights: Weights) -> bytes:
    """safetensors in the order of the names, so that equal weights have equal bytes."""
    return save({name: weights[name].detach().float().cpu().clone().contiguous() for name in sorted(weights)})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Raises InputError if the bytes are no weights."""
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"these are no weights ({error})") from None


def problem_of(found: Weights, known: Weights) -> str:
    """What is wrong with the weights or the update of another computer; "" if nothing is."""
    if other := sorted(set(found) ^ set(known)):
        return f"{other[0]} is {'unknown' if other[0] in found else 'missing'}"
    for name, value in found.items():
        if value.shape != known[name].shape:
            return f"{name} has the shape {tuple(value.shape)} instead of {tuple(known[name].shape)}"
        if not value.is_floating_point() or not torch.isfinite(value).all() or (value.abs() > LARGEST).any():
            return f"{name} holds values that are no numbers, or far too large"
    return ""


def averaged(weights: Weights, updates: Mapping[str, Weights], cases: Mapping[str, int]) -> dict[str, Tensor]:
    """The weights and the mean of the updates, weighted by cases: FedAvg (McMahan et al. 2017, algorithm 1).

    The sites are summed in the order of their names in 64 bits, so that the result does not depend on who was first.
    """
    share = {site: cases[site] / sum(cases[other] for other in updates) for site in sorted(updates)}
    return {
        name: (value.double() + sum(updates[site][name].double() * part for site, part in share.items())).float()
        for name, value in weights.items()
    }


def protect(update: Weights, clip: float | None, noise: float) -> dict[str, Tensor]:
    """The update scaled to a norm of at most ``clip``, with normal noise of standard deviation ``noise * clip``.

    The noise has a seed of the operating system: with one that others know it could be subtracted.
    """
    if clip is None:
        return dict(update)
    norm = math.sqrt(sum(float(value.double().square().sum()) for value in update.values()))
    scale, generator = min(1.0, clip / max(norm, 1e-12)), np.random.default_rng(secrets.randbits(128))
    return {
        name: (value.double() * scale + torch.from_numpy(generator.normal(0, noise * clip, (*value.shape,)))).float()
        for name, value in update.items()
    }


def epsilon(noise: float, releases: int, delta: float) -> float:
    """Epsilon of a site after some releases, for a noise relative to the clipping norm; infinity without noise.

    Two clipped updates differ by at most 2 clip, so that a release is a Gaussian mechanism with the ratio 2 / noise.
    The composition of n of them is one with sqrt(n) times the ratio (Dong, Roth, Su 2022, JRSS B 84, corollary 2), and
    its delta is exactly Phi(r/2 - e/r) - exp(e) Phi(-r/2 - e/r) (Balle, Wang 2018, ICML, theorem 8).
    """
    if not releases or not noise:
        return math.inf if releases else 0.0
    ratio = 2 * math.sqrt(releases) / noise

    def excess(value: float) -> float:
        first, second = log_ndtr(ratio / 2 - value / ratio), value + log_ndtr(-ratio / 2 - value / ratio)
        return float(np.exp(first) * -np.expm1(second - first)) - delta  # exp(first) - exp(second), without overflow

    # At the bound of concentrated privacy (Bun, Steinke 2016, proposition 1.3) delta is smaller than the one given.
    bound = ratio**2 / 2 + ratio * math.sqrt(2 * math.log(1 / delta))
    return float(brentq(excess, 0.0, bound)) if excess(0.0) > 0 else 0.0
