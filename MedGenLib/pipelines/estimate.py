"""How long a run will take and how much memory it needs, known before it starts.

Times come from what was measured for the model card, scaled by the size of the grid that the
networks work on, and are corrected by what this computer measured itself (`remember`); the memory
of a generation follows from what its arrays and networks hold (`memory`). Light: no torch, no
voxel.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from MedGenLib import user_folders
from MedGenLib.errors import InputError
from MedGenLib.pipelines.memory_plan import LAYOUTS, MemoryDemand, choose, plans
from MedGenLib.pipelines.working_grid import slice_spacing, usable_axes, working_geometry

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Geometry
    from MedGenLib.packages.manifest import Manifest, Performance

IDLE_MIB = 330.0
"""Memory of a translation that does not grow with its size."""
BATCH_MIB = 225.0
"""The network of a translation at work on one batch of slices, whatever the volume's size."""
SMALL_SHARE = 0.25
"""The networks' memory with memory="small", as a part of what they take otherwise."""
OTHER_STEPS = {"generate": 5.0, "translate": 0.0}
"""Time outside of the sampling steps (mask encoder, decoder, checks) in units of one step."""
TIMINGS, PROBES = "timings.json", "probes.json"
"""Files in the cache folder: how long runs took, and on which devices bfloat16 pays."""


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
    memory, windows, small = _memory(manifest, geometry, work, device, free_mib)
    return RunPlan(
        seconds, memory, windows, "small" if small else "normal", _sentence(seconds, memory, windows, small, device)
    )


def remember(manifest: Manifest, geometry: Geometry, preset: str, device: str, samples: int, seconds: float) -> None:
    """Keep how long a run took on this computer, for later plans; half of the weight is the last.

    Nothing happens where the cache folder cannot be written.
    """
    cost = _work(manifest, geometry, preset).cost * samples
    if cost <= 0 or seconds <= 0:
        return
    path, timings, key = user_folders.cache_dir() / TIMINGS, _record(TIMINGS), _key(manifest, device)
    before = timings.get(key)
    rate = seconds / cost
    timings[key] = rate if before is None else (before + rate) / 2
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        user_folders.write_json(path, timings)


@dataclass(frozen=True)
class _Work:
    """Voxels of the working grid, its shape in latent voxels, and what time is proportional to."""

    voxels: int
    latent: tuple[int, ...]
    cost: float


