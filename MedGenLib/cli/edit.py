"""`medgen edit`: check the places, run, write everything or nothing."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.console import Console
from MedGenLib.cli.runs import describe, first_acceptance, write_with_facts
from MedGenLib.imaging.volume import as_stored
from MedGenLib.io.files import check_output_path, read_label_map, read_volume
from MedGenLib.io.outputs import Outputs
from MedGenLib.io.provenance import Source, sidecar
from MedGenLib.labels.mapping import parse_mapping
from MedGenLib.packages.catalogue import find

BYTES_PER_VOXEL = 8
"""The image as 32-bit numbers, twice for a moment."""


def edit(arguments: Namespace, console: Console) -> int:
    """Image, its mask and a changed mask -> the image that shows the changed mask."""
    with _outputs(arguments) as outputs:
        notice = first_acceptance(find(arguments.model), arguments.accept_license)
        image = as_stored(read_volume(arguments.image, series=arguments.series))
        old, new = read_label_map(arguments.mask), read_label_map(arguments.new_mask)
        outputs.require_space(image.array.size * BYTES_PER_VOXEL)

        from MedGenLib.editing.session import edit_image  # imports torch

        edited = edit_image(
            image,
            old,
            new,
            arguments.model,
            seed=arguments.seed,
            preset=arguments.preset,
            device=arguments.device,
            mapping=parse_mapping(arguments.mapping),
            fill=arguments.fill,
            noise_hu=arguments.noise,
            accept_license=arguments.accept_license,
            memory=arguments.memory,
            progress=console,
        )
        sources = [
            Source.of("image", image, arguments.image),
            Source.of("mask", old, arguments.mask),
            Source.of("new mask", new, arguments.new_mask),
        ]
        facts = edited.provenance(sources)
        write_with_facts(edited.volume, outputs.staged(arguments.output), facts)
        if arguments.preview is not None:
            from MedGenLib.visual import preview

            preview.preview_edit(
                image,
                edited.source,
                edited.volume,
                outputs.staged(arguments.preview),
                edited.report.parameters["box"],
                title=f"Edit by {edited.report.model}",
            )
        if arguments.report is not None:
            edited.report.write(outputs.staged(arguments.report))
        outputs.commit()
    describe(edited, outputs, notice, console)
    told = edited.report.parameters
    console.say(
        f"{told['changed_voxels']} voxels of the mask changed; image voxels more than "
        f"{told['halo_mm']:.3g} mm away from them along any axis are those of the input."
    )
    return 0


def _outputs(arguments: Namespace) -> Outputs:
    """All files of the run, their places checked before anything else is done."""
    output = check_output_path(arguments.output)
    paths = [output, sidecar(output)]
    if arguments.preview is not None:
        paths.append(check_output_path(arguments.preview, (".png",)))
    if arguments.report is not None:
        paths.append(check_output_path(arguments.report, (".json",)))
    inputs = [arguments.image, arguments.mask, arguments.new_mask]
    return Outputs(paths, overwrite=arguments.overwrite, keep=inputs)
