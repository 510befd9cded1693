"""Noise of MR (Rician) and of CT (colored, local, by dose)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.degradation.slices import along_axis, slice_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_array

WATER_PER_MM = 0.0193
"""Attenuation of water at 70 keV, the mean energy of a spectrum of 120 kV (NIST XCOM)."""
_BODY_HU = -300
_PEAK = 0.30564
"""Where x cos(pi x / 2)**4 has its maximum."""
_SIGMA_OF_FWHM = 1 / np.sqrt(8 * np.log(2))
_DIRECTIONS = 12
_COARSE_MM = 4.0
"""Pixel of the line integrals."""


def rician(values: NDArray, sd: float | NDArray, rng: np.random.Generator) -> NDArray[np.float32]:
    """Magnitudes with Gaussian noise of this standard deviation (also an array) in both channels.

    See Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    values = np.asarray(values, dtype=np.float32)
    real = rng.standard_normal(values.shape, dtype=np.float32) * sd + values
    return np.hypot(real, rng.standard_normal(values.shape, dtype=np.float32) * sd).astype(np.float32)


def ct_noise(
    values_hu: NDArray,
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    dose: float = 0.25,
    sd_hu: float | None = None,
    full_dose_sd_hu: float = 10.0,
    peak_per_mm: float = 0.25,
    slice_fwhm_mm: float = 0.0,
    local: NDArray | None = None,
) -> NDArray[np.float32]:
    """A CT with the noise of a lower dose: colored as by filtered back-projection, and stronger behind more tissue.

    The variance of noise is proportional to 1 / dose, so 1 / dose - 1 of that of the image is added.

    Parameters
    ----------
    values_hu: (i, j, k) in HU; i and j are in the axial plane.
    dose: relative to that of the image.
    sd_hu: standard deviation of the added noise (root mean square in the body) instead of that by dose.
    full_dose_sd_hu: that of the image.
    peak_per_mm: frequency of the maximum of the noise's power; higher for a sharper kernel.
    slice_fwhm_mm: full width at half maximum of the Gaussian that correlates slices; 0 for none.
    local: `local_noise` of the image by default; a patch needs that of its volume.
    """
    values = np.array(values_hu, dtype=np.float32)
    sd = full_dose_sd_hu * np.sqrt(1 / dose - 1) if sd_hu is None else sd_hu
    if sd == 0:
        return values
    local = local_noise(values, spacing_mm) if local is None else local
    return values + np.float32(sd) * local * _colored(values.shape, spacing_mm, rng, peak_per_mm, slice_fwhm_mm)


def noise_power(frequency_per_mm: NDArray, peak_per_mm: float) -> NDArray[np.float64]:
    """Noise power in the plane of filtered back-projection, up to a factor: f A(f)**2 with the Hann window A.

    See Kijewski and Judy 1987, doi:10.1088/0031-9155/32/5/003. The window ends at 3.27 times the peak.
    """
    share = np.minimum(np.asarray(frequency_per_mm) * _PEAK / peak_per_mm, 1)
    return share * np.cos(np.pi / 2 * share) ** 4


