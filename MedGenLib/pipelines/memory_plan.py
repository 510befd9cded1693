"""Memory of a generation, computed before it runs from its arrays and networks.

The plans "normal" and "small" have different windows and tiles, which change the fine detail of a volume; the plan is
therefore recorded in the report. Within the normal one the mask features may be kept for all windows or recomputed at
every step, which changes only the time. No torch, no voxels.
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
"""Defaults of a FlowUNet and an Autoencoder without these arguments."""
SMALL_PLAN = (
    "The memory was insufficient for the normal plan, so smaller windows were computed one after the "
    "other; another plan changes fine detail, not quality."
)
OVERLAP = 16
"""Minimum overlap of windows in latent voxels, before alignment to whole strides."""

# Measured with Testing/benchmarks/memory.py; values that follow from shapes are not listed.
BASE_MIB = 470.0
"""Memory of a process with PyTorch, SciPy and the embedded networks on a minimal input."""
HELD = 4
"""Bytes per voxel: the mask as given, in the model's labels, and on the working grid."""
LATENTS = 4
"""Latents in single precision alive during a step: noise, sample, velocity, sum."""
LIVE = 3.2
"""Tensors of a network's first width alive at once at full resolution."""
DECODED = 4
"""Bytes per voxel of the decoded image."""
LEVELING = 224
"""Bytes per voxel of a window of the network of levels: 56 channels at the finest level."""
LEVELED, GIVEN_LEVELS = 6, 16
"""Bytes per voxel of the working grid for its usual level and the strength of its texture, and beside them while they
are predicted or an image gets them."""
MADE, CHECKED = 13, 42
"""Bytes per voxel of the input's grid for the result, and for a segmentation by thresholds in its check."""
SEGMENTER_MIB, SEGMENTED = 100.0, 240
"""Memory of a check by a segmenter: its libraries, and bytes per voxel of the working grid, at 1.25 mm."""


