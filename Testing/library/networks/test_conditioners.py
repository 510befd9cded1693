"""Mask encoder, control branch and the options of ADM."""

from __future__ import annotations

import json

import pytest
import torch
from hippocampi import small_config

from MedGenLib.networks import build
from MedGenLib.training import train

FLOW = {"maps": 3, "scalars": 1, "widths": [8, 16, 24], "blocks": [1, 1, 1]}


def built(**arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    return build("FlowUNet", {**FLOW, **arguments}).eval()


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, also in layers initialized to zero."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def inputs(size: int = 8) -> tuple:
    torch.manual_seed(2)
    x, maps = torch.randn(1, 8, size, size, size), torch.rand(1, 3, 2 * size, 2 * size, 2 * size)
    return x, torch.tensor([0.4]), maps, torch.zeros(1, 1)


def velocity(network: torch.nn.Module, maps=None) -> torch.Tensor:
    x, time, own, scalars = inputs()
    with torch.inference_mode():
        return network(x, time, network.encode_mask(own if maps is None else maps), scalars)


@pytest.mark.parametrize("conditioner", ["mask-encoder", "control"])
def test_the_velocity_depends_on_the_mask_with_every_conditioner(conditioner):
    network = randomized(built(conditioner=conditioner))
    _, _, maps, _ = inputs()
    assert float((velocity(network) - velocity(network, maps.flip(2))).abs().max()) > 1e-3


def test_an_untrained_control_branch_does_not_change_the_velocity():
    """Its outputs pass through convolutions initialized to zero (ControlNet)."""
    network = built(conditioner="control")
    base = [p for n, p in network.named_parameters() if not n.startswith("mask_encoder.")]
    for parameter in base:
        torch.nn.init.normal_(parameter, std=0.1)
    _, _, maps, _ = inputs()
    assert torch.equal(velocity(network), velocity(network, torch.zeros_like(maps)))


def test_the_mask_encoder_runs_once_and_the_control_branch_at_every_evaluation():
    x, time, maps, scalars = inputs()
    calls = []
    for conditioner in ("mask-encoder", "control"):
        network = built(conditioner=conditioner)
        network.mask_encoder.blocks[0].register_forward_hook(lambda *_: calls.append(1))
        features = network.encode_mask(maps)
        for _ in range(3):
            network(x, time, features, scalars)
        calls.append(0)
    assert calls == [1, 0, 1, 1, 1, 0]


def test_with_a_frozen_base_only_the_conditioner_is_trained():
    network = randomized(built(conditioner="control"))
    network.freeze_base()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, time, maps, scalars = inputs()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(x, time, network.encode_mask(maps), scalars).square().mean().backward()
    optimizer.step()
    changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(name.startswith("mask_encoder.") for name in changed)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "group"},
        {"resample": "residual"},
        {"attention": [1, 2]},
        {"attention": True},
        {"norm": "group", "resample": "residual", "attention": [0, 1, 2], "conditioner": "control"},
    ],
)
def test_networks_with_the_options_of_adm_can_be_trained(options):
    """A network can be rebuilt from its arguments and fits a fixed target."""
    network = built(**options)
    build("FlowUNet", network.arguments).load_state_dict(network.state_dict())
    x, time, maps, scalars = inputs()
    target = torch.roll(x, 1, 2) - x
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = (network(x, time, network.encode_mask(maps), scalars) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_the_receptive_field_is_infinite_with_group_and_finite_with_channel_normalization():
    x = torch.randn(1, 8, 48, 4, 4)
    far = x.clone()
    far[:, :, 40:] += 3
    reach = {}
    for norm in ("channel", "group"):
        network = randomized(built(norm=norm, widths=[8, 16], blocks=[1, 1]))
        maps = torch.zeros(1, 3, 96, 8, 8)
        with torch.inference_mode():
            time, scalars, features = torch.ones(1), torch.zeros(1, 1), network.encode_mask(maps)
            moved = network(far, time, features, scalars) - network(x, time, features, scalars)
        reach[norm] = float(moved[:, :, :8].abs().max())
    assert reach["channel"] == 0
    assert reach["group"] > 1e-4


def test_a_control_branch_is_trained_on_a_frozen_flow(crops, trained, tmp_path):
    """The base is bit-identical, and the branch is in the package."""
    path = small_config(tmp_path, crops)
    config = json.loads(path.read_text())
    config["flow"]["network"]["conditioner"] = "control"
    config["flow"]["train"] = "conditioner"
    config["start_from"] = "flow"
    path.write_text(json.dumps(config))
    package = train("latent-flow", path, trained / "control", device="cpu")
    first, second = (torch.load(trained / run / "checkpoint.pt", weights_only=True) for run in ("flow", "control"))
    started, new = first["averages"]["flow"], second["networks"]["flow"]
    shared = [name for name in new if not name.startswith("mask_encoder.")]
    assert shared
    assert all(torch.equal(new[name], started[name]) for name in shared)
    assert any(new[name].any() for name in new if name.startswith("mask_encoder.leave"))
    metadata = json.loads((package / "configs" / "metadata.json").read_text())
    arguments = metadata["medgen"]["networks"]["flow"]["arguments"]
    assert arguments["conditioner"] == "control"
