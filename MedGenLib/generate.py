"""Mask -> volume: the main job, readable from top to bottom.

    mask -> model labels -> working grid -> latent flow -> decode -> intensities -> input's grid
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import runtime
from .errors import InputError
from .files import read_label_map
from .labels import MappingReport, Vocabulary, close_body, fill_body, map_labels
from .packages.catalogue import find
from .packages.license import require_acceptance
from .packages.manifest import Manifest
from .progress import ProgressCallback, Stage
from .quality.finding import notes, require_usable
from .quality.input_check import check_gaps, check_mask
from .quality.output_check import check_generated
from .quality.uncertainty import spread
from .report import Attempt, Report
from .result import Result
from .volume import LabelMap, Volume

if TYPE_CHECKING:
    from .sampling import Sampling, Scene


LARGEST_SEED = 2**62


def generate(
    mask: str | Path | LabelMap,
    model: str = "ct-tissue",
    *,
    seed: int | None = None,
    samples: int = 1,
    preset: str = "normal",
    sampler: str | None = None,
    steps: int | None = None,
    device: str = "auto",
    mapping: dict[int | str, int | str] | str | None = None,
    fill: int | str | None = None,
    noise_hu: float | None = None,
    retries: int = 2,
    accept_license: bool = False,
    memory: str = "normal",
    uncertainty: bool = False,
    progress: ProgressCallback | None = None,
) -> Result:
    """Make synthetic volumes that follow a label map.

    Parameters
    ----------
    mask: path or LabelMap, any size, spacing (mm) and orientation.
    model: name of a package for task "generate".
    seed: of the first sample; sample n uses seed + n. None draws one, kept in the report.
        The same seed gives the same voxels on the same device and number of threads.
    samples: how many volumes to make.
    preset: "draft", "normal" or "best": the package's number of steps.
    sampler, steps: override the package's sampler ("euler", "heun", "ddim", "ddpm") and steps.
    device: "auto", "cpu" or "cuda:0".
    mapping: labels of the mask -> labels of the model, by number or name, or a table's name.
    fill: label of the model that voxels without one get inside the body (segmentations of organs
        leave most of the body without a label); None leaves them outside of the body.
    noise_hu: noise of a CT in HU, for models that take it; None is the training scanners' own.
    retries: further seeds to try when a sample fails its checks. What still fails is returned
        and the report says so.
    accept_license: accept the package's licence where it asks for that.
    memory: "normal", or "small" for about a quarter of the networks' memory: smaller windows and
        tiles, more time, and other fine detail than "normal" has from the same seed.
    uncertainty: also give `Result.uncertainty`, the spread of the samples: where it is large, the
        mask did not decide. Two samples are the least, some eight make it smooth.
    progress: called at every step; what it raises stops the run.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: one sentence, nothing was done.

    Examples
    --------
    >>> result = generate("mask.nii.gz", seed=1)              # doctest: +SKIP
    >>> result.volume.unit, result.report.passed              # doctest: +SKIP
    ('HU', True)
    """
    stage = Stage("preparing", 3, progress)
    manifest = _model(model, accept_license)
    plan = manifest.preset(preset)
    runtime.require_memory_plan(memory)
    if seed is None:
        seed = secrets.randbelow(2**31)
    _check_numbers(seed, samples, retries, uncertainty)
    labels, mapped = _labels(mask, manifest, mapping, fill)
    findings = [*notes(labels), *check_mask(labels, manifest)]
    if fill is None and mapped.changed:
        findings += check_gaps(labels, manifest)
    require_usable(findings)
    stage.advance()

    from .sampling import Sampling, prepare, stride

    clock = _Clock()
    place = runtime.pick_device(device)
    scene = prepare(labels, manifest, stride(manifest, place), noise_hu)
    stage.advance()
    sampling = Sampling.of(
        manifest, place, sampler, plan.steps if steps is None else steps, scene, memory
    )
    stage.advance()
    clock.lap("preparing")

    report = Report(
        model=manifest.name,
        version=manifest.version,
        task="generate",
        seed=seed,
        preset=preset,
        sampler=sampling.sampler,
        steps=sampling.steps,
        parameters=_parameters(scene, sampling, mapped, samples, retries, memory),
        software=runtime.software_versions(),
        device=runtime.describe_device(place),
        input_findings=findings + scene.findings,
    )
    volumes = [
        _sample(n, seed + n, retries, sampling, scene, labels, manifest, report, clock, progress)
        for n in range(samples)
    ]
    report.timings = clock.seconds
    report.peak_memory_mib = round(runtime.peak_memory_mib(), 1)
    return Result(volumes, report, labels, spread(volumes) if uncertainty else None)


def _sample(
    number: int,
    seed: int,
    retries: int,
    sampling: Sampling,
    scene: Scene,
    labels: LabelMap,
    manifest: Manifest,
    report: Report,
    clock: _Clock,
    progress: ProgressCallback | None,
) -> Volume:
    """One volume; another seed after a failed check, the last try is kept whatever it is."""
    for attempt in range(retries + 1):
        # Retried seeds are far from the seeds of the other samples.
        chosen = seed + attempt * 1_000_003
        latent = sampling.latent(chosen, progress)
        clock.lap("sampling")
        values = sampling.decode(latent, progress)
        del latent
        stage = Stage("checking", 2, progress)
        volume = scene.finish(values)
        del values
        clock.lap("decoding")
        stage.advance()
        check = check_generated(
            volume, labels, manifest, scene.seams(sampling.borders), scene.own_grid
        )
        stage.advance()
        clock.lap("checking")
        report.attempts.append(Attempt(number, chosen, check))
        if check.passed:
            break
    report.output_checks.append(check)
    return volume


def _check_numbers(seed: int, samples: int, retries: int, uncertainty: bool) -> None:
    if samples < 1:
        raise InputError(f"The number of samples is {samples}; ask for at least 1.")
    if uncertainty and samples < 2:
        raise InputError(
            "The uncertainty is the spread of several samples; ask for at least 2 (--samples 8)."
        )
    if retries < 0:
        raise InputError(f"The number of retries is {retries}; give 0 or more.")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"The seed is {seed}; choose 0 to {LARGEST_SEED}.")


def _model(name: str, accept_license: bool) -> Manifest:
    manifest = find(name)
    manifest.require_task("generate")
    require_acceptance(manifest, accept_license)
    return manifest


def _labels(
    mask: str | Path | LabelMap,
    manifest: Manifest,
    mapping: dict[int | str, int | str] | str | None,
    fill: int | str | None,
) -> tuple[LabelMap, MappingReport]:
    """The mask in the model's labels, the body filled where that is wanted."""
    label_map = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    vocabulary = Vocabulary.from_dict(
        {
            str(value): {"name": label.name, "aliases": label.aliases}
            for value, label in manifest.input.labels.items()
        }
    )
    labels, report = map_labels(label_map, vocabulary, mapping)
    if fill is None:
        return labels, report
    value = vocabulary.value_of(fill)
    if not value:
        raise InputError(f"The model has no label '{fill}' to fill the body with: {vocabulary}.")
    return fill_body(labels, close_body(labels), value), report


def _parameters(
    scene: Scene,
    sampling: Sampling,
    mapped: MappingReport,
    samples: int,
    retries: int,
    memory: str,
) -> dict[str, Any]:
    return {
        "mapping": mapped.mapped,
        "samples": samples,
        "retries": retries,
        "working_spacing_mm": scene.spacing,
        "working_shape": scene.labels.shape,
        **scene.conditions,
        "memory": memory,
        "windows": sampling.window_count,
        "precision": "bfloat16" if sampling.bfloat16 else "float32",
    }


@dataclass
class _Clock:
    """Seconds per stage, summed over samples and attempts."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.last, 3)
        self.last = now
