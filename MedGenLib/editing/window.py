"""The window of an edit: its place, its mask for the networks, and the cells that are regenerated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box, common, inside, moved, tight, volume, wider
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.conditioning import coordinates_about, label_channels

GROW = 2
"""Latent cells around a changed one that are regenerated with it, for partial volume and edges."""
CONTEXT = 10
"""Latent cells around the free ones that the networks see. The receptive field of the decoder and the filter of the
tissue ranges need 7 of them."""
SIDES = (32, 40, 48, 56, 64, 72, 80)
"""Sides of windows in cells: few sizes, because convolutions are tuned once for each size."""


@dataclass
class WindowScene:
    """A window of the working grid as a scene to sample (`flow_sampling.FlowScene`).

    Attributes
    ----------
    labels: (i, j, k) labels of the window's voxels.
    seen: part of the window that the model sees; None is all of it.
    findings: what the user should know of the sampling.
    """

    manifest: Manifest
    labels: np.ndarray
    spacing: tuple[float, float, float]
    scalars: list[float]
    seen: Box | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def output_voxels(self) -> int:
        """Voxels of the window, which is not resampled."""
        return self.labels.size

    def maps(self, box: Box) -> np.ndarray:
        """Conditioning maps (channels, ...) of a box of the window."""
        maps = label_channels(self.labels[box], max(self.manifest.input.labels))
        if self.manifest.settings.coordinates:
            coordinates = coordinates_about(self._center, self.labels.shape, self.spacing)
            maps = np.concatenate([maps, coordinates[(slice(None), *box)]])
        if self.seen is not None:
            seen = np.zeros(self.labels.shape, np.float32)
            seen[self.seen] = 1
            maps = maps * seen[box]
        return maps

    @property
    def _center(self) -> list[float]:
        """Center of the labels; of the window where all labels were erased."""
        places = np.nonzero(self.labels)
        if not len(places[0]):
            return [(n - 1) / 2 for n in self.labels.shape]
        return [float(index.mean()) for index in places]


def about(box: Box, shape: tuple[int, ...], stride: int) -> Box:
    """The window around the free cells: with context, of one of `SIDES`, in whole strides."""
    window = []
    for part, n in zip(box, shape, strict=True):
        first = (part.start - CONTEXT) // stride * stride
        needed = -(-(part.stop + CONTEXT - first) // stride) * stride
        side = next((s for s in SIDES if s >= needed), needed)
        first -= (side - needed) // 2 // stride * stride
        first = max(0, min(first, n - side))
        window.append(slice(first, min(first + side, n)))
    return tuple(window)


def pieces(box: Box, cells: np.ndarray, shape: tuple[int, ...], stride: int) -> list[tuple[Box, np.ndarray]]:
    """Changes that are far from each other as separate pieces, where their windows have fewer cells than one window
    around all."""
    whole = [(box, cells)]
    if max(cells.shape) + 2 * (GROW + CONTEXT) <= SIDES[0]:
        return whole
    from scipy import ndimage

    # Two pieces never write to the same voxel.
    wide, near = grown(cells, box, GROW + 1, shape)
    numbers, count = ndimage.label(near, np.ones((3, 3, 3)))
    if count == 1:
        return whole
    parts = []
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        near_box = moved(place, tuple(part.start for part in wide))
        there = common(near_box, box)
        mine = cells[inside(there, box)] & (numbers[inside(there, wide)] == number)
        inner, part = tight(mine, there)
        parts.append((inner, mine[part]))
    cost = sum(volume(about(wider(part, GROW, shape), shape, stride)) for part, _ in parts)
    return parts if cost < volume(about(wider(box, GROW, shape), shape, stride)) else whole


def grown(cells: np.ndarray, box: Box, margin: int, shape: tuple[int, ...]) -> tuple[Box, np.ndarray]:
    """Marked cells dilated by ``margin``, and their box, inside the working grid."""
    wide = wider(box, margin, shape)
    marked = torch.zeros(1, 1, *(part.stop - part.start for part in wide))
    marked[(0, 0, *inside(box, wide))] = torch.from_numpy(cells).float()
    return wide, _spread(marked, margin)[0, 0].numpy() > 0


def _spread(marked: Tensor, margin: int) -> Tensor:
    """Dilation by a cube, axis by axis."""
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * margin + 1, margin
        marked = F.max_pool3d(marked, size, 1, padding)
    return marked
