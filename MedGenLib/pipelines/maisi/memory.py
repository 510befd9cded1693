"""Windows and memory of NV-Generate's networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import psutil
import torch

from MedGenLib.devices import free_memory
from MedGenLib.errors import MemoryPlanError
from MedGenLib.networks.slabs import FEWEST_PLANES, SLAB_VALUES, Room
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.settings import MaisiSettings
from MedGenLib.pipelines.windows import Windows

OVERLAP = 8
MOST_VOXELS, SMALL_VOXELS = 2**20, 2**17
"""Latent voxels sampled at once: 512 x 512 x 256 image voxels, and 256 x 256 x 128."""
FEWEST_SLICES, FEWEST_SIDE = 32, 64
"""Latent voxels of a window across and along the slices: the smallest size of the published models."""
SLABS_AT_ONCE = 5
"""Memory of a convolution relative to one map: input, normalized, padded, output, and one being written."""
LEVELS = ((4, 256, 256), (2, 256, 128), (1, 128, 64))
"""Levels of the decoder: downsampling, input channels, output channels."""
VALUES_PER_LATENT_VOXEL = 2200
"""Values of U-Net and ControlNet alive at once per latent voxel of a window."""
BYTES_PER_VOXEL = 32
"""Bytes per image voxel: labels, network values, intensities, checks."""


def windows(settings: MaisiSettings, shape: Sequence[int], small: bool = False) -> Windows:
    """Windows of an image's latent for sampling.

    The layout depends only on the image's size, as it changes the fine detail of the result. The latent is first cut
    along the body, as the networks are trained on whole slices.
    """
    latent, stride = tuple(n // settings.latent_stride for n in shape), settings.network_stride
    budget = SMALL_VOXELS if small else MOST_VOXELS
    window = list(latent)
    for axis, least in ((2, FEWEST_SLICES), (0, FEWEST_SIDE), (1, FEWEST_SIDE)):
        while math.prod(window) > budget and window[axis] > least:
            window[axis] = max(least, _halved(window[axis], stride))
    while math.prod(window) > budget:
        longest = window.index(max(window))
        window[longest] = _halved(window[longest], stride)
    return Windows(latent, tuple(window), OVERLAP, stride)


def _halved(side: int, stride: int) -> int:
    """Half of a side, rounded up to whole strides."""
    return -(-side // (2 * stride)) * stride


def room(shape: Sequence[int], device: torch.device, small: bool = False) -> Room:
    """Maps of the autoencoder that are kept while decoding an image.

    Depends on the device and the image, not on the free memory, for the same reason as `windows`. Two maps of 64
    channels at the image's resolution are alive at a time, so a fifth of the device's memory for each leaves enough for
    the rest.
    """
    largest = total_memory(device) // (10 if small else 5)
    narrow = small or 4 * LEVELS[-1][2] * math.prod(shape) > largest
    return Room(largest, torch.float16 if narrow else None)


def is_small(manifest: Manifest, shape: Sequence[int], device: torch.device, dtype: torch.dtype, plan: str) -> bool:
    """Whether the small plan is used; "auto" uses it if the normal one does not fit.

    Raises MemoryPlanError if none of the plans allowed by ``plan`` fits into the device's free memory.
    """
    free = free_memory(device)
    for small in {"auto": (False, True), "normal": (False,), "small": (True,)}[plan]:
        needed = needed_bytes(manifest, shape, device, dtype, small)
        if needed <= 0.9 * free:
            return small
    remedy = "less memory (--memory small), " if plan == "normal" else ""
    raise MemoryPlanError(
        f"Generating {' x '.join(map(str, shape))} voxels needs about {needed / 2**30:.1f} GiB, "
        f"but {free / 2**30:.1f} GiB are free on the device; use {remedy}another device or a "
        "smaller grid."
    )


def needed_bytes(
    manifest: Manifest, shape: Sequence[int], device: torch.device, dtype: torch.dtype, small: bool
) -> int:
    """Memory of the weights, of sampling or decoding an image, and of its arrays."""
    layout = windows(manifest.settings, shape, small)
    size = math.prod(min(w, n) for w, n in zip(layout.window, layout.shape, strict=True))
    sampling = VALUES_PER_LATENT_VOXEL * size * dtype.itemsize
    decoding = decoding_bytes(shape, room(shape, device, small))
    weights = sum(manifest.weights_path(role).stat().st_size for role in manifest.networks)
    return weights + max(sampling, decoding) + BYTES_PER_VOXEL * math.prod(shape)


def decoding_bytes(shape: Sequence[int], kept: Room) -> int:
    """Memory of the autoencoder without its weights while it decodes an image.

    Level by level of resolution: the input from the level below, its doubling, and the two maps of a residual block.
    """
    item = 2 if kept.dtype == torch.float16 else 4
    limit = math.inf if kept.largest is None else kept.largest
    below = peak = 0
    lazy = 0
    for divisor, entering, leaving in LEVELS:
        voxels = math.prod(shape) // divisor**3
        enter, leave = (c * voxels * item for c in (entering, leaving))
        lazy += (enter > limit) + 4 * (leave > limit)
        enter, leave = (size if size <= limit else 0 for size in (enter, leave))
        peak = max(peak, below + enter, (enter or below) + leave, 2 * leave)
        below = leave or enter or below
    # Maps that are not kept are recomputed with a halo of one plane on each side per layer.
    plane = LEVELS[-1][1] * shape[1] * shape[2]
    planes = max(SLAB_VALUES // plane, FEWEST_PLANES) + 2 + 2 * lazy
    return peak + SLABS_AT_ONCE * planes * plane * 4


def total_memory(device: torch.device) -> int:
    """Total memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total
