"""The latent of an image: encoded where it is needed, then kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.editing.grid_map import GridMap
from MedGenLib.editing.noise import NoiseField
from MedGenLib.imaging.boxes import Box, inside, scaled, shrunk, wider
from MedGenLib.imaging.normalization import Affine, TissueStandard
from MedGenLib.pipelines.loading import precision
from MedGenLib.pipelines.tissue_levels import ImageLevels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from MedGenLib.editing.organs import OrganEdits
    from MedGenLib.imaging.normalization import TissueRange

UNCHANGED = ImageLevels()
TILE = 64
"""Latent cells per side that are encoded at once."""


class LatentCache:
    """The latent of an image on its working grid, as far as it is known.

    Parameters
    ----------
    codec: intensities to network values and back.
    noise: the initial noise of samples.
    content: box of the working grid in which the image shows what the model makes; None is everywhere,
        as background continues beyond the image.
    scale: units of the image in one unit of the model: 1 for CT.
    levels: what gave the image its shading or the usual levels of its tissues, in the unit of the model.

    Attributes
    ----------
    latent: (c, i, j, k) float32, valid where `known`, bool (i, j, k), is true.
    content: bool (i, j, k), cells that can be encoded.
    filled: the model fills what lies outside of the labels with background.
    """

    def __init__(
        self,
        grid_map: GridMap,
        codec: TissueStandard | Affine,
        noise: NoiseField,
        content: Box | None,
        scale: float = 1.0,
        levels: ImageLevels = UNCHANGED,
    ) -> None:
        self.grid_map, self.codec, self.noise, self.scale, self.levels = grid_map, codec, noise, scale, levels
        self.filled = content is None
        cells = tuple(n // grid_map.cell for n in grid_map.shape)
        self.latent = np.zeros((noise.channels, *cells), np.float32)  # the system allocates pages on the first write
        self.known = np.zeros(cells, bool)
        self.content = np.full(cells, self.filled)
        if content is not None:
            self.content[tuple(slice(-(-p.start // grid_map.cell), p.stop // grid_map.cell) for p in content)] = True

    def intensities(self, x: NDArray, labels: NDArray, box: Box, limits: TissueRange | None) -> NDArray[np.float32]:
        """Network values of a box of the image -> its values."""
        values = self.levels.applied(self.codec.decode(x, labels), labels, box)
        if limits is not None:
            values = limits.enforce(values, labels)
        return values * np.float32(self.scale)

    def in_model_units(self, values: NDArray, labels: NDArray, box: Box) -> NDArray:
        """Values of a box of the image in the unit of the model, without its levels."""
        return self.levels.removed(values / self.scale, labels, box)

    def store(self, place: Box, latent: Tensor) -> None:
        """Store the latent (1, c, i, j, k) of a box of the working grid."""
        cells = shrunk(place, self.grid_map.cell)
        self.latent[(slice(None), *cells)] = latent[0].cpu().float().numpy()
        self.known[cells] = True

    def encode(
        self,
        cells: Box,
        image: NDArray,
        labels: NDArray,
        autoencoder: nn.Module,
        device: torch.device,
        bfloat16: bool,
        organs: OrganEdits | None = None,
    ) -> None:
        """Encode the unknown part of a box of cells; ``labels`` and ``organs`` are those of the image."""
        missing = ~self.known[cells] & self.content[cells]
        if not missing.any():
            return
        halo = autoencoder.halo // self.grid_map.cell
        for tile in _tiles(missing, cells):
            outer = wider(tile, halo, self.known.shape)
            voxels = scaled(outer, self.grid_map.cell)
            values = torch.from_numpy(self._standardized(voxels, image, labels, organs))[None, None]
            with torch.inference_mode(), precision(device, bfloat16):
                found = autoencoder.encode(values.to(device))[0].float().cpu().numpy()
            inner = inside(tile, outer)
            new = ~self.known[tile] & self.content[tile]
            self.latent[(slice(None), *tile)][:, new] = found[(slice(None), *inner)][:, new]
            self.known[tile] |= new

    def _standardized(
        self, box: Box, image: NDArray, labels: NDArray, organs: OrganEdits | None
    ) -> NDArray[np.float32]:
        """Network values of the image in a box of the working grid."""
        voxels = self.grid_map.voxels_in(box)
        shape = [part.stop - part.start for part in box]
        if any(part.start >= part.stop for part in voxels):
            return np.zeros(shape, np.float32)
        plain = image[voxels] if organs is None else organs.removed(image[voxels], voxels)
        values = standardize(self.codec, self.in_model_units(plain, labels[voxels], voxels), labels[voxels])
        x = self.grid_map.values(values, tuple(part.start for part in voxels), box)
        if self.filled:
            for axis, (part, room) in enumerate(zip(box, self.grid_map.extent, strict=True)):
                index = np.arange(part.start, part.stop)
                beyond = (index < room.start) | (index >= room.stop)
                x[(slice(None),) * axis + (beyond,)] = 0
        return x


def standardize(codec: TissueStandard | Affine, values: NDArray, labels: NDArray) -> NDArray[np.float32]:
    """Intensities of a part of an image -> network values, on the scale of the whole image."""
    if isinstance(codec, Affine):
        return (values.astype(np.float32) - codec.mean) / codec.sd
    return codec.encode(values, labels)


def _tiles(missing: NDArray[np.bool_], cells: Box) -> list[Box]:
    """Tiles that cover the missing cells of a box."""
    edges = []
    for axis, part in enumerate(cells):
        index = np.flatnonzero(missing.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = part.start + int(index[0]), part.start + int(index[-1]) + 1
        edges.append([slice(n, min(n + TILE, last)) for n in range(first, last, TILE)])
    return [(i, j, k) for i in edges[0] for j in edges[1] for k in edges[2]]
