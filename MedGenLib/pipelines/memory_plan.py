"""How much memory a generation takes, known before it runs: what its arrays and networks hold.

Two plans lay the windows and tiles out differently, "normal" and "small"; the fine detail of a
volume depends on the plan, so that the plan is told in the report. Within the first one the
features of the mask may be kept for all windows or be computed again at every step, which changes
nothing but time. Light: no torch, no voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from MedGenLib.errors import MemoryPlanError
from MedGenLib.pipelines.working_grid import starts

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest

MIB = 2**20
WIDTHS, WIDTH = (32, 80, 160), 32
"""Of a FlowUNet and an Autoencoder whose package does not tell."""
SMALL_PLAN = (
    "The memory was not enough for the usual plan, so smaller pieces were computed one after the "
    "other; another plan changes fine detail, not quality."
)
OVERLAP = 16
"""Latent voxels by which windows overlap at least, before they are moved onto whole strides."""

# Measured with Testing/benchmarks/memory.py; what follows from the shapes is not listed.
BASE_MIB = 390.0
"""Python with PyTorch, SciPy and the embedded networks, at work on next to nothing."""
HELD = 4
"""Bytes per voxel: the mask as given, in the model's labels, and on the working grid."""
LATENTS = 4
"""Latents in single precision that are held during a step: noise, sample, velocity, its sum."""
LIVE = 3.2
"""Tensors of a network's first width that are alive at once, at its full resolution."""
DECODED = 4
"""Bytes per voxel of the decoded image."""
MADE, CHECKED = 13, 42
"""Bytes per voxel of the input's grid while the result is made, and while tissues are found in it
by thresholds to check it."""
SEGMENTER_MIB = 100.0
"""A check by a segmenter, with the libraries that it loads."""


@dataclass(frozen=True)
class Layout:
    """How a latent grid is cut up: the largest that is sampled at once, else the side of its
    windows, and the decoder's tile, in latent voxels."""

    name: str
    whole: int
    window: int
    tile: int

    def window_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One window for a small grid, cubes for a large one."""
        if max(shape) <= self.whole:
            return tuple(shape)
        return tuple(min(self.window, n) for n in shape)

    def count(self, shape: Sequence[int], stride: int) -> int:
        """Windows over a latent grid, for a network of this stride."""
        sides = self.window_shape(shape)
        return math.prod(len(starts(n, w, OVERLAP + stride)) for n, w in zip(shape, sides, strict=True))


LAYOUTS = {
    "normal": Layout("normal", whole=80, window=64, tile=64),
    "small": Layout("small", whole=40, window=40, tile=32),
}


@dataclass(frozen=True)
class Need:
    """MiB at the peak: of the whole process, and of a GPU's own memory (0 on the CPU)."""

    process: float
    device: float = 0.0


def network_stride(manifest: Manifest) -> int:
    """Latent voxels per coarsest cell of the velocity network."""
    return 2 ** (len(_widths(manifest)) - 1)


def _widths(manifest: Manifest) -> Sequence[int]:
    return manifest.networks["flow"].arguments.get("widths", WIDTHS)


@dataclass(frozen=True)
class MemoryDemand:
    """What memory depends on.

    Attributes
    ----------
    original: voxels of the input's grid.
    shape: working grid in latent voxels.
    bfloat16: whether the networks compute in it.
    gpu: whether they do so on a device with memory of its own.
    """

    manifest: Manifest
    original: int
    shape: tuple[int, ...]
    bfloat16: bool = False
    gpu: bool = False

    def need(self, layout: Layout, keep: bool) -> Need:
        """The peak with this layout, the mask's features kept for all windows or not."""
        statistics = self.manifest.statistics
        after = self.original * (CHECKED if statistics.resegment else MADE)
        base = BASE_MIB + SEGMENTER_MIB * bool(statistics.segmenter)
        networks = self._sampling(layout, keep)
        image = self.voxels * DECODED
        host = self.original * HELD + self.voxels
        decoding = self._latent + self._decoding(layout)
        if self.gpu:
            device = max(networks, decoding)
            return Need(base + max(host + image, after) / MIB, device / MIB)
        return Need(base + max(host + networks, host + image + decoding, after) / MIB)

    @property
    def voxels(self) -> int:
        """Of the working grid."""
        return self._per_latent_voxel * math.prod(self.shape)

    @property
    def _per_latent_voxel(self) -> int:
        """Voxels of the working grid in one latent voxel."""
        return self.manifest.settings.latent_stride**3

    @property
    def _latent(self) -> int:
        """Bytes of the latent."""
        return math.prod(self.shape) * self.manifest.settings.latent_channels * 4

    def _sampling(self, layout: Layout, keep: bool) -> float:
        """Bytes of latents, mask features and the velocity network at work on one window, or of
        the one-hot maps while the mask is read, which many labels make large."""
        size = 2 if self.bfloat16 else 4
        window = math.prod(layout.window_shape(self.shape))
        covered = window * layout.count(self.shape, network_stride(self.manifest)) if keep else window
        widths = _widths(self.manifest)
        features = sum(width / 8**level for level, width in enumerate(widths)) * size
        maps = self.manifest.networks["flow"].arguments.get("maps", 0)
        # In single precision, folded into channels, and once more where the network takes half.
        reading = self._per_latent_voxel * window * maps * (8 + 2 * self.bfloat16)
        working = self._latent * (LATENTS - 1) + window * widths[0] * size * LIVE
        return self._latent + covered * features + max(working, reading - window * features)

    def _decoding(self, layout: Layout) -> float:
        """Bytes of the decoder at work on one tile."""
        width = self.manifest.networks["autoencoder"].arguments.get("width", WIDTH)
        tile = math.prod(min(n, layout.tile) for n in self.shape)
        return tile * width * (2 if self.bfloat16 else 4) * LIVE


@dataclass(frozen=True)
class Plan:
    """The layout to take, whether mask features are kept, and the peak that this has."""

    layout: Layout
    keep: bool
    need: Need


def plans(job: MemoryDemand, asked: str = "auto") -> list[Plan]:
    """The plans that the user's word ("auto", "normal" or "small") allows, the fastest first."""
    names = tuple(LAYOUTS) if asked == "auto" else (asked,)
    order = [(LAYOUTS[name], keep) for name in names for keep in (True, False)]
    # Small pieces are for when memory is short, so nothing is kept beside them.
    return [Plan(layout, keep, job.need(layout, keep)) for layout, keep in order if layout.name == "normal" or not keep]


def choose(options: Sequence[Plan], process_mib: float, device_mib: float = 0.0) -> Plan | None:
    """The first plan that fits, or None.

    Parameters
    ----------
    process_mib, device_mib: what the whole process, and what it on a GPU, may come to hold.
    """
    for plan in options:
        if plan.need.process <= process_mib and plan.need.device <= device_mib:
            return plan
    return None


def too_little(voxels: int, needed: float, free: float, smallest: bool) -> MemoryPlanError:
    """``needed`` and ``free`` in MiB."""
    plan = "Even the smallest plan" if smallest else "The usual plan"
    way = "" if smallest else "take the small plan (--memory small), "
    return MemoryPlanError(
        f"{plan} for a grid of {voxels / 1e6:.1f} million voxels needs about "
        f"{needed / 1024:.1f} GiB, but {free / 1024:.1f} GiB are free; {way}crop the mask, give "
        "it larger voxels or close other programs."
    )