def _work(manifest: Manifest, geometry: Geometry, preset: str) -> _Work:
    if manifest.task == "translate":
        return _translation(manifest, geometry, preset)
    if manifest.pipeline == "maisi":
        return _published(manifest, geometry, preset)
    target = working_geometry(_within_view(geometry, manifest), manifest)
    steps = (manifest.preset(preset).steps or 1) + OTHER_STEPS["generate"]
    latent = tuple(-(-n // 2) for n in target.shape)
    layout, stride = LAYOUTS["normal"], MemoryDemand(manifest, 0, latent).stride
    covered = 8 * math.prod(layout.window_shape(latent)) * layout.count(latent, stride)
    return _Work(math.prod(target.shape), latent, covered * steps)


def _published(manifest: Manifest, geometry: Geometry, preset: str) -> _Work:
    """A package of NV-Generate, on its legal grid."""
    from MedGenLib.pipelines.maisi.legal import find_grid

    shape = find_grid(geometry, manifest).shape
    steps = (manifest.preset(preset).steps or 1) + OTHER_STEPS["generate"]
    return _Work(math.prod(shape), tuple(n // 4 for n in shape), math.prod(shape) * steps)


def _within_view(geometry: Geometry, manifest: Manifest) -> Geometry:
    """The part that is generated: models of one structure cut out their field of view."""
    if manifest.settings.outside != "anatomy":
        return geometry
    longest = max(manifest.field_of_view.max)
    shape = [min(n, max(1, round(longest / s))) for n, s in zip(geometry.shape, geometry.spacing, strict=True)]
    return geometry.moved((0, 0, 0), shape)


def _translation(manifest: Manifest, geometry: Geometry, preset: str) -> _Work:
    axes, options = usable_axes(geometry), manifest.preset(preset)
    spacing = slice_spacing(geometry, manifest)
    voxels = math.prod(geometry.with_spacing(spacing).shape)
    planes = min(len(axes), options.planes)
    passes = planes + (min(planes, 2) if options.mirror else 0)
    return _Work(voxels, (), float(voxels * passes))


def _memory(
    manifest: Manifest, geometry: Geometry, work: _Work, device: str, free_mib: float | None
) -> tuple[float, int, bool]:
    """Peak in MiB, windows, and whether the plan for little memory has to be taken."""
    room = math.inf if free_mib is None else 0.9 * free_mib
    if manifest.task == "translate":
        batch, rest = _translating(manifest, work)
        batch *= 0.5 if _bfloat16(device) else 1.0
        small = IDLE_MIB + batch + rest > room
        return IDLE_MIB + rest + batch * (SMALL_SHARE if small else 1.0), 1, small
    if manifest.pipeline == "maisi":
        return _publishing(manifest, work, device), 1, False
    gpu = device.startswith("cuda")
    job = MemoryDemand(manifest, math.prod(geometry.shape), work.latent, _bfloat16(device), gpu)
    options = plans(job)
    plan = choose(options, math.inf if gpu else room, room if gpu else 0.0) or options[-1]
    windows = plan.layout.count(work.latent, job.stride)
    memory = plan.need.device if gpu else plan.need.process
    return memory, windows, plan.layout.name == "small"


def _publishing(manifest: Manifest, work: _Work, device: str) -> float:
    """MiB of a package of NV-Generate: its weights, and its decoder at the image's resolution.

    Two maps of 64 channels are alive there: in single precision, in half where one would take
    more than a fifth of the memory, and else in slabs, so that the two of 128 channels at half
    the resolution count (`maisi.memory`, which knows the device, has it exactly).
    """
    total = math.inf
    if not device.startswith("cuda"):
        with suppress(ImportError):  # a fresh Slicer has no psutil
            import psutil

            total = psutil.virtual_memory().total
    whole = 64 * 4 * work.voxels
    maps = 2 * whole
    if whole > total / 5:
        maps = whole if whole / 2 <= total / 5 else 2 * 128 * 2 * work.voxels / 8
    weights = 0.0
    for role in manifest.networks:
        with suppress(OSError):
            weights += manifest.weights_path(role).stat().st_size
    return IDLE_MIB + (weights + maps + 32 * work.voxels) / 2**20


def _translating(manifest: Manifest, work: _Work) -> tuple[float, float]:
    """MiB of the network and of everything else, above that of an idle process."""
    runs = _measured(manifest)
    if not runs:
        return BATCH_MIB, work.voxels * 50 / 2**20
    # The largest run tells most about large ones.
    run = max(runs, key=lambda r: (math.prod(r.size), r.peak_mib))
    above = max(0.0, run.peak_mib - IDLE_MIB)
    batch = min(BATCH_MIB, above)
    return batch, (above - batch) / math.prod(run.size) * work.voxels


def _bfloat16(device: str) -> bool:
    """Whether runs on this computer were found to be faster in it; None was measured yet: no."""
    place = "bfloat16 on CUDA" if device.startswith("cuda") else "bfloat16 on CPU"
    known = _record(PROBES)
    return any(pays is True for key, pays in known.items() if key.startswith(place))


def _card_rate(manifest: Manifest, device: str) -> float | None:
    """Seconds per unit of cost by the model card, which has figures of a CPU only."""
    if device.startswith("cuda"):
        return None
    rates = []
    for run in _measured(manifest):
        preset = manifest.preset(run.preset)
        passes = preset.planes if manifest.task == "translate" else preset.steps + OTHER_STEPS[manifest.task]
        rates.append(run.seconds / (math.prod(run.size) * passes))
    return max(rates, default=None)


def _measured(manifest: Manifest) -> list[Performance]:
    """Figures in the number format that every computer has."""
    runs = [r for r in manifest.performance if r.device.startswith("CPU")]
    return [r for r in runs if "float32" in r.device] or runs


def _known_rate(manifest: Manifest, device: str) -> float | None:
    rate = _record(TIMINGS).get(_key(manifest, device))
    return rate if isinstance(rate, int | float) and rate > 0 else None


def _key(manifest: Manifest, device: str) -> str:
    place = "cpu" if device == "auto" else device
    return f"{manifest.name} {manifest.version} on {place}"


def _record(name: str) -> dict[str, float]:
    """What a file of the cache folder holds; nothing where it is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads((user_folders.cache_dir() / name).read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}


def _sentence(seconds: float | None, memory_mib: float, windows: int, small: bool, device: str) -> str:
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
