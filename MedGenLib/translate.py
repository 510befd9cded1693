"""CT <-> MR translation.

image -> head mask -> LPS grid -> slices in up to three planes -> fused planes -> input's grid
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from MedGenLib import devices
from MedGenLib.checks.input import check_image
from MedGenLib.checks.output import check_series, check_translated
from MedGenLib.errors import InputError, PackageError
from MedGenLib.findings import Finding, notes, require_usable
from MedGenLib.imaging.modality import MR_MODALITIES, modality_of, same_modality
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.intervals import half_widths, sentence
from MedGenLib.options import TranslateOptions, documented
from MedGenLib.packages.catalogue import find, for_translation
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.base import SamplingOptions, TranslationRun, pipeline_of
from MedGenLib.pipelines.estimate import announce_run
from MedGenLib.progress import ProgressCallback, Stage, Timings, announce
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result


@documented("translate")
def translate(
    image: str | Path | Volume,
    to: str | None = None,
    *,
    progress: ProgressCallback | None = None,
    **options: Unpack[TranslateOptions],
) -> Result:
    """Translate a CT into an MR image or the reverse, or an image into a series over time.

    The image may have any size, spacing (mm) and orientation; the result lies on its grid. Thick slices and single
    slices are translated in the plane they were acquired in.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: nothing was computed.

    Notes
    -----
    A model of series (`medgen train --recipe sequence`) gives its frames as volumes, of which the first is the image.
    Translation is deterministic; the seed is only recorded. The preset "normal" uses up to three planes, of heads with
    slices up to 2 mm apart (3 mm: "draft", which for other parts uses one plane); "best" uses every slice and averages
    mirrored passes. A slab of a few centimeters is translated in its widest plane only. The small memory plan processes
    a quarter of the slices at once with the same result up to rounding.
    The uncertainty is the half-width of an interval that was measured on people kept out of the training; for models
    without one it is the deviation of the views, of which the error is several times as large.

    Examples
    --------
    >>> result = translate("t1.nii.gz", to="CT", accept_license=True)   # doctest: +SKIP
    >>> result.volume.unit                                              # doctest: +SKIP
    'HU'
    """
    stage, timings = Stage("preparing", 3, progress), Timings()
    seed, preset = options["seed"], options["preset"]
    volume = image if isinstance(image, Volume) else read_volume(image, series=options["series"])
    manifest = _model(volume, to, options["model"])
    require_acceptance(manifest, options["accept_license"])
    manifest.preset(preset)
    findings = [*notes(volume), *check_image(volume, manifest)]
    require_usable(findings)
    stage.advance()

    device = devices.pick_device(options["device"])
    stage.advance()
    intervals = manifest.statistics.intervals if options["uncertainty"] else None
    # Measured intervals need no second view of each slice.
    chosen = {**options, "uncertainty": options["uncertainty"] and intervals is None}
    run: TranslationRun = pipeline_of(manifest).prepare(volume, device, SamplingOptions.of(chosen))
    stage.advance()
    timings.lap("preparing")
    if intervals is not None:
        findings.append(Finding("warning", "interval", sentence(intervals, manifest.output.unit)))
    announce((finding.sentence for finding in findings + run.findings), progress)
    announce_run(manifest, volume.geometry, chosen, 1, progress)
    sampled = run.sample(seed, progress)
    made = run.finish(run.decode(sampled, progress))
    volumes = made if isinstance(made, list) else [made]
    series = manifest.task == "sequence"
    spread = None if series else run.uncertainty(sampled) if intervals is None else half_widths(made, intervals)
    timings.lap("translating")
    stage = Stage("checking", 1, progress)
    check = check_series(volumes, run.least_jacobian) if series else check_translated(made, volume, manifest)
    stage.advance()
    timings.lap("checking")
    report = Report(
        model=manifest.name,
        version=manifest.version,
        task="translate",
        seed=seed,
        preset=preset,
        parameters=run.parameters,
        software=devices.software_versions(),
        device=devices.describe_device(device),
        timings=timings.seconds,
        peak_memory_mib=round(devices.peak_memory_mib(), 1),
        input_findings=findings + run.findings,
        output_checks=[check],
        attempts=[Attempt(0, seed, check)],
    )
    return Result(volumes, report, volume, spread)


def _fitting(volume: Volume, to: str | None) -> Manifest:
    """The first model that translates such an image; the sentence of a refusal states where the modality is from."""
    source = modality_of(volume)
    try:
        return for_translation(source, to)
    except PackageError as error:
        if volume.modality in MR_MODALITIES:
            raise PackageError(
                f"{error} If the image is not {source}, state it (command line: --modality MR, Python: "
                "read_volume(..., modality=...))."
            ) from None
        if volume.modality is not None or source is None:
            raise
        raise PackageError(
            f"By its values the image looks like {source}. {error} If it is another modality, state it (command line: "
            "--modality, Python: read_volume(..., modality=...))."
        ) from None


def _model(volume: Volume, to: str | None, name: str | None) -> Manifest:
    if name is None:
        return _fitting(volume, to)
    manifest = find(name)
    if manifest.task != "sequence":
        manifest.require_task("translate")
    if to is not None and not same_modality(to, manifest.output.modality):
        raise InputError(
            f"The model '{name}' makes {manifest.output.modality}, not {to}; "
            f"request {manifest.output.modality} or choose another model."
        )
    return manifest
