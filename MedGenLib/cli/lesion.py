"""`medgen insert-lesion`: check the places, run, write everything or nothing."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from MedGenLib.cli.console import Console
from MedGenLib.cli.runs import describe, first_acceptance, write_with_facts
from MedGenLib.imaging.volume import as_stored
from MedGenLib.io.files import check_output_path, read_label_map, read_volume, write_volume
from MedGenLib.io.outputs import Outputs
from MedGenLib.io.provenance import Source, sidecar
from MedGenLib.labels.mapping import parse_mapping
from MedGenLib.packages.catalogue import find

if TYPE_CHECKING:
    from MedGenLib.editing.lesions import Insertion

BYTES_PER_VOXEL = 12
"""The image as 32-bit numbers, twice for a moment, and the mask."""


def insert(arguments: Namespace, console: Console) -> int:
    """Image -> image with a lesion."""
    with _outputs(arguments) as outputs:
        notice = first_acceptance(find(arguments.model), arguments.accept_license)
        image = as_stored(read_volume(arguments.image, series=arguments.series))
        lesion, labels = (None if path is None else read_label_map(path) for path in (arguments.mask, arguments.labels))
        outputs.require_space(image.array.size * BYTES_PER_VOXEL)

        from MedGenLib.editing.lesions import insert_lesion

        made = insert_lesion(
            image,
            at=arguments.at,
            lesion=lesion,
            shape=arguments.shape,
            size_mm=arguments.size,
            label=arguments.label,
            contrast=arguments.contrast,
            organ=arguments.organ,
            labels=labels,
            mapping=parse_mapping(arguments.mapping),
            fill=arguments.fill,
            model=arguments.model,
            seed=arguments.seed,
            preset=arguments.preset,
            device=arguments.device,
            memory=arguments.memory,
            accept_license=arguments.accept_license,
            progress=console,
        )
        sources = [Source.of("image", image, arguments.image)]
        if lesion is not None:
            sources.append(Source.of("lesion", lesion, arguments.mask))
        if labels is not None:
            sources.append(Source.of("labels", labels, arguments.labels))
        _write(made, sources, outputs, arguments)
        outputs.commit()
    describe(made.result, outputs, notice, console)
    console.say(_told(made))
    return 0


def _write(made: Insertion, sources: list[Source], outputs: Outputs, arguments: Namespace) -> None:
    facts = made.result.provenance(sources)
    write_with_facts(made.volume, outputs.staged(arguments.output), facts)
    if arguments.lesion_mask is not None:
        write_volume(made.lesion, outputs.staged(arguments.lesion_mask))
    if arguments.preview is not None:
        from MedGenLib.visual import preview

        path, title = outputs.staged(arguments.preview), f"Lesion, {made.report.model}"
        preview.preview_change(made.source, made.volume, made.lesion, path, title)
    if arguments.report is not None:
        made.report.write(outputs.staged(arguments.report))


def _told(made: Insertion) -> str:
    """Where the lesion is, and how far it changed the image."""
    facts = made.report.parameters
    place = ", ".join(f"{x:g}" for x in facts["at_ras_mm"])
    return (
        f"The lesion ({facts['shape']}, {facts['size_mm']:g} mm, {facts['volume_ml']:.3g} ml) lies "
        f"at {place} mm (RAS); voxels more than {made.halo_mm:.3g} mm away from it are those of "
        "the input."
    )


def _outputs(arguments: Namespace) -> Outputs:
    """All files of the run, their places checked before anything else is done."""
    output = check_output_path(arguments.output)
    paths = [output, sidecar(output)]
    if arguments.lesion_mask is not None:
        paths.append(check_output_path(arguments.lesion_mask))
    if arguments.preview is not None:
        paths.append(check_output_path(arguments.preview, (".png",)))
    if arguments.report is not None:
        paths.append(check_output_path(arguments.report, (".json",)))
    inputs = (arguments.image, arguments.mask, arguments.labels)
    keep = [path for path in inputs if path is not None]
    return Outputs(paths, overwrite=arguments.overwrite, keep=keep)
