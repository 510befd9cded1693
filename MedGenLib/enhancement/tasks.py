"""The tasks of `enhance`: each makes a result of the stacks and the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib import devices
from MedGenLib.enhancement import fusion, measures, stacks
from MedGenLib.enhancement.restoring import restored
from MedGenLib.errors import InputError, MemoryPlanError, PackageError
from MedGenLib.findings import Finding, OutputCheck, notes
from MedGenLib.imaging.modality import PICTURE, modality_family, same_modality
from MedGenLib.imaging.volume import Volume
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import ProgressCallback, Stage, Timings
from MedGenLib.report import Report
from MedGenLib.result import Result

BYTES_PER_VOXEL = 60
"""Peak memory of a run by voxel of the result, with tiles of the normal plan."""
TILE_MIB = {"normal": 1200, "small": 200}
QUIET = 0.01
"""Noise below this share of the range of an image is not worth removing."""
LOUD = 0.1
"""Noise above this share of the range is more than scanners show."""
METHODS = {"denoise": "non-local means (scikit-image)", "debias": "N4 (SimpleITK)", "deghost": "entropy of gradients"}
"""What makes the result of a task without a network."""
INCONSISTENT = 0.02
"""Largest difference of the slices of a result from those of the input, as a share of their range."""


def superres(given: Sequence[Volume], options: Mapping[str, Any], progress: ProgressCallback | None) -> Result:
    """One to three stacks of thick slices -> a volume of cubic voxels."""
    timings, stage = Timings(), Stage("preparing", 2 + len(given), progress)
    first, grid = given[0], stacks.fine_grid(given, options["spacing"])
    manifest = _model(first, options)
    memory = _memory(int(np.prod(grid.shape)), options)
    if options["register"]:
        given = [first, *(stacks.registered(volume, first) for volume in given[1:])]
    stage.advance()
    values, fits = [], []
    for volume in given:
        array, fit = stacks.fitted(volume, grid, options["thickness"])
        values.append(array)
        fits.append(fit)
        stage.advance()
    thick = stacks.thick_axes(fits, values, grid)
    values = stacks.matched(values, fits, first.modality == "CT")
    fine = fusion.fuse(values, fits)
    stage.advance()
    timings.lap("preparing")
    device = devices.pick_device(options["device"])
    fine = restored(fine, grid, thick, 0.0, len(fits), manifest, device, memory, progress)
    timings.lap("restoring")
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    made = fusion.consistent(fine, values, fits, (low, high))
    shares = measures.consistency(made, values, fits)
    timings.lap("agreeing")
    check = OutputCheck(figures={"consistency": shares})
    if max(shares) > INCONSISTENT:
        check.fail(
            "consistency",
            f"The slices of the result differ from those of the input by {max(shares):.1%} of their range; the stacks "
            "may lie wrongly to each other: align them (command line: --register, Python: register=True), or leave one "
            "out.",
        )
    findings = _findings(given, manifest, thick)
    volume = Volume(_typed(made, first), grid.affine, first.modality, first.unit)
    facts = {"thick slices": [round(ratio, 3) for ratio in thick], "consistency": [round(share, 6) for share in shares]}
    return _result(volume, first, options, manifest, device, timings, findings, check, facts)


def denoise(given: Sequence[Volume], options: Mapping[str, Any], progress: ProgressCallback | None) -> Result:
    """An image -> the same with less noise, on its grid."""
    timings, source = Timings(), given[0]
    manifest = None if source.modality == PICTURE else _model(source, options)
    memory = _memory(source.array.size, options)
    noise = options["noise"] or measures.noise_of(source.array)
    timings.lap("preparing")
    device = devices.pick_device(options["device"]) if manifest else None
    findings = _findings(given, manifest, (1.0, 1.0, 1.0)) if manifest else notes(source)
    span = float(np.subtract(*np.percentile(source.array, [99.5, 0.5])))
    if noise < QUIET * span:
        findings.append(
            Finding(
                "warning",
                "quiet",
                f"The noise of the image is {noise:.3g} {source.unit}, so that there is little to remove; compare the "
                "result with the image.",
            )
        )
    if options["noise"] is None and noise > LOUD * span:
        sentence = (
            f"The noise that was measured, {noise:.3g} {source.unit}, is {noise / span:.0%} of the range of the image "
            "and may be fine structure; state the noise (command line: --noise, Python: noise=) if you know it."
        )
        findings.append(Finding("warning", "loud", sentence))
    if manifest is None:
        made = _quieter(source.array, max(noise, 1e-6))
    else:
        args = (source.geometry, (1.0, 1.0, 1.0), noise, 0, manifest, device, memory, progress)
        made = restored(source.array, *args)
    made = source.array + np.float32(options["strength"]) * (made - source.array)
    timings.lap("restoring")
    made = made.clip(float(source.array.min()), float(source.array.max()))
    removed = source.array - made
    figures = {"noise": noise, "removed": float(removed.std()), "mean change": float(-removed.mean())}
    volume = source.with_array(_typed(made, source))
    facts = {name: float(f"{value:.4g}") for name, value in figures.items()}
    return _result(volume, source, options, manifest, device, timings, findings, OutputCheck(figures=figures), facts)


def _quieter(picture: NDArray, noise: float) -> NDArray[np.float32]:
    """A single slice by non-local means (Buades et al. 2005, doi:10.1109/CVPR.2005.38)."""
    from skimage.restoration import denoise_nl_means

    made = denoise_nl_means(np.squeeze(picture), patch_size=5, patch_distance=6, h=0.8 * noise, sigma=noise)
    return made.reshape(picture.shape).astype(np.float32)


def debias(given: Sequence[Volume], options: Mapping[str, Any], progress: ProgressCallback | None) -> Result:
    """An MR image -> the same with even brightness, on its grid."""
    from MedGenLib.enhancement.bias import field_of

    timings, source = Timings(), given[0]
    field = field_of(source, progress) ** np.float32(options["strength"])
    made = source.array / field
    timings.lap("restoring")
    low, high = np.percentile(field, [1, 99])
    facts = {measures.BRIGHTNESS: float(f"{high / low:.4g}")}
    volume = source.with_array(_typed(made, source))
    return _result(volume, source, options, None, None, timings, notes(source), OutputCheck(figures=facts), facts)


def deghost(given: Sequence[Volume], options: Mapping[str, Any], progress: ProgressCallback | None) -> Result:
    """An MR image -> the same without periodic ghosts, on its grid; unchanged where none are found."""
    from MedGenLib.enhancement import ghosts

    timings, source = Timings(), given[0]
    if source.array.min() < 0:
        raise InputError("The image has negative values, but ghosts are removed from magnitudes; give those.")
    _memory(source.array.size, options)
    timings.lap("preparing")
    found, findings, check = ghosts.found(source.array, progress), notes(source), OutputCheck()
    made, facts = source.array, {"ghosts": None}
    if found is None:
        findings.append(Finding("warning", "no-ghosts", ghosts.NOT_FOUND))
    else:
        made = found.removed(source.array, ghosts.ROUNDS["result"])
        share = measures.share_of_range(found.spoiled(made), source.array, source.array)
        facts = {"ghosts": found.to_dict(source), "consistency": [round(share, 6)]}
        if share > INCONSISTENT:
            check.fail("consistency", ghosts.DOUBTFUL.format(share=share))
        made = source.array + np.float32(options["strength"]) * (made - source.array)
    check.figures = dict(facts)
    timings.lap("restoring")
    volume = source.with_array(_typed(made, source))
    return _result(volume, source, options, None, None, timings, findings, check, facts)


TASKS: dict[str, Callable[[Sequence[Volume], Mapping[str, Any], ProgressCallback | None], Result]] = {
    "superres": superres,
    "denoise": denoise,
    "debias": debias,
    "deghost": deghost,
}


def model_for(modality: str, manifests: Sequence[Manifest]) -> Manifest:
    """The first package that restores images of a modality; another contrast of MR if there is no better one."""
    known = [manifest for manifest in manifests if manifest.task == "enhance"]
    for fits in (same_modality, lambda a, b: modality_family(a) == modality_family(b)):
        for manifest in known:
            if fits(modality, manifest.input.modality):
                return manifest
    raise PackageError(f"No installed model restores {modality} images; install one with `medgen models install`.")


def _model(volume: Volume, options: Mapping[str, Any]) -> Manifest:
    name = options["model"]
    manifest = find(name) if name else model_for(volume.modality, catalogue())
    manifest.require_task("enhance")
    if modality_family(manifest.input.modality) != modality_family(volume.modality):
        raise PackageError(
            f"The model '{manifest.name}' restores {manifest.input.modality} images, but this one is "
            f"{volume.modality}; choose another model, or none."
        )
    require_acceptance(manifest, options["accept_license"])
    return manifest


def _memory(voxels: int, options: Mapping[str, Any]) -> str:
    """The memory plan; MemoryPlanError where even the small one does not fit."""
    free = devices.free_memory() / 2**20
    for plan in ("normal", "small") if options["memory"] == "auto" else (options["memory"],):
        if voxels * BYTES_PER_VOXEL / 2**20 + TILE_MIB[plan] < free:
            return plan
    needed = (voxels * BYTES_PER_VOXEL / 2**20 + TILE_MIB["small"]) / 1024
    raise MemoryPlanError(
        f"A result of {voxels / 1e6:.0f} million voxels needs {needed:.1f} GiB, but {free / 1024:.1f} GiB are free; "
        "give a larger spacing, crop the image or close other programs."
    )


def _findings(given: Sequence[Volume], manifest: Manifest, thick: Sequence[float]) -> list[Finding]:
    found = [note for volume in given for note in notes(volume)]
    trained = manifest.input.modality
    if not same_modality(given[0].modality, trained):
        sentence = f"The model was trained on {trained} images; compare its {given[0].modality} images with the input."
        found.append(Finding("warning", "contrast", sentence))
    if max(thick) > manifest.settings.thickest:
        sentence = (
            f"The slices are {max(thick):.2g} voxels of the result thick, more than the {manifest.settings.thickest:g} "
            "of the training; what lies between them is hardly more than interpolated."
        )
        found.append(Finding("warning", "thickness", sentence))
    return found


def _typed(values: NDArray, source: Volume) -> NDArray:
    """Whole numbers for a CT, as scanners store it."""
    return np.rint(values).astype(np.int16) if source.modality == "CT" else values.astype(np.float32)


def _result(
    volume: Volume,
    source: Volume,
    options: Mapping[str, Any],
    manifest: Manifest | None,
    device: Any,
    timings: Timings,
    findings: list[Finding],
    check: OutputCheck,
    facts: Mapping[str, Any],
) -> Result:
    report = Report(
        model=manifest.name if manifest else METHODS[options["task"]],
        version=manifest.version if manifest else "",
        task="enhance",
        parameters={"task": options["task"], **facts},
        software=devices.software_versions(),
        device=devices.describe_device(device) if device is not None else "CPU",
        timings=timings.seconds,
        peak_memory_mib=round(devices.peak_memory_mib(), 1),
        input_findings=findings,
        output_checks=[check],
    )
    return Result([volume], report, source)
