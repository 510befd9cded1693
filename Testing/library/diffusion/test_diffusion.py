"""Samplers against closed forms: for Gaussian data the best denoiser is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedGenLib.diffusion import SAMPLERS, ddim, ddpm
from MedGenLib.diffusion.ddpm import cumulative_signal, respaced
from MedGenLib.diffusion.flow import FlowDenoiser, path_times, velocity_target
from MedGenLib.errors import Cancelled

MEAN, SPREAD = 1.5, 0.3
STEPS = {"euler": 200, "heun": 100, "midpoint": 100, "ddim": 200, "ddpm": 1000}
"""DDPM's posterior variance is exact only for small steps, so it uses all of them."""


def gaussian_denoiser(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """E[data | alpha data + sigma noise] for data ~ N(MEAN, SPREAD^2)."""
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """E[noise - data | x] on the rectified-flow path, from the same closed form."""
    data = gaussian_denoiser(x, 1 - t, t)
    if t == 0:
        return -data
    return (x - (1 - t) * data) / t - data


def draws(count: int = 20_000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_reach_the_data_distribution(name):
    samples = SAMPLERS[name](gaussian_denoiser, draws(), STEPS[name], generator=torch.Generator().manual_seed(1))
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(samples.std()) == pytest.approx(SPREAD, rel=0.05)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].path == "flow"])
def test_flow_samplers_converge_to_the_exact_solution_with_their_order(name):
    sampler = SAMPLERS[name]
    # The exact flow of a Gaussian maps noise e to MEAN + SPREAD * e.
    noise = draws(1000)
    exact = MEAN + SPREAD * noise
    errors = [float((sampler(gaussian_denoiser, noise, n) - exact).abs().max()) for n in (64, 256)]
    assert errors[1] < errors[0] / 3.0**sampler.order
    assert errors[1] < 0.02


def test_ddim_without_eta_is_deterministic_and_exact_in_the_limit():
    noise = draws(1000)
    signal = respaced(1000)[0]
    # DDIM's path ends at alpha_bar ~ 4e-5; its exact map from there is linear in the noise.
    start = noise
    scale = SPREAD / np.sqrt(signal * SPREAD**2 + 1 - signal)
    exact = MEAN + scale * (start - np.sqrt(signal) * MEAN)
    found = ddim.sample(gaussian_denoiser, noise, 1000)
    assert torch.allclose(found, exact, atol=0.01)
    assert torch.equal(found, ddim.sample(gaussian_denoiser, noise, 1000))


def test_ddim_with_eta_one_is_ddpm():
    noise = draws(500)
    results = [
        sampler.sample(gaussian_denoiser, noise, 25, generator=torch.Generator().manual_seed(3), **options)
        for sampler, options in ((ddim, {"eta": 1.0}), (ddpm, {}))
    ]
    assert torch.allclose(*results, atol=1e-9)


def test_steps_agree_with_monai_ddim():
    from monai.networks.schedulers import DDIMScheduler

    theirs = DDIMScheduler(
        num_train_timesteps=1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False
    )
    assert np.allclose(theirs.alphas_cumprod.numpy(), cumulative_signal(), atol=1e-5)
    theirs.set_timesteps(1000)
    noise = draws(64).float()
    x = noise
    for t in theirs.timesteps:
        signal = float(theirs.alphas_cumprod[t])
        data = gaussian_denoiser(x, signal**0.5, (1 - signal) ** 0.5)
        estimate = (x - signal**0.5 * data) / (1 - signal) ** 0.5
        x, _ = theirs.step(estimate, int(t), x)
    ours = ddim.sample(gaussian_denoiser, noise.double(), 1000)
    assert torch.allclose(ours.float(), x, atol=5e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_velocity_network_works_with_every_sampler(name):
    samples = SAMPLERS[name](
        FlowDenoiser(gaussian_velocity), draws(), STEPS[name], generator=torch.Generator().manual_seed(1)
    )
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(SPREAD, rel=0.08)


def test_velocity_target_lies_on_the_path():
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    time = torch.tensor([0.25, 1.0])
    point, velocity = velocity_target(data, noise, time)
    t = time.view(2, 1, 1)
    assert torch.allclose(point - t * velocity, data, atol=1e-6)
    assert torch.allclose(point + (1 - t) * velocity, noise, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_path_times_cover_the_whole_path(shift):
    times = path_times(7, shift)
    assert times[0] == 1.0 and times[-1] == 0.0 and len(times) == 8
    assert all(a > b for a, b in zip(times[:-1], times[1:], strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported_and_can_stop_the_run(name):
    evaluations = []

    def counting(x, alpha, sigma):
        evaluations.append(alpha)
        return gaussian_denoiser(x, alpha, sigma)

    seen = []
    SAMPLERS[name](counting, draws(10), 9, on_step=seen.append)
    assert seen == list(range(1, len(evaluations) + 1))
    assert len(seen) == SAMPLERS[name].total(9)

    def stop(done):
        if done == 3:
            raise Cancelled("stopped")

    evaluations.clear()
    with pytest.raises(Cancelled):
        SAMPLERS[name](counting, draws(10), 9, on_step=stop)
    assert len(evaluations) == 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_gives_finite_values_near_the_mean(name):
    samples = SAMPLERS[name](gaussian_denoiser, draws(1000), 1, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(samples).all()
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.05)
