"""Feature distance between the patches of a generated and of a real volume.

The Frechet distance of 96 statistics of 2.5-D patches (32 x 32 voxels and 3 neighboring slices, in
all three orientations): the means and standard deviations of the 3 x 16 feature maps of a
convolutional network with fixed random weights. It needs no trained network and is sensitive to
texture, contrast and structure. Values are comparable only for this network and the same mask;
report those of trivial baselines and of `split_floor` with them.

Sources: Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017 (the distance);
Naeem et al., Reliable fidelity and diversity metrics, ICML 2020 (random embeddings).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from texture import highpass as highpass_image

from MedGenLib.errors import InputError
from MedGenLib.metrics.distribution import frechet_distance

PATCH = 32
SLICES = 3
CHANNELS = 16
LAYERS = 3
N_FEATURES = 2 * LAYERS * CHANNELS
_EXTRACTOR_SEED = 20240229  # part of the definition: changing it changes every value


def feature_distance(
    reference: ArrayLike,
    candidate: ArrayLike,
    mask: ArrayLike,
    n_patches: int = 900,
    seed: int = 0,
    highpass: bool = False,
) -> float:
    """Frechet distance between patches of two volumes at the same positions; 0 if equal.

    Parameters
    ----------
    reference, candidate: real and generated volume, (i, j, k), same unit and grid.
    mask: voxels at which patches may be centered.
    n_patches: number of patches, distributed evenly over the three orientations.
    seed: seed of the positions; the network does not depend on it.
    highpass: compare the volumes minus their Gaussian blur (sigma 1).

    Raises
    ------
    InputError: the shapes differ or the mask is empty.
    """
    reference, candidate, mask = _checked(reference, candidate, mask)
    scale = intensity_scale(reference, mask, highpass)
    places = patch_places(mask, n_patches, seed)
    real, fake = (patch_features(volume, places, scale, highpass) for volume in (reference, candidate))
    return standardized_frechet(real, fake)


def split_floor(
    reference: ArrayLike, mask: ArrayLike, n_patches: int = 900, seed: int = 0, highpass: bool = False
) -> float:
    """Distance of a real volume to itself: two sets of `n_patches` at different positions.

    It is due to sampling only and is a lower limit for the distance of a generator.
    """
    reference, _, mask = _checked(reference, reference, mask)
    scale = intensity_scale(reference, mask, highpass)
    places = patch_places(mask, 2 * n_patches, seed)
    features = patch_features(reference, places, scale, highpass)
    # Positions cycle through the orientations, so blocks of three balance both halves.
    first = (np.arange(len(features)) // 3) % 2 == 0
    return standardized_frechet(features[first], features[~first])


def intensity_scale(reference: ArrayLike, mask: ArrayLike, highpass: bool = False) -> tuple[float, float]:
    """Offset and factor that scale the masked voxels of the real volume to mean 0 and SD 1."""
    values = np.asarray(reference, np.float64)
    values = (highpass_image(values) if highpass else values)[np.asarray(mask, bool)]
    return float(values.mean()), float(1 / max(values.std(), 1e-12))


def patch_places(mask: ArrayLike, n_patches: int, seed: int) -> NDArray[np.int64]:
    """Rows (orientation, i, j, k) of random masked voxels, cycling through the orientations."""
    voxels = np.argwhere(np.asarray(mask, bool))
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = generator.choice(len(voxels), n_patches, replace=n_patches > len(voxels))
    return np.column_stack([np.arange(n_patches) % 3, voxels[chosen]])


def patch_features(
    volume: ArrayLike, places: NDArray[np.int64], scale: tuple[float, float] = (0.0, 1.0), highpass: bool = False
) -> NDArray[np.float64]:
    """Statistics (patch, 96) of the patches at `places` after (value - offset) x factor.

    Features of several volumes may be joined to compare sets of small cases.
    """
    import torch

    patches = torch.from_numpy(_patches(np.asarray(volume, np.float64), places, scale, highpass))
    with torch.no_grad():
        features = [_statistics(batch) for batch in patches.split(128)]
    return torch.cat(features).double().numpy()


def standardized_frechet(real: NDArray, fake: NDArray) -> float:
    """`frechet_distance` after both sets are standardized by the real features."""
    mean, deviation = real.mean(0), real.std(0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    return frechet_distance((real - mean) / deviation, (fake - mean) / deviation)


def _patches(volume: NDArray, places: NDArray, scale: tuple[float, float], highpass: bool) -> NDArray[np.float32]:
    """Patches (patch, 3 slices, 32, 32), shifted inside the volume at its borders."""
    offset, factor = scale
    volume = (((highpass_image(volume) if highpass else volume) - offset) * factor).astype("f4")
    missing = [max(PATCH - length, 0) for length in volume.shape]
    before = [pad // 2 for pad in missing]
    volume = np.pad(volume, [(b, m - b) for b, m in zip(before, missing, strict=True)], mode="edge")
    result = np.empty((len(places), SLICES, PATCH, PATCH), np.float32)
    for patch, (axis, *center) in zip(result, places, strict=True):
        size = np.where(np.arange(3) == axis, SLICES, PATCH)
        start = np.clip(np.add(center, before) - size // 2, 0, volume.shape - size)
        box = volume[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))]
        patch[:] = np.moveaxis(box, axis, 0)
    return result


def _statistics(maps):
    """Mean and standard deviation of every feature map of the fixed random network."""
    import torch
    from torch.nn import functional

    found = []
    for weight, bias in _network():
        maps = functional.leaky_relu(functional.conv2d(maps, weight, bias, padding=1), 0.2)
        found += [maps.mean((2, 3)), maps.std((2, 3))]
        maps = functional.avg_pool2d(maps, 2)
    return torch.cat(found, 1)


def _network():
    """Weights and biases of the layers, from numpy so that they never depend on torch's version."""
    import torch

    generator = np.random.Generator(np.random.PCG64(_EXTRACTOR_SEED))
    inputs = SLICES
    for _ in range(LAYERS):
        weight = generator.standard_normal((CHANNELS, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        bias = generator.standard_normal(CHANNELS) * 0.1
        yield torch.from_numpy(weight.astype("f4")), torch.from_numpy(bias.astype("f4"))
        inputs = CHANNELS


def _checked(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    reference, candidate = np.asarray(reference, float), np.asarray(candidate, float)
    mask = np.asarray(mask, bool)
    if reference.ndim != 3 or not reference.shape == candidate.shape == mask.shape:
        raise InputError(
            f"The feature distance needs two volumes and a mask of one 3-D shape, but got "
            f"{reference.shape}, {candidate.shape} and {mask.shape}; bring them onto one grid."
        )
    if not mask.any():
        raise InputError("The mask is empty, so no patch can be taken; give one with voxels.")
    return reference, candidate, mask
