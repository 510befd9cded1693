"""Mask -> volume: the main job, readable from top to bottom.

mask -> model labels -> working grid -> latent flow -> decode -> intensities -> input's grid
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib import devices
from MedGenLib.checks.input import check_gaps, check_left_out, check_mask
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes, require_usable
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.labels.mapping import MappingReport
from MedGenLib.metrics.uncertainty import spread
from MedGenLib.options import LARGEST_SEED
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.appearance import Style
from MedGenLib.pipelines.base import Run, SamplingOptions, pipeline_of
from MedGenLib.pipelines.empty_grid import wanted_grid
from MedGenLib.pipelines.model_labels import model_labels
from MedGenLib.progress import ProgressCallback, Stage, Timings
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    OnSample = Callable[[Run, Any, int], None]


def generate(
    mask: str | Path | LabelMap | None = None,
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
    body_from: str | Path | Volume | None = None,
    any_grid: bool = False,
    size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    modality: str | None = None,
    noise_hu: float | None = None,
    guidance: float | None = None,
    classifier_guidance: float = 0.0,
    style: str | Path | Volume | None = None,
    retries: int = 2,
    accept_license: bool = False,
    memory: str = "auto",
    uncertainty: bool = False,
    progress: ProgressCallback | None = None,
    on_sample: OnSample | None = None,
) -> Result:
    """Make synthetic volumes that follow a label map.

    Parameters
    ----------
    mask: path or LabelMap, any size, spacing (mm) and orientation. Models that make an image of
        nothing (NV-Generate's for MR) take only its grid, or none and `size` instead.
    model: name of a package for task "generate".
    seed: of the first sample; sample n uses seed + n. None draws one, kept in the report.
        The same seed gives the same voxels on the same device and number of threads.
    samples: how many volumes to make.
    preset: "draft", "normal" or "best": the package's number of steps. A draft by a student
        network has the steps of "normal" where a sampler or guidance wants the main network.
    sampler, steps: override the package's sampler ("euler", "heun", "midpoint", "ddim",
        "ddpm") and steps.
    device: "auto", "cpu" or "cuda:0".
    mapping: labels of the mask -> labels of the model, by number or name, or a table's name.
    fill: label of the model that voxels without one get inside the body (segmentations of organs
        leave most of the body without a label); None leaves them outside of the body, or takes
        the model's own label for the rest of the body where it has one.
    body_from: image of the same patient whose outline is the body's; None closes it from the mask.
    any_grid: models trained on a few sizes (NV-Generate) work on the mask's own size, in whole
        strides: quicker for a small mask, possible for a large one, less sure.
    size, spacing: for models without a mask, voxels and mm from left to right, back to front and
        foot to head.
    modality: what a model that makes several shall make, such as "T2w" or "FLAIR skull-stripped".
    noise_hu: noise of a CT in HU, for models that take it; None is the training scanners' own.
    guidance: weight w of classifier-free guidance, ``v_un + w (v_cond - v_un)`` at every step for
        twice the time: 1 is none, more exaggerates what the mask says. None is the model's own.
    classifier_guidance: weight of the gradient of the package's classifier, which moves every step
        towards the mask's labels; 0 is none.
    style: a real volume whose look the samples get: noise and tissue levels of a CT, contrast of
        an MR image (see `MedGenLib.pipelines.appearance`); `noise_hu` goes before its noise.
    retries: further seeds to try when a sample fails its checks. What still fails is returned
        and the report says so.
    accept_license: accept the package's licence where it asks for that.
    memory: "normal", or "small" for about a quarter of the networks' memory: smaller windows and
        tiles, more time, and other fine detail than "normal" has from the same seed. "auto" takes
        the first of them that fits into the memory which is free; the report tells which.
    uncertainty: also give `Result.uncertainty`, the spread of the samples: where it is large, the
        mask did not decide. Two samples are the least, some eight make it smooth.
    progress: called at every step; what it raises stops the run.
    on_sample: called with the run of the pipeline, what it sampled and the seed of every try, the last of which is
        kept (see `MedGenLib.editing.session`).

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
    manifest = find(model)
    manifest.require_task("generate")
    require_acceptance(manifest, accept_license)
    manifest.preset(preset)
    devices.require_memory_plan(memory)
    seed = secrets.randbelow(2**31) if seed is None else seed
    _check_numbers(seed, samples, retries, uncertainty)
    labels, mapped, findings = _labels(mask, manifest, size, spacing, mapping, fill, body_from)
    require_usable(findings)
    look = None if style is None else Style.of(style, manifest)
    stage.advance()

    timings = Timings()
    options = SamplingOptions(
        preset=preset,
        sampler=sampler,
        steps=steps,
        memory=memory,
        any_grid=any_grid,
        modality=modality,
        noise_hu=look.noise_hu if look is not None and noise_hu is None else noise_hu,
        guidance=guidance,
        classifier_guidance=classifier_guidance,
    )
    place = devices.pick_device(device)
    run = pipeline_of(manifest).prepare(labels, place, options)
    stage.advance()
    stage.advance()
    timings.lap("preparing")

    report = Report(
        model=manifest.name,
        version=manifest.version,
        task="generate",
        seed=seed,
        preset=preset,
        sampler=run.sampler,
        steps=run.steps,
        parameters={"mapping": mapped.mapped, "samples": samples, "retries": retries, **run.parameters},
        software=devices.software_versions(),
        device=devices.describe_device(place),
        input_findings=findings + run.findings,
    )
    volumes = [
        _sample(run, number, seed + number, retries, labels, manifest, report, timings, progress, on_sample)
        for number in range(samples)
    ]
    if look is not None:
        report.parameters["style"] = asdict(look)
        volumes = [look.apply(volume, labels, manifest) for volume in volumes]
    report.timings = timings.seconds
    report.peak_memory_mib = round(devices.peak_memory_mib(), 1)
    return Result(volumes, report, labels, spread(volumes) if uncertainty else None)


