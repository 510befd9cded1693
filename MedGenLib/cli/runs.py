"""`medgen generate` and `medgen translate`: check the places, run, write everything or nothing."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.console import Console
from MedGenLib.files import check_output_path, read_label_map, read_volume, write_volume
from MedGenLib.labels import parse_mapping
from MedGenLib.outputs import Outputs, numbered
from MedGenLib.packages.catalogue import find, for_translation
from MedGenLib.packages.license import is_accepted, license_notice, require_acceptance
from MedGenLib.packages.manifest import Manifest

if TYPE_CHECKING:
    from MedGenLib.report import Report
    from MedGenLib.result import Result
    from MedGenLib.volume import LabelMap, Volume

BYTES_PER_VOXEL = 4
"""Volumes are written as 32-bit numbers at most; compressed ones are smaller."""


def generate(arguments: Namespace, console: Console) -> int:
    """Mask -> one or more volumes."""
    volumes = numbered(arguments.output, arguments.samples)
    with _outputs(arguments, volumes, arguments.mask) as outputs:
        notice = _first_acceptance(find(arguments.model), arguments.accept_license)
        mask = read_label_map(arguments.mask)
        _require_space(outputs, mask, arguments.samples)

        from MedGenLib import generate as generate_volumes  # imports torch

        result = generate_volumes(
            mask,
            arguments.model,
            seed=arguments.seed,
            samples=arguments.samples,
            preset=arguments.preset,
            sampler=arguments.sampler,
            steps=arguments.steps,
            device=arguments.device,
            mapping=parse_mapping(arguments.mapping),
            fill=arguments.fill,
            noise_hu=arguments.noise,
            accept_license=arguments.accept_license,
            memory=arguments.memory,
            progress=console,
        )
        write_result(result, outputs, volumes, arguments.preview, arguments.report)
        outputs.commit()
    describe(result, outputs, notice, console)
    return 0


def translate(arguments: Namespace, console: Console) -> int:
    """Image of one modality -> image of another."""
    volumes = [arguments.output]
    with _outputs(arguments, volumes, arguments.image) as outputs:
        model = arguments.model
        manifest = find(model) if model else for_translation(None, arguments.to)
        notice = _first_acceptance(manifest, arguments.accept_license)
        image = read_volume(arguments.image, series=arguments.series)
        _require_space(outputs, image, 1)

        from MedGenLib import translate as translate_volume  # imports torch

        result = translate_volume(
            image,
            arguments.to,
            model=model,
            seed=arguments.seed,
            preset=arguments.preset,
            device=arguments.device,
            accept_license=arguments.accept_license,
            memory=arguments.memory,
            progress=console,
        )
        write_result(result, outputs, volumes, arguments.preview, arguments.report)
        outputs.commit()
    describe(result, outputs, notice, console)
    return 0


def write_result(
    result: Result,
    outputs: Outputs,
    volumes: list[Path],
    preview: Path | None,
    report: Path | None,
) -> None:
    """Writes volumes, previews (one a volume) and report to their staged names."""
    for volume, path in zip(result.volumes, volumes, strict=True):
        write_volume(volume, outputs.staged(path))
    if preview is not None:
        from MedGenLib import pictures

        for volume, path in zip(result.volumes, numbered(preview, len(volumes)), strict=True):
            pictures.preview(result.source, volume, outputs.staged(path), title=result.report.model)
    if report is not None:
        result.report.write(outputs.staged(report))


def describe(result: Result, outputs: Outputs, notes: list[str], console: Console) -> None:
    """Tells what was written, what was assumed and what the checks found."""
    volume, report = result.volume, result.report
    for sentence in notes:
        console.note(sentence)
    size = " x ".join(map(str, volume.shape))
    spacing = " x ".join(f"{length:.3g}" for length in volume.spacing)
    seed = "" if report.seed is None else f", seed {report.seed}"
    console.say(
        f"{volume.modality} in {volume.unit}, {size} voxels of {spacing} mm, "
        f"made with {report.model} {report.version}{seed}."
    )
    for path in outputs.paths:
        console.say(f"Wrote {path}")
    console.detail(f"device: {report.device}; peak memory {report.peak_memory_mib:.0f} MiB")
    for stage, seconds in report.timings.items():
        console.detail(f"{stage}: {seconds:.1f} s")
    warn(report, console)


def warn(report: Report, console: Console) -> None:
    """Tells on stderr what the checks of input and output found."""
    for sentence in report.sentences:
        console.note(f"warning: {sentence}")
    if not report.passed:
        tried = len(report.attempts)
        console.note(f"warning: the checks failed, see the report; attempts made: {tried}.")


def _outputs(arguments: Namespace, volumes: list[Path], source: Path) -> Outputs:
    """All files of the run, their places checked before anything else is done."""
    paths = [check_output_path(path) for path in volumes]
    if arguments.preview is not None:
        previews = numbered(arguments.preview, len(volumes))
        paths += [check_output_path(path, (".png",)) for path in previews]
    if arguments.report is not None:
        paths.append(check_output_path(arguments.report, (".json",)))
    return Outputs(paths, overwrite=arguments.overwrite, keep=[source])


def _first_acceptance(manifest: Manifest, accept: bool) -> list[str]:
    """What to tell the user when this run is the first to accept the model's licence.

    Asked first, as nobody should wait for a run that may not start; told last, as a run that is
    refused for another reason has one sentence only.
    """
    if is_accepted(manifest):
        return []
    if not accept:
        require_acceptance(manifest, accept=False)  # raises the sentence that asks for it
    return [f"{license_notice(manifest)} You have accepted this; it is remembered."]


def _require_space(outputs: Outputs, source: Volume | LabelMap, samples: int) -> None:
    outputs.require_space(source.array.size * samples * BYTES_PER_VOXEL)
