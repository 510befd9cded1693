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
    "Give the position (--at, --mask or --organ) and the change (--label, --contrast or --texture).",
)
def insert(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun
    from MedGenLib.packages.catalogue import find

    with FileRun("insert_lesion", arguments, console) as run:
        run.accept(find(arguments.model))
        run.read(stored=True)
        run.require_space(run.images["image"])

        from MedGenLib.editing.lesions import insert_lesion  # imports torch
        from MedGenLib.visual.preview import preview_change

        made = insert_lesion(**run.options(), progress=console, keep_steps=arguments.explanation is not None)

        def draw(result: Result, number: int, path: Path) -> None:
            lesion = made.frames[number].lesion
            preview_change(result.source, result.volumes[number], lesion, path, f"Lesion, {result.report.model}")

        result = made.result
        if arguments.lesion_mask is not None:
            run.write_frames([frame.lesion for frame in made.frames], arguments.lesion_mask, result.report)
        if arguments.moved_labels is not None:
            run.write_frames([frame.tissues for frame in made.frames], arguments.moved_labels, result.report)
        if arguments.explanation is not None:
            from MedGenLib.evaluation.lesion import explained

            run.outputs.staged(arguments.explanation).write_text(explained(made), encoding="utf-8")
        run.write(result, draw)
    code = run.describe(result)
    console.say(_place(made))
    return code


def _place(made: Insertion) -> str:
    """Position of the lesion, and extent of the changes."""
    facts, last = made.report.parameters, made.frames[-1]
    place = ", ".join(f"{x:g}" for x in facts["at_ras_mm"])
    size, end = f"{facts['size_mm']:g} mm, {facts['volume_ml']:.3g} ml", last.report.parameters
    if made.later:
        size += f", and by day {end['day']:g} {end['size_mm']:g} mm, {end['volume_ml']:.3g} ml"
    return (
        f"The lesion ({facts['shape']}, {size}) lies at {place} mm (RAS); voxels more than {last.halo_mm:.3g} mm away "
        "from it are those of the input."
    )