def _labels(
    mask: str | Path | LabelMap | None,
    manifest: Manifest,
    size: Sequence[int] | None,
    spacing: Sequence[float] | None,
    mapping: dict[int | str, int | str] | str | None,
    fill: int | str | None,
    body_from: str | Path | Volume | None,
) -> tuple[LabelMap, MappingReport, list[Finding]]:
    """The mask in the model's labels, or an empty grid for a model without a mask, and what was found in it."""
    grid = wanted_grid(mask, size, spacing, manifest)
    if grid is not None:
        return grid, MappingReport({}, []), []
    labels, mapped, findings = model_labels(mask, manifest, mapping, fill, body_from)
    findings += [*notes(labels), *check_left_out(mapped, manifest), *check_mask(labels, manifest)]
    if fill is None and mapped.changed:
        findings += check_gaps(labels, manifest)
    return labels, mapped, findings


def _sample(
    run: Run,
    number: int,
    seed: int,
    retries: int,
    labels: LabelMap,
    manifest: Manifest,
    report: Report,
    timings: Timings,
    progress: ProgressCallback | None,
    on_sample: OnSample | None,
) -> Volume:
    """One volume; after a failed check another seed is tried, and the last try is kept."""
    for attempt in range(retries + 1):
        # Retried seeds are far from the seeds of the other samples.
        chosen = seed + attempt * 1_000_003
        sampled = run.sample(chosen, progress)
        devices.release_memory()  # otherwise it adds to the peak of what follows
        timings.lap("sampling")
        values = run.decode(sampled, progress)
        if on_sample is not None:
            on_sample(run, sampled, chosen)
        del sampled
        devices.release_memory()
        stage = Stage("checking", 2, progress)
        volume = run.finish(values)
        del values
        timings.lap("decoding")
        stage.advance()
        check = check_generated(volume, labels, manifest, run.seams, run.own_grid)
        stage.advance()
        timings.lap("checking")
        report.attempts.append(Attempt(number, chosen, check))
        if check.passed:
            break
    report.output_checks.append(check)
    return volume


def _check_numbers(seed: int, samples: int, retries: int, uncertainty: bool) -> None:
    if samples < 1:
        raise InputError(f"The number of samples is {samples}; ask for at least 1.")
    if uncertainty and samples < 2:
        raise InputError("The uncertainty is the spread of several samples; ask for at least 2 (--samples 8).")
    if retries < 0:
        raise InputError(f"The number of retries is {retries}; give 0 or more.")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"The seed is {seed}; choose 0 to {LARGEST_SEED}.")
