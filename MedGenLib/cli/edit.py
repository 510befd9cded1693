"""`medgen edit`: image, its mask and a changed mask -> image of the changed mask."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console

if TYPE_CHECKING:
    from MedGenLib.result import Result


@command(
    "edit",
    "adapt an image to a changed mask",
    "Only the voxels of changed labels are generated, with a thin rim that blends them in: all other voxels stay "
    "identical, and the number of voxels that changed beside the edit is printed.",
)
def edit(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.packages.catalogue import find

    with FileRun("edit", arguments, console) as run:
        run.accept(find(arguments.model))
        run.read(stored=True)
        run.require_space(run.images["volume"])

        from MedGenLib.editing.session import edit_image  # imports torch
        from MedGenLib.visual.preview import preview_edit

        edited = edit_image(**run.options(), progress=console)
        facts = edited.report.parameters

        def draw(result: Result, _: int, path: Path) -> None:
            title = f"Edit by {result.report.model}"
            preview_edit(run.images["volume"], result.source, result.volume, path, facts["box"], title=title)

        run.write(edited, draw)
    code = run.describe(edited)
    console.say(
        f"{facts['changed_voxels']} voxels of the mask changed, and beside them {facts['changed_beyond']} voxels of "
        f"the image by up to {facts['largest_change_beyond']:.4g} {edited.volume.unit}; image voxels more than "
        f"{facts['halo_mm']:.3g} mm away from them along any axis are those of the input."
    )
    return code
