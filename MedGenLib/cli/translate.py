"""`medgen translate`: image of one modality -> image of another."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError


@command(
    "translate",
    "translate an image volume between MR and CT",
    "The result lies on the grid of the image. A model of `medgen train --recipe sequence` makes a series over time.",
)
def translate(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.io.frames import SEQUENCE
    from MedGenLib.packages.catalogue import find, for_translation

    with FileRun("translate", arguments, console) as run:
        manifest = find(arguments.model) if arguments.model else for_translation(None, arguments.to)
        if manifest.task == "sequence" and not arguments.output.name.endswith(SEQUENCE):
            raise InputError(
                f"The model '{manifest.name}' makes a series, but {arguments.output} holds one image; give an output "
                f"that ends in {SEQUENCE}."
            )
        run.accept(manifest)
        run.read()
        run.require_space(run.images["image"], getattr(manifest.settings, "frames", 1))

        if (result := run.on_engine(run.images["image"])) is None:
            from MedGenLib import translate as translate_volume  # imports torch

            result = translate_volume(**run.options(), progress=console)
            run.keep_time(result)
        run.write(result)
    return run.describe(result)
