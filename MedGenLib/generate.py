"""Mask -> volume.

mask -> model labels -> working grid -> latent flow -> decode -> intensities -> input's grid
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from MedGenLib import devices
from MedGenLib.checks.input import check_gaps, check_left_out, check_mask
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes, require_usable
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map
from MedGenLib.labels.mapping import MappingReport
from MedGenLib.metrics.intervals import half_widths, sentence
from MedGenLib.metrics.uncertainty import spread
from MedGenLib.options import GenerateOptions, documented
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import Intervals
from MedGenLib.pipelines.appearance import Appearance
from MedGenLib.pipelines.base import PreparedRun, SamplingOptions, pipeline_of
from MedGenLib.pipelines.empty_grid import wanted_grid
from MedGenLib.pipelines.estimate import announce_run
from MedGenLib.pipelines.model_labels import model_labels
from MedGenLib.pipelines.organ_levels import OrganLevels, OrganRun, organ_levels, require_no_organs
from MedGenLib.progress import ProgressCallback, Stage, Timings, announce
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    OnSample = Callable[[PreparedRun, Any, int], None]

UNCALIBRATED = Finding(
    "warning",
    "interval-organs",
    "The half-widths were measured with masks of tissues; for the HU of organs and phases they were not.",
)


@documented("generate")
def generate(
    mask: str | Path | LabelMap | None = None,
    model: str = "ct-tissue",
    *,
    progress: ProgressCallback | None = None,
    on_sample: OnSample | None = None,
    **options: Unpack[GenerateOptions],
) -> Result:
    """Generate synthetic volumes from a label map.

    The mask may have any size, spacing (mm) and orientation; the volumes lie on its grid.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.
    on_sample: called with the pipeline's run, its sample and the seed of each volume that is kept (see
        `MedGenLib.editing.session`).

    Returns
    -------
    The `Result` has the volumes, the report, and the mask in the model's labels. A sample that fails its checks after
    all retries is returned too; the report states it.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: nothing was computed.

    Notes
    -----
    The same seed gives the same voxels on the same device with the same number of threads. The small memory plan takes
    about a quarter of the networks' memory and gives other fine detail from the same seed. `noise_hu` overrides the
    noise of `style`. The uncertainty of one sample is the half-width of an interval that was measured on people kept
    out of the training, for models that have it. That of several samples is their standard deviation, which is large
    where the mask does not determine the image; about eight samples make it smooth.

    Examples
    --------
    >>> result = generate("mask.nii.gz", seed=1)              # doctest: +SKIP
    >>> result.volume.unit, result.report.passed              # doctest: +SKIP
    ('HU', True)
    """
    stage = Stage("preparing", 3, progress)
    manifest = find(model)
    manifest.require_task("generate")
    require_acceptance(manifest, options["accept_license"])
    manifest.preset(options["preset"])
    samples, retries = options["samples"], options["retries"]
    seed = secrets.randbelow(2**31) if options["seed"] is None else options["seed"]
    intervals = _intervals(manifest, samples) if options["uncertainty"] else None
    labels, mapped, findings, levels = _labels(mask, manifest, options)
    require_usable(findings)
    if intervals is not None:
        findings.append(Finding("warning", "interval", sentence(intervals, manifest.output.unit)))
        findings += [] if levels is None else [UNCALIBRATED]
    look = None if options["style"] is None else Appearance.of(options["style"], manifest)
    if look is not None and options["noise_hu"] is None:
        options["noise_hu"] = look.noise_hu
    stage.advance()

    timings = Timings()
    device = devices.pick_device(options["device"])
    run = pipeline_of(manifest).prepare(labels, device, SamplingOptions.of(options))
    if levels is not None:
        run = OrganRun(run, levels, manifest)
    stage.advance()
    stage.advance()
    timings.lap("preparing")

    report = Report(
        model=manifest.name,
        version=manifest.version,
        task="generate",
        seed=seed,
        preset=options["preset"],
        sampler=run.sampler,
        steps=run.steps,
        parameters={"mapping": mapped.mapped, "samples": samples, "retries": retries, **run.parameters},
        software=devices.software_versions(),
        device=devices.describe_device(device),
        input_findings=findings + run.findings,
    )
    announce((finding.sentence for finding in report.input_findings), progress)
    announce_run(manifest, labels.geometry, options, samples, progress)
    volumes = [
        _sample(run, number, seed + number, retries, labels, manifest, report, timings, progress, on_sample)
        for number in range(samples)
    ]
    if look is not None:
        report.parameters["style"] = asdict(look)
        tissues = labels if levels is None else levels.without_organs(labels)
        volumes = [look.apply(volume, tissues, manifest) for volume in volumes]
    report.seed = report.kept(0).seed
    seeds = [report.kept(number).seed for number in range(samples)]
    if contrasts := {str(seed): found for seed in seeds if (found := run.drawn(seed))}:
        report.parameters["contrast"] = contrasts
    report.timings = timings.seconds
    report.peak_memory_mib = round(devices.peak_memory_mib(), 1)
    uncertain = _uncertainty(volumes, labels, intervals, manifest) if options["uncertainty"] else None
    return Result(volumes, report, labels, uncertain)


def _uncertainty(volumes: list[Volume], labels: LabelMap, intervals: Intervals | None, manifest: Manifest) -> Volume:
    """Standard deviation of several samples, or half-widths of one; 0 where nothing was generated."""
    if intervals is None:
        return spread(volumes)
    found = half_widths(volumes[0], intervals)
    if manifest.settings.outside == "background":
        found.array[labels.array == 0] = 0
    return found


def _intervals(manifest: Manifest, samples: int) -> Intervals | None:
    """Those of a single sample; several have a standard deviation. InputError for a model without them."""
    if samples > 1:
        return None
    if manifest.statistics.intervals is None:
        raise InputError(
            f"The uncertainty of the model '{manifest.name}' is the standard deviation of several samples; request at "
            "least 2 (--samples 8)."
        )
    return manifest.statistics.intervals


def _labels(
    mask: str | Path | LabelMap | None, manifest: Manifest, options: Mapping[str, Any]
) -> tuple[LabelMap, MappingReport, list[Finding], OrganLevels | None]:
    """The mask in the model's labels, or an empty grid for a model without a mask, the findings, and the organs."""
    if options["label"] is not None and manifest.settings.grid is None:
        raise InputError(f"The model '{manifest.name}' has no classes; leave the label out.")
    grid = wanted_grid(mask, options["size"], options["spacing"], manifest)
    if grid is not None:
        require_no_organs(manifest, options)
        return grid, MappingReport({}, []), [], None
    fill = options["fill"]
    mask = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    labels, mapped, findings = model_labels(mask, manifest, options["mapping"], fill, options["body_from"])
    findings += [*notes(labels), *check_left_out(mapped, manifest), *check_mask(labels, manifest)]
    if fill is None:
        findings += check_gaps(labels, manifest)
    require_usable(findings)
    labels, levels = organ_levels(mask, labels, mapped, manifest, options)
    return labels, mapped, findings, levels


def _sample(
    run: PreparedRun,
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
    """One volume; after a failed check the next seed is tried, and if all fail, the first try is kept.

    So the seed of the kept try, given to the same command, gives the same volume.
    """
    for attempt in range(retries + 1):
        # Seeds of retries are far from those of the other samples.
        chosen = seed + attempt * 1_000_003
        sampled = run.sample(chosen, progress)
        devices.release_memory()  # otherwise it adds to the following peak
        timings.lap("sampling")
        values = run.decode(sampled, progress)
        sampled = sampled if on_sample is not None else None
        devices.release_memory()
        stage = Stage("checking", 2, progress)
        volume = run.finish(values)
        del values
        timings.lap("decoding")
        stage.advance()
        person = run.person(chosen) if isinstance(run, OrganRun) else None
        check = check_generated(volume, labels, manifest, run.seams, run.own_grid, person)
        stage.advance()
        timings.lap("checking")
        report.attempts.append(Attempt(number, chosen, check))
        if attempt == 0 or check.passed:
            kept = volume, check, sampled, chosen
        if check.passed or not check.depends_on_seed:
            break
    volume, check, sampled, chosen = kept
    if on_sample is not None:
        on_sample(run, sampled, chosen)
    report.output_checks.append(check)
    return volume
