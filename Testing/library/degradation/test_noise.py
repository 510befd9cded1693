"""Noise against closed forms: moments, power spectrum, attenuation and dose."""

from __future__ import annotations

import numpy as np
import pytest

from MedGenLib.degradation.noise import WATER_PER_MM, ct_noise, ct_noise_projection, local_noise, noise_power, rician


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cylinder(size: int, slices: int, radius_mm: float) -> np.ndarray:
    """Water in air along k, in HU, on pixels of 1 mm."""
    x = np.arange(size) - (size - 1) / 2
    disc = np.where(np.hypot(x[:, None], x) < radius_mm, 0.0, -1000.0)
    return np.repeat(disc[..., None], slices, axis=2).astype(np.float32)


def spectrum(noise: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies per mm of rings, and the share of the power of slices (i, j, k) in them; pixels of 1 mm."""
    power = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).mean(axis=2)
    f = np.fft.fftfreq(len(noise))
    radius = np.hypot(f[:, None], f)
    rings = [(radius * 2 * bins).astype(int) == n for n in range(1, bins)]
    shares = np.array([power[ring].mean() for ring in rings])
    return np.array([radius[ring].mean() for ring in rings]), shares / shares.sum()


def test_rician_noise_in_air_is_rayleigh_and_in_tissue_gaussian():
    air = rician(np.zeros((60, 60, 60)), 5.0, generator())
    assert air.dtype == np.float32
    assert air.mean() == pytest.approx(5 * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(5 * np.sqrt(2 - np.pi / 2), rel=0.01)
    tissue = rician(np.full((60, 60, 60), 100.0), 5.0, generator())
    assert tissue.std() == pytest.approx(5, rel=0.01)
    assert tissue.mean() - 100 == pytest.approx(25 / 200, abs=0.04)  # the bias sd**2 / (2 value)
    assert (tissue**2).mean() == pytest.approx(100**2 + 2 * 25, rel=1e-3)


def test_the_power_has_its_maximum_where_it_is_asked_for():
    f = np.linspace(0, 1, 20001)
    assert f[noise_power(f, 0.2).argmax()] == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("peak", [0.12, 0.25])
def test_ct_noise_has_the_power_and_the_variance(peak):
    noise = ct_noise(np.zeros((128, 128, 24)), (1, 1, 3), generator(), sd_hu=20, peak_per_mm=peak, local=np.float32(1))
    assert noise.std() == pytest.approx(20, rel=0.01)
    f, power = spectrum(noise, 16)
    assert power == pytest.approx(noise_power(f, peak) / noise_power(f, peak).sum(), abs=0.006)
    assert abs((noise[..., 1:] * noise[..., :-1]).mean() / 400) < 0.02


def test_correlation_across_slices_is_a_gaussian():
    """White noise behind a Gaussian of 3 mm is correlated as a Gaussian of 3 * sqrt(2) mm."""
    zeros = np.zeros((96, 96, 64))
    noise = ct_noise(zeros, (1, 1, 1.5), generator(), sd_hu=1, slice_fwhm_mm=3.0, local=np.float32(1))
    assert noise.std() == pytest.approx(1, rel=0.02)
    for lag in (1, 2, 3):
        assert (noise[..., lag:] * noise[..., :-lag]).mean() == pytest.approx(0.5 ** (lag**2 / 2), abs=0.02)


def test_ct_noise_follows_the_dose():
    water = cylinder(96, 8, 40)

    def added(**options: float) -> np.ndarray:
        return ct_noise(water, (1, 1, 1), generator(3), full_dose_sd_hu=8, **options) - water

    quarter, tenth = added(dose=0.25), added(dose=0.1)
    assert quarter[water == 0].std() == pytest.approx(8 * np.sqrt(3), rel=0.03)
    assert tenth == pytest.approx(quarter * np.sqrt(3), abs=0.01)  # sqrt((10 - 1) / (4 - 1))


def test_ct_noise_is_stronger_behind_more_tissue():
    """In a cylinder: the mean of exp(chord) over all directions."""
    local = local_noise(cylinder(180, 2, 80), (1, 1, 1))[..., 0]
    sines = np.sin(np.linspace(0, np.pi, 2000))

    def wanted(radius: float) -> float:
        return np.sqrt(np.exp(WATER_PER_MM * 2 * np.sqrt(80**2 - (radius * sines) ** 2)).mean())

    for i, j in ((120, 89), (89, 150), (161, 89), (115, 104), (47, 132)):
        found = local[i, j] / local[89, 89]
        assert found == pytest.approx(wanted(np.hypot(i - 89.5, j - 89.5)) / wanted(0), rel=0.005)


def test_projections_give_noise_of_the_same_power():
    water = cylinder(96, 1, 40)[..., 0]
    noise = np.stack([ct_noise_projection(water, 1.0, generator(n), views=180) - water for n in range(4)], axis=2)
    middle = noise[32:64, 32:64]
    f, power = spectrum(middle, 8)
    # A Hann window that ends at 0.5 per mm, and the linear interpolation between rays, a sinc**2.
    wanted = noise_power(f, 0.30564 / 2) * np.sinc(f) ** 4
    assert power == pytest.approx(wanted / wanted.sum(), abs=0.03)
    f = np.linspace(0, 0.5, 2000)
    filtered = (f * np.cos(np.pi * f) ** 2) ** 2 * (2 + np.cos(2 * np.pi * f)) / 3
    per_ray = np.exp(WATER_PER_MM * 80) / 2e5
    variance = np.pi**2 / 180 * per_ray * 2 * filtered.mean() * 0.5 * (1000 / WATER_PER_MM) ** 2
    assert noise[44:52, 44:52].std() == pytest.approx(np.sqrt(variance), rel=0.1)


def test_nothing_is_added_at_strength_0_and_seeds_repeat():
    image = cylinder(32, 3, 12)
    before, bright = image.copy(), image + 1000
    for level in ({"dose": 1}, {"sd_hu": 0}):
        assert np.array_equal(ct_noise(image, (1, 1, 1), generator(), **level), image)
    assert np.array_equal(rician(bright, 0, generator()), bright)
    for degrade in (
        lambda rng: ct_noise(image, (1, 1, 1), rng),
        lambda rng: ct_noise_projection(image[..., 0], 1.0, rng, views=20),
        lambda rng: rician(bright, 3, rng),
    ):
        first, again, other = (degrade(generator(seed)) for seed in (5, 5, 6))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(image, before)
