"""`medgen translate`: image of one modality -> image of another."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console


@command("translate", "translate an image volume between MR and CT", "The result lies on the grid of the image.")
def translate(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.packages.catalogue import find, for_translation

    with FileRun("translate", arguments, console) as run:
        manifest = find(arguments.model) if arguments.model else for_translation(None, arguments.to)
        run.accept(manifest)
        run.read()
        run.require_space(run.images["image"])

        if (result := run.on_engine(run.images["image"])) is None:
            from MedGenLib import translate as translate_volume  # imports torch

            result = translate_volume(**run.options(), progress=console)
            run.keep_time(result)
        run.write(result)
    return run.describe(result)
