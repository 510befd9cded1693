"""`medgen generate` and `medgen translate`: check the places, run, write everything or nothing."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.io.files import check_output_path, read_label_map, read_volume, write_volume
from MedGenLib.io.outputs import Outputs, numbered
from MedGenLib.io.provenance import Provenance, Source, sidecar
from MedGenLib.labels.mapping import parse_mapping
from MedGenLib.packages.catalogue import find, for_translation
from MedGenLib.packages.license import is_accepted, license_notice, require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.empty_grid import wanted_grid

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.report import Report
    from MedGenLib.result import Result

BYTES_PER_VOXEL = 4
"""Volumes are written as 32-bit numbers at most; compressed ones are smaller."""


def generate(arguments: Namespace, console: Console) -> int:
    """Mask -> one or more volumes; nothing but a size for models that need no mask."""
    manifest = find(arguments.model)
    with _outputs(arguments, arguments.mask, arguments.samples) as outputs:
        notice = first_acceptance(manifest, arguments.accept_license)
        mask = None if arguments.mask is None else read_label_map(arguments.mask)
        grid = wanted_grid(mask, arguments.size, arguments.spacing, manifest)
        style = None if arguments.style is None else read_volume(arguments.style)
        body = None if arguments.body_from is None else read_volume(arguments.body_from)
        _require_space(outputs, mask if grid is None else grid, arguments)

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
            body_from=body,
            any_grid=arguments.any_grid,
            size=arguments.size,
            spacing=arguments.spacing,
            modality=arguments.modality,
            noise_hu=arguments.noise,
            guidance=arguments.guidance,
            classifier_guidance=arguments.classifier_guidance,
            style=style,
            accept_license=arguments.accept_license,
            memory=arguments.memory,
            uncertainty=arguments.uncertainty is not None,
            progress=console,
        )
        made_from = [] if mask is None else [Source.of("mask", mask, arguments.mask)]
        if style is not None:
            made_from.append(Source.of("style", style, arguments.style))
        if body is not None:
            made_from.append(Source.of("body", body, arguments.body_from))
        write_result(result, outputs, arguments, made_from, console)
        outputs.commit()
    describe(result, outputs, [*notice, *_on_identity(arguments)], console)
    return 0


def translate(arguments: Namespace, console: Console) -> int:
    """Image of one modality -> image of another."""
    with _outputs(arguments, arguments.image, 1) as outputs:
        model = arguments.model
        manifest = find(model) if model else for_translation(None, arguments.to)
        notice = first_acceptance(manifest, arguments.accept_license)
        image = read_volume(arguments.image, series=arguments.series)
        _require_space(outputs, image, arguments)

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
            uncertainty=arguments.uncertainty is not None,
            progress=console,
        )
        made_from = [Source.of("image", image, arguments.image)]
        write_result(result, outputs, arguments, made_from, console)
        outputs.commit()
    describe(result, outputs, [*notice, *_on_identity(arguments)], console)
    return 0


def write_result(
    result: Result, outputs: Outputs, arguments: Namespace, made_from: list[Source], console: Console
) -> None:
    """Writes all that was asked for to its staged name."""
    facts = [result.provenance(made_from, n) for n in range(len(result.volumes))]
    paths = numbered(arguments.output, len(facts))
    for volume, path, fact in zip(result.volumes, paths, facts, strict=True):
        write_with_facts(volume, outputs.staged(path), fact)
    if arguments.uncertainty is not None:
        spread = result.uncertainty
        place = outputs.staged(arguments.uncertainty)
        write_with_facts(spread, place, facts[0].of_uncertainty(spread))
    if arguments.preview is not None:
        from MedGenLib.visual import preview

        previews = numbered(arguments.preview, len(paths))
        for volume, path in zip(result.volumes, previews, strict=True):
            preview.preview(result.source, volume, outputs.staged(path), title=result.report.model)
    if arguments.dicom is not None:
        _write_dicom(result.volumes, facts, outputs, arguments, console)
    if arguments.report is not None:
        result.report.write(outputs.staged(arguments.report))


def write_with_facts(volume: Volume, path: Path, facts: Provenance) -> None:
    """The volume with its provenance in the header, and the same in a file beside it."""
    write_volume(volume, path, facts)
    facts.write_beside(path)


def _write_dicom(
    volumes: list[Volume], facts: list[Provenance], outputs: Outputs, arguments: Namespace, console: Console
) -> None:
    """One series a volume; in the patient's study where the input was DICOM."""
    from MedGenLib.io.dicom import write_series

    image = getattr(arguments, "image", None)
    of_patient = {}
    if image is not None and image.is_dir():
        of_patient = {"source": image, "series": arguments.series}
    folders = numbered(arguments.dicom, len(volumes))
    for volume, fact, folder in zip(volumes, facts, folders, strict=True):
        write_series(
            volume, outputs.staged(folder), facts=fact, deidentify=arguments.deidentify, progress=console, **of_patient
        )


def _on_identity(arguments: Namespace) -> list[str]:
    """What --deidentify does not reach."""
    if not arguments.deidentify:
        return []
    from MedGenLib.cli.dicom import STILL_THERE

    return [STILL_THERE, f"{arguments.output} and the file beside it still name the input."]


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


def _outputs(arguments: Namespace, source: Path | None, samples: int) -> Outputs:
    """All files of the run, their places checked before anything else is done."""
    volumes = [check_output_path(path) for path in numbered(arguments.output, samples)]
    if arguments.uncertainty is not None:
        volumes.append(check_output_path(arguments.uncertainty))
    paths = volumes + [sidecar(path) for path in volumes]
    if arguments.preview is not None:
        previews = numbered(arguments.preview, samples)
        paths += [check_output_path(path, (".png",)) for path in previews]
    if arguments.report is not None:
        paths.append(check_output_path(arguments.report, (".json",)))
    if arguments.dicom is not None:
        paths += _dicom_folders(arguments.dicom, samples)
    elif arguments.deidentify:
        raise InputError("--deidentify is for DICOM; add --dicom and a folder to write it to.")
    others = (getattr(arguments, name, None) for name in ("style", "body_from"))
    keep = [path for path in (source, *others) if path is not None]
    return Outputs(paths, overwrite=arguments.overwrite, keep=keep)


def _dicom_folders(folder: Path, samples: int) -> list[Path]:
    """Folders of the new series, none of which is there yet."""
    from MedGenLib.io.dicom import check_folder

    folders = [check_folder(path) for path in numbered(folder, samples)]
    for path in folders:
        if path.exists():
            raise InputError(f"The folder {path} is there already; name a new one for the DICOM series.")
    return folders


def first_acceptance(manifest: Manifest, accept: bool) -> list[str]:
    """What to tell the user when this run is the first to accept the model's licence.

    Asked first, as nobody should wait for a run that may not start; told last, as a run that is
    refused for another reason has one sentence only.
    """
    if is_accepted(manifest):
        return []
    if not accept:
        require_acceptance(manifest, accept=False)  # raises the sentence that asks for it
    return [f"{license_notice(manifest)} You have accepted this; it is remembered."]


def _require_space(outputs: Outputs, source: Volume | LabelMap, arguments: Namespace) -> None:
    volumes = getattr(arguments, "samples", 1)
    copies = volumes * (1 + (arguments.dicom is not None)) + (arguments.uncertainty is not None)
    # One more: a NIfTI lies uncompressed beside itself for a moment.
    outputs.require_space(source.array.size * (copies + 1) * BYTES_PER_VOXEL)
