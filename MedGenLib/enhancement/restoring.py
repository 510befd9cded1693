"""The network of a package on a whole image, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.imaging.boxes import Box, inside
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Geometry
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.settings import RestorationSettings
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    import torch

TILES = {"normal": 160, "small": 64}
"""Voxels along each side of a tile, by memory plan."""
CONDITIONS = 5
LEAST_NOISE = 0.02
"""Noise, in network units, that counts as 1 in its condition."""
BRIGHT = 99.9
"""Percentile that is taken for the largest value."""
FOREGROUND = 0.1
"""Values above this share of it are the foreground."""


def conditions(thick: Sequence[float], noise: float, stacks: int) -> NDArray[np.float32]:
    """(5,) numbers of the order of 1.

    Parameters
    ----------
    thick: distance of the slices along each axis in voxels of the output; 1 where no stack has thick slices.
    noise: standard deviation of the noise in network units.
    stacks: number of stacks with thick slices; 0 for an image whose noise alone is removed.
    """
    return np.array([*np.log2(thick), np.log2(1 + noise / LEAST_NOISE) / 2, max(0, stacks - 1)], np.float32)


def unit_of(values: NDArray, settings: RestorationSettings) -> float:
    """Intensity of one network unit of an image of any shape.

    "hounsfield" has a fixed one; "relative" takes the median of the foreground, so that the unit of an MR image has no
    meaning. The scale divides either.
    """
    if settings.name == "hounsfield":
        return settings.scale
    foreground = values[values > FOREGROUND * np.percentile(values, BRIGHT)]
    level = float(np.median(foreground)) if foreground.size else 1.0
    return max(level, 1e-6) * settings.scale


def restored(
    values: NDArray[np.float32],
    geometry: Geometry,
    thick: Sequence[float],
    noise: float,
    stacks: int,
    manifest: Manifest,
    device: torch.device,
    memory: str,
    progress: ProgressCallback | None,
) -> NDArray[np.float32]:
    """The image (i, j, k) as the network restores it.

    Parameters
    ----------
    thick, stacks: see `conditions`, along the axes of the image.
    noise: in the unit of the image.
    """
    import torch

    from MedGenLib.pipelines.loading import bfloat16_pays, network, precision

    settings = manifest.settings
    unit = unit_of(values, settings)
    reorientation = Reorientation.to(geometry, "RAS")
    given = conditions(
        np.minimum(reorientation.axes(tuple(thick)), settings.thickest), min(noise / unit, settings.noisiest), stacks
    )
    net = network(manifest, "restorer", device)
    image = reorientation.apply(values) / np.float32(unit)
    made = np.empty_like(image)
    tiles = list(_tiles(image.shape, TILES[memory], net.halo, net.stride))
    stage = Stage("restoring", len(tiles), progress)
    scalars = torch.from_numpy(given)[None].to(device)
    with torch.inference_mode(), precision(device, bfloat16_pays(device)):
        for inner, outer in tiles:
            part = image[outer]
            margins = [(0, -n % net.stride) for n in part.shape]
            x = torch.from_numpy(np.pad(part, margins, mode="edge"))[None, None].to(device)
            x = x.contiguous(memory_format=torch.channels_last_3d)
            y = net(x, scalars)[0, 0].float().cpu().numpy()
            made[inner] = y[inside(inner, outer)]
            stage.advance()
    return reorientation.undo(made) * np.float32(unit)


def _tiles(shape: Sequence[int], side: int, halo: int, stride: int) -> Iterator[tuple[Box, Box]]:
    """Tiles that cover a grid once, each without and with its halo; those with a halo begin at multiples of the stride,
    so that folded voxels are the same ones in each."""
    for corner in product(*(range(0, n, side) for n in shape)):
        inner = tuple(slice(c, min(c + side, n)) for c, n in zip(corner, shape, strict=True))
        outer = tuple(
            slice(max(0, s.start - halo) // stride * stride, min(n, s.stop + halo))
            for s, n in zip(inner, shape, strict=True)
        )
        yield inner, outer
