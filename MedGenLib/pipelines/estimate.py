"""Estimate of the time and memory of a run.

Times are those measured for the model card, scaled by the size of the working grid and corrected by measurements on
this computer (`remember`); the memory of a generation is computed from its arrays and networks (`memory_plan`). No
torch, no voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from MedGenLib import user_folders
from MedGenLib.errors import InputError, PackageError
from MedGenLib.io.atomic import write_json
from MedGenLib.pipelines.base import Estimate, pipeline_of
from MedGenLib.pipelines.measured import STEPS_BESIDE, TIMINGS, card_runs, record
from MedGenLib.pipelines.scanner_noise import usual_noise
from MedGenLib.progress import ProgressCallback, announce_time, duration

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Geometry
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.result import Result

LONG_SECONDS = 20.0
"""An estimated time from which commands print it before the work."""
SHORT_RUN = 2.0
"""Seconds: shorter runs are mostly overhead and do not predict the time of large ones."""


@dataclass(frozen=True)
class RunPlan:
    """Estimated time and memory of a run.

    Attributes
    ----------
    seconds: wall time; None if neither the model card nor this computer has a measurement.
    memory_mib: peak memory of the worker, MiB.
    windows: number of windows in which the grid is sampled.
    memory: "normal", or "small" if the free memory is not sufficient for that.
    sentence: summary for the user, such as "about 9 s on CPU, 1.1 GB".
    noise: usual noise on the grid, such as "10 HU, usual at 2 mm"; "" where the model has none.
    """

    seconds: float | None
    memory_mib: float
    windows: int
    memory: Literal["normal", "small"]
    sentence: str
    noise: str = ""


def plan_run(
    manifest: Manifest,
    geometry: Geometry,
    preset: str = "normal",
    device: str = "cpu",
    samples: float = 1,
    free_mib: float | None = None,
) -> RunPlan:
    """Plan a run on an input's grid.

    Parameters
    ----------
    geometry: grid of the mask or image. A mask is cropped to its labels, so the plan is an upper bound.
    device: "cpu", "auto" (estimated as the CPU) or "cuda:0".
    free_mib: free memory of the device; None for no comparison.

    Raises
    ------
    InputError: no such preset, or an unusable grid.
    """
    manifest.preset(preset)
    estimate = pipeline_of(manifest).estimate(geometry, preset, device, free_mib)
    rate = _rate(manifest, device)
    seconds = None if rate is None else rate * estimate.cost * samples
    memory = "small" if estimate.small else "normal"
    noise = usual_noise(manifest, geometry) if manifest.task == "generate" and manifest.settings.takes_noise else ""
    return RunPlan(seconds, estimate.memory_mib, estimate.windows, memory, _sentence(seconds, estimate, device), noise)


def looks(manifest: Manifest, uncertain: bool) -> int:
    """How often a translation is made: without measured intervals its uncertainty takes a second look at each plane."""
    return 1 + (uncertain and manifest.statistics.intervals is None)


def remember(manifest: Manifest, geometry: Geometry, preset: str, device: str, samples: int, seconds: float) -> None:
    """Store the duration of a run on this computer for later plans, with half of the weight for the last run.

    Does nothing if the cache folder is not writable.
    """
    cost = pipeline_of(manifest).estimate(geometry, preset).cost * samples
    if cost <= 0 or seconds <= 0:
        return
    _store(_key(manifest, device), seconds / cost)


def remember_run(result: Result, options: Mapping[str, Any], seconds: float) -> None:
    """Store the duration of a run with these options for later plans, if it was a usual one."""
    from MedGenLib.packages.catalogue import find

    report, preset = result.report, options["preset"]
    try:
        manifest, done = find(report.model), report.parameters
    except PackageError:  # removed during the run, whose result counts all the same
        return
    if report.task == "generate":
        seconds -= report.timings.get("preparing", 0.0)  # mostly the networks' start, whatever the size
    usual = manifest.preset(preset).steps in (None, report.steps)
    # A short run is used only if the model card has no measurement either.
    long_enough = seconds > SHORT_RUN or not manifest.performance
    if usual and long_enough and done.get("memory") == "normal" and done.get("guidance", 1) == 1:
        tries = max(options.get("samples", looks(manifest, options["uncertainty"])), len(report.attempts))
        remember(manifest, result.source.geometry, preset, options["device"], tries, seconds)


@dataclass(frozen=True)
class EditTime:
    """Time of an edit: from earlier edits on this computer, or else from generations with the model.

    Attributes
    ----------
    device: "cpu" or "cuda:0".
    voxels: of all windows that are regenerated.
    """

    manifest: Manifest
    device: str
    voxels: int
    steps: int

    def announce(self, progress: ProgressCallback | None) -> None:
        """Announce the time of a long edit before it."""
        rate = _known_rate(self._key) or _rate(self.manifest, self.device)
        announce_long("this edit", (rate or 0.0) * self._cost, self.device, progress)

    def remember(self, seconds: float) -> None:
        """Store the duration of the edit on this computer for later ones."""
        if seconds > SHORT_RUN:
            _store(self._key, seconds / self._cost)

    @property
    def _cost(self) -> float:
        return self.voxels * (self.steps + STEPS_BESIDE)

    @property
    def _key(self) -> str:
        return f"{_key(self.manifest, self.device)}, edits"


def announce_run(
    manifest: Manifest, geometry: Geometry, options: Mapping[str, Any], samples: int, progress: ProgressCallback | None
) -> None:
    """Announce the time of a long run with these options, as `plan_run` estimates it."""
    if not hasattr(progress, "estimate"):
        return
    steps, usual = options.get("steps"), manifest.preset(options["preset"]).steps
    share = (steps + STEPS_BESIDE) / (usual + STEPS_BESIDE) if steps and usual else 1
    plan = plan_run(manifest, geometry, options["preset"], options["device"], samples * share)
    if plan.seconds is not None and plan.seconds >= LONG_SECONDS:
        announce_time(f"this run: {plan.sentence}", progress)


def announce_long(work: str, seconds: float, device: str, progress: ProgressCallback | None, rest: str = "") -> None:
    """Announce the time of long work; ``rest`` ends the sentence."""
    if seconds >= LONG_SECONDS:
        announce_time(f"{work}: about {duration(max(1.0, seconds))} on {_named(device)}{rest}", progress)


def _rate(manifest: Manifest, device: str) -> float | None:
    return _known_rate(_key(manifest, device)) or _card_rate(manifest, device)


def _store(key: str, rate: float) -> None:
    path, timings = user_folders.cache_dir() / TIMINGS, record(TIMINGS)
    before = timings.get(key)
    timings[key] = rate if before is None else (before + rate) / 2
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, timings)


def _card_rate(manifest: Manifest, device: str) -> float | None:
    """Seconds per unit of cost in the model card, which has measurements on a CPU only."""
    if device.startswith("cuda"):
        return None
    pipeline = pipeline_of(manifest)
    return max((run.seconds / pipeline.measured_cost(run) for run in card_runs(manifest)), default=None)


def _known_rate(key: str) -> float | None:
    rate = record(TIMINGS).get(key)
    return rate if isinstance(rate, int | float) and rate > 0 else None


def _key(manifest: Manifest, device: str) -> str:
    name = "cpu" if device == "auto" else device
    return f"{manifest.name} {manifest.version} on {name}"


def _sentence(seconds: float | None, estimate: Estimate, device: str) -> str:
    name = _named(device)
    time = f"time on {name} not known yet" if seconds is None else f"about {duration(max(1.0, seconds))} on {name}"
    parts = [time, f"{estimate.memory_mib * 2**20 / 1e9:.1f} GB"]
    if estimate.small:
        parts.append("in small windows, as little memory is free")
    elif estimate.windows > 1:
        parts.append(f"in {estimate.windows} windows")
    return ", ".join(parts)


def _named(device: str) -> str:
    return device.upper() if device.startswith("cuda") else "CPU"
