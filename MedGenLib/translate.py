"""CT <-> MR translation, readable from top to bottom.

image -> head mask -> LPS grid -> slices in up to three planes -> weighted mean -> input's grid
"""

from __future__ import annotations

from pathlib import Path

from MedGenLib import devices
from MedGenLib.checks.input import check_image
from MedGenLib.checks.output import check_translated
from MedGenLib.errors import InputError
from MedGenLib.findings import notes, require_usable
from MedGenLib.imaging.modality import modality_of, same_modality
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume
from MedGenLib.packages.catalogue import find, for_translation
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.base import SamplingOptions, pipeline_of
from MedGenLib.progress import ProgressCallback, Stage, Timings
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result


def translate(
    image: str | Path | Volume,
    to: str,
    *,
    model: str | None = None,
    seed: int | None = None,
    preset: str = "normal",
    device: str = "auto",
    accept_license: bool = False,
    memory: str = "auto",
    uncertainty: bool = False,
    series: str | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """Translate a CT into an MR image or the reverse.

    Parameters
    ----------
    image: path (file or DICOM folder) or Volume, any size, spacing (mm) and orientation.
        Thick slices and single slices are translated in the plane they were acquired in.
    to: modality wanted, "CT" or "T1w".
    model: name of a package; None takes the one that fits.
    seed: kept in the report; translation draws nothing at random.
    preset: "draft" uses one plane, "normal" up to three, "best" averages mirrored passes too.
    device, accept_license, progress: as in `generate`.
    memory: "normal", or "small" for a quarter of the slices at once: more time, the same image up
        to rounding. "auto" takes the first of them that fits into the memory which is free.
    uncertainty: also give `Result.uncertainty`, how much the views of a voxel differ: the planes,
        each plain and mirrored (sagittal ones plain and shifted). It tells where the image may be
        wrong, not by how much: the error is several times as large. The image stays the same;
        without mirrored passes of its own it takes twice the time.
    series: UID of the series to read from a DICOM folder that holds several.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: one sentence, nothing was done.

    Examples
    --------
    >>> result = translate("t1.nii.gz", to="CT", accept_license=True)   # doctest: +SKIP
    >>> result.volume.unit                                              # doctest: +SKIP
    'HU'
    """
    stage, timings = Stage("preparing", 3, progress), Timings()
    devices.require_memory_plan(memory)
    volume = image if isinstance(image, Volume) else read_volume(image, series=series)
    manifest = _model(volume, to, model)
    require_acceptance(manifest, accept_license)
    manifest.preset(preset)
    findings = [*notes(volume), *check_image(volume, manifest)]
    require_usable(findings)
    stage.advance()

    place = devices.pick_device(device)
    stage.advance()
    options = SamplingOptions(preset=preset, memory=memory, uncertainty=uncertainty)
    run = pipeline_of(manifest).prepare(volume, place, options)
    stage.advance()
    timings.lap("preparing")
    sampled = run.sample(seed, progress)
    translated = run.finish(run.decode(sampled, progress))
    spread = run.uncertainty(sampled)
    timings.lap("translating")
    stage = Stage("checking", 1, progress)
    check = check_translated(translated, volume, manifest)
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
        device=devices.describe_device(place),
        timings=timings.seconds,
        peak_memory_mib=round(devices.peak_memory_mib(), 1),
        input_findings=findings + run.findings,
        output_checks=[check],
        attempts=[Attempt(0, seed, check)],
    )
    return Result([translated], report, volume, spread)


def _model(volume: Volume, to: str, name: str | None) -> Manifest:
    if name is None:
        return for_translation(modality_of(volume), to)
    manifest = find(name)
    manifest.require_task("translate")
    if not same_modality(to, manifest.output.modality):
        raise InputError(
            f"The model '{name}' makes {manifest.output.modality}, not {to}; "
            f"ask for {manifest.output.modality} or choose another model."
        )
    return manifest
