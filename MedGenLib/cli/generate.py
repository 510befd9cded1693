"""`medgen generate`: mask -> one or more volumes, or only a size for models without a mask."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console


@command("generate", "generate an image volume from a label mask", "The result lies on the grid of the mask.")
def generate(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.packages.catalogue import find
    from MedGenLib.pipelines.empty_grid import wanted_grid
    from MedGenLib.pipelines.model_labels import model_labels

    manifest = find(arguments.model)
    with FileRun("generate", arguments, console) as run:
        run.accept(manifest)
        run.read()
        mask = run.images.get("mask")
        grid = wanted_grid(mask, arguments.size, arguments.spacing, manifest)
        grid = mask if grid is None else grid
        run.require_space(grid)

        if arguments.engine and grid is mask:
            options = run.options()
            grid, *_ = model_labels(mask, manifest, options["mapping"], options["fill"], options["body_from"])
        if (result := run.on_engine(grid)) is None:
            from MedGenLib import generate as generate_volumes  # imports torch

            result = generate_volumes(**run.options(), progress=console)
            run.keep_time(result)
        run.write(result)
    return run.describe(result)