def local_noise(values_hu: NDArray, spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Standard deviation of CT noise relative to its root mean square in the body, (i, j, k) as the image.

    The variance at a point is the mean over directions in the plane of exp(line integral of the attenuation), as the
    inverse of the photons that are left (Kak and Slaney 1988, chapter 5). The slices have to show the whole body.
    """
    coarse, up = _coarse_attenuation(np.asarray(values_hu, np.float32), spacing_mm)
    (rows, columns, slices), step = coarse.shape, max(_COARSE_MM, *spacing_mm[:2])
    pixels, variance = coarse.reshape(-1, slices), 0
    for angle in (np.arange(_DIRECTIONS) + 0.5) * np.pi / _DIRECTIONS:  # 45 degrees would alias on the pixels
        rays = _rays(rows, columns, angle)
        variance = variance + rays.T @ np.exp(step * (rays @ pixels)) / _DIRECTIONS
    fine = np.asarray(variance, np.float32).reshape(coarse.shape)
    for axis in range(2):
        fine = along_axis(up[axis], fine, axis)
    body = np.asarray(values_hu) > _BODY_HU
    return np.ascontiguousarray(np.sqrt(fine / fine[body if body.any() else ...].mean()))


def _coarse_attenuation(
    hu: NDArray[np.float32], spacing: Sequence[float]
) -> tuple[NDArray[np.float32], list[csr_array]]:
    """Attenuation per mm on square pixels in the plane, and the matrices that interpolate back."""
    step, up = max(_COARSE_MM, *spacing[:2]), []
    coarse = WATER_PER_MM * (1 + hu / np.float32(1000)).clip(0)
    for axis in range(2):
        fine, width = hu.shape[axis], spacing[axis]
        count = int(np.ceil(fine * width / step))
        first = ((fine - 1) * width - (count - 1) * step) / 2
        down = slice_weights(fine, count, width, step, step, first, "box")
        coarse = along_axis(down.astype(np.float32), coarse, axis)
        # A box as wide as a sample interpolates linearly.
        up.append(slice_weights(count, fine, step, width, step, -first, "box").astype(np.float32))
    return coarse, up


def _rays(rows: int, columns: int, angle: float) -> csr_array:
    """Sparse (rays, pixels): linear weights of the parallel rays, one pixel apart, on both sides of each pixel."""
    from scipy.sparse import csr_array

    i, j = np.indices((rows, columns)).reshape(2, -1)
    middle = np.hypot(rows, columns) / 2 + 1
    place = (i - (rows - 1) / 2) * np.cos(angle) + (j - (columns - 1) / 2) * np.sin(angle) + middle
    below = np.floor(place).astype(int)
    pixels = np.tile(np.arange(rows * columns), 2)
    weights = np.concatenate([1 - (place - below), place - below]).astype(np.float32)
    rays = np.concatenate([below, below + 1])
    return csr_array((weights, (rays, pixels)), shape=(int(2 * middle) + 2, rows * columns))


def _colored(
    shape: tuple[int, ...], spacing: Sequence[float], rng: np.random.Generator, peak: float, slice_fwhm: float
) -> NDArray[np.float32]:
    """Noise of variance 1 with the power of `noise_power` in the plane and a Gaussian correlation across."""
    from scipy import fft

    def across(frequency: NDArray) -> NDArray:
        return np.exp(-((2 * np.pi * frequency * slice_fwhm * _SIGMA_OF_FWHM) ** 2))

    i, j = (fft.fftfreq(count, width) for count, width in zip(shape[:2], spacing[:2], strict=True))
    plane = noise_power(np.hypot(i[:, None], j), peak)
    power = plane[..., None] / plane.mean() * across(fft.rfftfreq(shape[2], spacing[2]))
    power /= across(fft.fftfreq(shape[2], spacing[2])).mean()
    spectrum = fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    return fft.irfftn(spectrum * np.sqrt(power).astype(np.float32), shape)


def ct_noise_projection(
    slice_hu: NDArray,
    spacing_mm: float,
    rng: np.random.Generator,
    photons: float = 2e5,
    electronic: float = 10.0,
    views: int = 720,
) -> NDArray[np.float32]:
    """One axial slice (n, n) with noise from its projections: the slow reference for `ct_noise`.

    Only the error of the line integrals, from Poisson and electronic noise, goes through filtered back-projection, so
    the slice keeps its sharpness.

    Parameters
    ----------
    photons: per ray in air, proportional to the dose; a ray is as wide as a pixel.
    electronic: standard deviation of the electronic noise, in photons.
    views: directions over 180 degrees.
    """
    from skimage.transform import iradon, radon

    hu = np.array(slice_hu, dtype=np.float32)
    angles = np.arange(views) * 180 / views
    exact = radon(WATER_PER_MM * spacing_mm * (1 + hu / 1000).clip(0), angles, circle=False)
    counts = rng.poisson(photons * np.exp(-exact)) + rng.normal(0, electronic, exact.shape)
    noise = np.log(photons / counts.clip(1)) - exact
    back = iradon(noise, angles, output_size=len(hu), filter_name="hann", circle=False)
    return hu + (1000 / (WATER_PER_MM * spacing_mm) * back).astype(np.float32)
