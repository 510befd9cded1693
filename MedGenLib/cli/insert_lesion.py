"""`medgen insert-lesion`: image -> the image with a lesion, or without one."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console

if TYPE_CHECKING:
    from MedGenLib.editing.lesions import Insertion
    from MedGenLib.result import Result


@command(
    "insert-lesion",
    "insert a lesion into an image, or remove one",
    "Only the region of the lesion changes: all other voxels stay identical; the extent of the changes is printed. "
    "Give the position (--at, --mask or --organ) and the change (--label, --contrast or both).",
)
def insert(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.io.files import write_volume
    from MedGenLib.packages.catalogue import find

    with FileRun("insert_lesion", arguments, console) as run:
        run.accept(find(arguments.model))
        run.read(stored=True)
        run.require_space(run.images["image"])

        from MedGenLib.editing.lesions import insert_lesion  # imports torch
        from MedGenLib.visual.preview import preview_change

        made = insert_lesion(**run.options(), progress=console)

        def draw(result: Result, _: int, path: Path) -> None:
            preview_change(result.source, result.volume, made.lesion, path, f"Lesion, {result.report.model}")

        if arguments.lesion_mask is not None:
            write_volume(made.lesion, run.outputs.staged(arguments.lesion_mask))
        run.write(made.result, draw)
    code = run.describe(made.result)
    console.say(_place(made))
    return code


def _place(made: Insertion) -> str:
    """Position of the lesion, and extent of the changes."""
    facts = made.report.parameters
    place = ", ".join(f"{x:g}" for x in facts["at_ras_mm"])
    return (
        f"The lesion ({facts['shape']}, {facts['size_mm']:g} mm, {facts['volume_ml']:.3g} ml) lies "
        f"at {place} mm (RAS); voxels more than {made.halo_mm:.3g} mm away from it are those of "
        "the input."
    )
