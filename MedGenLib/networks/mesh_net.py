"""Segmentation network of dilated convolutions at full resolution, for whole brains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEVER = -100.0
"""Score of a label that a voxel cannot have."""
SLAB = 16
"""Planes that are computed at once."""


class MeshNet(nn.Module):
    """MeshNet: image (1, 1, i, j, k) -> scores (1, labels + 1, i, j, k), background first.

    A chain of dilated convolutions (Fedorov et al., arXiv 1612.00940). The background are the voxels that are not above
    0. Only the box of the others is computed, so that empty margins neither count nor cost anything.

    Parameters
    ----------
    classes: label, from 1 on, of each class that the last layer scores; classes of one label add their probabilities.
    width: channels.
    dilations: of the convolutions, in turn.
    """

    stride = 1
    whole = 256
    """Voxels along an axis up to which an image is computed in one piece: 93 voxels determine one."""

    def __init__(
        self, classes: tuple[int, ...], width: int = 30, dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 8, 4, 2, 1)
    ) -> None:
        super().__init__()
        self.arguments = {"classes": list(classes), "width": width, "dilations": list(dilations)}
        self.layers = nn.ModuleList(
            nn.Conv3d(width if i else 1, width, 3, padding=d, dilation=d) for i, d in enumerate(dilations)
        )
        self.head = nn.Conv3d(width, len(classes), 1)

    def forward(self, image: Tensor) -> Tensor:
        classes = self.arguments["classes"]
        inside = image[0, 0] > 0
        scores = image.new_full((1, max(classes) + 1, *image.shape[2:]), NEVER, dtype=torch.float32)
        scores[0, 0] = torch.where(inside, NEVER, -NEVER)
        places = inside.nonzero()
        if not len(places):
            return scores
        low, high = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
        box = (..., *(slice(a, b) for a, b in zip(low, high, strict=True)))
        h = image[box].contiguous(memory_format=torch.channels_last_3d)
        for layer in self.layers:
            h = F.elu(layer(h)) if torch.is_grad_enabled() else _by_slabs(layer, h)
        known = {label: [i for i, other in enumerate(classes) if other == label] for label in set(classes)}
        for low in range(0, h.shape[2], SLAB):
            found = self.head(h[:, :, low : low + SLAB]).float()[0]
            for label, own in known.items():
                scores[0, label][box][low : low + SLAB] = found[own].logsumexp(0)
        return scores


def _by_slabs(layer: nn.Conv3d, h: Tensor) -> Tensor:
    """ELU of a convolution, which replaces its input where it has as many channels: one map is in memory, not two."""
    reach, planes = layer.dilation[0], h.shape[2]
    shape = (1, layer.out_channels, *h.shape[2:])
    out = (
        h
        if h.shape == shape
        else torch.empty(shape, dtype=h.dtype, device=h.device, memory_format=torch.channels_last_3d)
    )
    before: tuple[slice, Tensor] | None = None
    for low in range(0, planes, max(reach, SLAB)):
        high = min(low + max(reach, SLAB), planes)
        part = h[:, :, max(low - reach, 0) : high + reach]
        part = F.pad(part, (0, 0, 0, 0, max(reach - low, 0), max(high + reach - planes, 0)))
        done = F.elu_(F.conv3d(part, layer.weight, layer.bias, padding=(0, reach, reach), dilation=reach))
        if before:  # one slab late, as this one has read its last planes
            out[:, :, before[0]] = before[1]
        before = (slice(low, high), done)
    out[:, :, before[0]] = before[1]
    return out