@dataclass(frozen=True)
class Layout:
    """Layout of a latent grid: largest size sampled at once, side of the windows otherwise, and the decoder's tile, in
    latent voxels; and the longest side of a window of the networks of levels, in voxels."""

    name: str
    whole: int
    window: int
    tile: int
    levels: int = 72

    def window_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One window for a small grid, cubes for a large one."""
        if max(shape) <= self.whole:
            return tuple(shape)
        return tuple(min(self.window, n) for n in shape)

    def count(self, shape: Sequence[int], stride: int) -> int:
        """Number of windows over a latent grid, for a network with this stride."""
        sides = self.window_shape(shape)
        return math.prod(len(starts(n, w, OVERLAP + stride)) for n, w in zip(shape, sides, strict=True))


LAYOUTS = {
    "normal": Layout("normal", whole=80, window=64, tile=64),
    "small": Layout("small", whole=40, window=40, tile=32),
}


@dataclass(frozen=True)
class Need:
    """Peak memory in MiB: of the process, and of a GPU (0 on the CPU)."""

    process: float
    device: float = 0.0


def network_stride(manifest: Manifest) -> int:
    """Latent voxels per coarsest cell of the velocity network."""
    return 2 ** (len(_widths(manifest)) - 1)


def _widths(manifest: Manifest) -> Sequence[int]:
    return manifest.networks["flow"].arguments.get("widths", WIDTHS)


@dataclass(frozen=True)
class MemoryDemand:
    """Parameters of the memory of a generation.

    Attributes
    ----------
    original: voxels of the input's grid.
    shape: working grid in latent voxels.
    bfloat16: whether the networks compute in bfloat16.
    gpu: whether they run on a device with its own memory.
    """

    manifest: Manifest
    original: int
    shape: tuple[int, ...]
    bfloat16: bool = False
    gpu: bool = False

    def need(self, layout: Layout, keep: bool) -> Need:
        """The peak with this layout, with or without kept mask features."""
        statistics = self.manifest.statistics
        after = self.original * (CHECKED if statistics.resegment else MADE)
        if statistics.segmenter:
            after = max(after, self.voxels * SEGMENTED)
        base = BASE_MIB + SEGMENTER_MIB * bool(statistics.segmenter)
        networks = self._sampling(layout, keep)
        image = self.voxels * DECODED
        host = self.original * HELD + self.voxels * (1 + self._leveled)
        decoding = self._latent + self._decoding(layout)
        if self.gpu:
            device = max(networks, decoding)
            return Need(base + max(host + image, after) / MIB, device / MIB)
        return Need(
            base + max(host + networks, host + image + decoding, *self._leveling(layout, host, image), after) / MIB
        )

    @property
    def voxels(self) -> int:
        """Voxels of the working grid."""
        return self._per_latent_voxel * math.prod(self.shape)

    @property
    def _leveled(self) -> int:
        """Bytes per voxel of the working grid for its levels."""
        return LEVELED if "voxel_levels" in self.manifest.networks else 0

    def _leveling(self, layout: Layout, host: int, image: int) -> tuple[float, float]:
        """Bytes while the usual levels of tissues are predicted, and while an image gets them."""
        if not self._leveled:
            return 0, 0
        stride = self.manifest.settings.latent_stride
        window = math.prod(min(n * stride, layout.levels) for n in self.shape)
        given = self.voxels * GIVEN_LEVELS
        return host + window * LEVELING + given, host + image + given

    @property
    def _per_latent_voxel(self) -> int:
        """Voxels of the working grid per latent voxel."""
        return self.manifest.settings.latent_stride**3

    @property
    def _latent(self) -> int:
        return math.prod(self.shape) * self.manifest.settings.latent_channels * 4

    def _sampling(self, layout: Layout, keep: bool) -> float:
        """Bytes of latents, mask features and the velocity network on one window, or of the one-hot maps while the mask
        is encoded, which are large for many labels."""
        size = 2 if self.bfloat16 else 4
        window = math.prod(layout.window_shape(self.shape))
        covered = window * layout.count(self.shape, network_stride(self.manifest)) if keep else window
        widths = _widths(self.manifest)
        features = sum(width / 8**level for level, width in enumerate(widths)) * size
        maps = self.manifest.networks["flow"].arguments.get("maps", 0)
        # In single precision, folded into channels, and once more for a network in half precision.
        reading = self._per_latent_voxel * window * maps * (8 + 2 * self.bfloat16)
        working = self._latent * (LATENTS - 1) + window * widths[0] * size * LIVE
        return self._latent + covered * features + max(working, reading - window * features)

    def _decoding(self, layout: Layout) -> float:
        """Bytes of the decoder on one tile."""
        width = self.manifest.networks["autoencoder"].arguments.get("width", WIDTH)
        width = max(width, self._per_latent_voxel)  # the bands of the Haar transform
        tile = math.prod(min(n, layout.tile) for n in self.shape)
        return tile * width * (2 if self.bfloat16 else 4) * LIVE


@dataclass(frozen=True)
class Plan:
    """A layout, whether mask features are kept, and the peak memory."""

    layout: Layout
    keep: bool
    need: Need


def plans(job: MemoryDemand, asked: str = "auto") -> list[Plan]:
    """The plans allowed by the option ("auto", "normal" or "small"), the fastest first."""
    names = tuple(LAYOUTS) if asked == "auto" else (asked,)
    order = [(LAYOUTS[name], keep) for name in names for keep in (True, False)]
    # With little memory, no mask features are kept.
    return [Plan(layout, keep, job.need(layout, keep)) for layout, keep in order if layout.name == "normal" or not keep]


def choose(options: Sequence[Plan], process_mib: float, device_mib: float = 0.0) -> Plan | None:
    """The first plan that fits, or None.

    Parameters
    ----------
    process_mib, device_mib: memory limits of the process and on a GPU.
    """
    for plan in options:
        if plan.need.process <= process_mib and plan.need.device <= device_mib:
            return plan
    return None


def too_little(voxels: int, needed: float, free: float, smallest: bool) -> MemoryPlanError:
    """``needed`` and ``free`` in MiB."""
    plan = "Even the smallest plan" if smallest else "The normal plan"
    way = "" if smallest else "take the small plan (--memory small), "
    return MemoryPlanError(
        f"{plan} for a grid of {voxels / 1e6:.1f} million voxels needs about "
        f"{needed / 1024:.1f} GiB, but {free / 1024:.1f} GiB are free; {way}crop the mask, give "
        "it larger voxels or close other programs."
    )
