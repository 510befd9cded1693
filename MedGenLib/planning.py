"""How long a run will take and how much memory it needs, known before it starts.

The figures come from what was measured for the model card, scaled by the size of the grid that the
networks work on, and are corrected by what this computer measured itself (`remember`). Light: no
torch, no voxel.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import home
from .errors import InputError
from .grids import slice_spacing, starts, usable_axes, working_geometry

if TYPE_CHECKING:
    from .packages.manifest import Manifest, Performance
    from .volume import Geometry

BASE_MIB = 330.0
"""Memory of a run that does not grow with its size: where the line through the peaks measured at
96^3 and 128^3 meets zero voxels."""
NETWORK_SHARE = 0.45
"""Part of a run's memory that is the networks', measured at 128^3; windows bound this part only."""
WHOLE, WINDOW, OVERLAP = 160, 128, 40
"""Voxels: largest grid that is sampled at once, side of a window, overlap of windows."""
BATCH_MIB = 225.0
"""The network of a translation at work on one batch of slices, whatever the volume's size."""
SMALL_SHARE = 0.25
"""The networks' memory with memory="small", as a part of what they take otherwise."""
OTHER_STEPS = {"generate": 5.0, "translate": 0.0}
"""Time outside of the sampling steps (mask encoder, decoder, checks) in units of one step."""
TIMINGS = "timings.json"


@dataclass(frozen=True)
class RunPlan:
    """What to expect of a run.

    Attributes
    ----------
    seconds: wall time; None where neither the model card nor this computer has a figure.
    memory_mib: peak memory of the worker, MiB.
    windows: pieces in which the grid is sampled.
    memory: "normal", or "small" where the memory that is free is not enough for that.
    sentence: all this for the user, such as "about 9 s on CPU, 1.1 GB".
    """

    seconds: float | None
    memory_mib: float
    windows: int
    memory: Literal["normal", "small"]
    sentence: str


def plan_run(
    manifest: Manifest,
    geometry: Geometry,
    preset: str = "normal",
    device: str = "cpu",
    samples: int = 1,
    free_mib: float | None = None,
) -> RunPlan:
    """Plan a run on an input's grid.

    Parameters
    ----------
    geometry: of the mask or image. A mask is cut to its labels, so that the plan is an upper bound.
    device: "cpu", "auto" (taken for the CPU) or "cuda:0".
    free_mib: memory that is free on the device; None does not compare.

    Raises
    ------
    InputError: no such preset, or a grid that cannot be used.
    """
    manifest.preset(preset)
    work = _work(manifest, geometry, preset)
    rate = _known_rate(manifest, device) or _card_rate(manifest, device)
    seconds = None if rate is None else rate * work.cost * samples
    networks, rest = _memory(manifest, work)
    small = free_mib is not None and BASE_MIB + networks + rest > 0.9 * free_mib
    memory = BASE_MIB + rest + networks * (SMALL_SHARE if small else 1.0)
    return RunPlan(
        seconds, memory, work.windows, "small" if small else "normal",
        _sentence(seconds, memory, work.windows, small, device),
    )  # fmt: skip


def remember(
    manifest: Manifest, geometry: Geometry, preset: str, device: str, samples: int, seconds: float
) -> None:
    """Keep how long a run took on this computer, for later plans; half of the weight is the last.

    Nothing happens where the cache folder cannot be written.
    """
    cost = _work(manifest, geometry, preset).cost * samples
    if cost <= 0 or seconds <= 0:
        return
    path, timings, key = home.cache_dir() / TIMINGS, _timings(), _key(manifest, device)
    before = timings.get(key)
    rate = seconds / cost
    timings[key] = rate if before is None else (before + rate) / 2
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        home.write_json(path, timings)


@dataclass(frozen=True)
class _Work:
    """Voxels of the working grid, windows over it, and what time is proportional to."""

    voxels: int
    windows: int
    cost: float


def _work(manifest: Manifest, geometry: Geometry, preset: str) -> _Work:
    if manifest.task == "translate":
        return _translation(manifest, geometry, preset)
    target = working_geometry(_within_view(geometry, manifest), manifest)
    steps = (manifest.preset(preset).steps or 1) + OTHER_STEPS["generate"]
    voxels = math.prod(target.shape)
    if max(target.shape) <= WHOLE:
        return _Work(voxels, 1, voxels * steps)
    counts = [len(starts(n, min(n, WINDOW), OVERLAP)) for n in target.shape]
    covered = math.prod(c * min(n, WINDOW) for c, n in zip(counts, target.shape, strict=True))
    return _Work(voxels, math.prod(counts), covered * steps)


def _within_view(geometry: Geometry, manifest: Manifest) -> Geometry:
    """The part that is generated: models of one structure cut out their field of view."""
    if manifest.preprocessing.get("outside") != "anatomy":
        return geometry
    longest = max(manifest.field_of_view.max)
    shape = [
        min(n, max(1, round(longest / s)))
        for n, s in zip(geometry.shape, geometry.spacing, strict=True)
    ]
    return geometry.moved((0, 0, 0), shape)


def _translation(manifest: Manifest, geometry: Geometry, preset: str) -> _Work:
    axes, options = usable_axes(geometry), manifest.preset(preset).options
    spacing = slice_spacing(geometry, manifest)
    voxels = math.prod(geometry.with_spacing(spacing).shape)
    planes = min(len(axes), options.get("planes", len(axes)))
    passes = planes + (min(planes, 2) if options.get("mirror") else 0)
    return _Work(voxels, 1, float(voxels * passes))


def _memory(manifest: Manifest, work: _Work) -> tuple[float, float]:
    """MiB of the networks and of everything else, above that of an idle process."""
    runs = _measured(manifest)
    if not runs:
        return 0.5 * NETWORK_SHARE * work.voxels * 180 / 2**20, work.voxels * 100 / 2**20
    # The largest run tells most about large ones.
    run = max(runs, key=lambda r: (math.prod(r.size), r.peak_mib))
    above = max(0.0, run.peak_mib - BASE_MIB)
    if manifest.task == "translate":
        batch = min(BATCH_MIB, above)
        return batch, (above - batch) / math.prod(run.size) * work.voxels
    each = above / math.prod(run.size)
    bounded = min(work.voxels, WHOLE**3) if work.windows == 1 else WINDOW**3
    return each * NETWORK_SHARE * bounded, each * (1 - NETWORK_SHARE) * work.voxels


def _card_rate(manifest: Manifest, device: str) -> float | None:
    """Seconds per unit of cost by the model card, which has figures of a CPU only."""
    if device.startswith("cuda"):
        return None
    rates = []
    for run in _measured(manifest):
        planes = manifest.preset(run.preset).options.get("planes", 1)
        steps = (manifest.preset(run.preset).steps or 0) + OTHER_STEPS[manifest.task]
        rates.append(run.seconds / (math.prod(run.size) * (steps or planes)))
    return max(rates, default=None)


def _measured(manifest: Manifest) -> list[Performance]:
    """Figures in the number format that every computer has."""
    runs = [r for r in manifest.performance if r.device.startswith("CPU")]
    return [r for r in runs if "float32" in r.device] or runs


def _known_rate(manifest: Manifest, device: str) -> float | None:
    rate = _timings().get(_key(manifest, device))
    return rate if isinstance(rate, int | float) and rate > 0 else None


def _key(manifest: Manifest, device: str) -> str:
    place = "cpu" if device == "auto" else device
    return f"{manifest.name} {manifest.version} on {place}"


def _timings() -> dict[str, float]:
    with suppress(OSError, ValueError):
        known = json.loads((home.cache_dir() / TIMINGS).read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}


def _sentence(
    seconds: float | None, memory_mib: float, windows: int, small: bool, device: str
) -> str:
    place = device.upper() if device.startswith("cuda") else "CPU"
    time = f"time on {place} not known yet" if seconds is None else f"{_time(seconds)} on {place}"
    parts = [time, _size(memory_mib)]
    if small:
        parts.append("in small pieces, as little memory is free")
    elif windows > 1:
        parts.append(f"in {windows} windows")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min"


def _size(mib: float) -> str:
    return f"{mib * 2**20 / 1e9:.1f} GB"
