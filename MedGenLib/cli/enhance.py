"""`medgen enhance`: a finer, less noisy or more even image."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console

if TYPE_CHECKING:
    from MedGenLib.result import Result


@command(
    "enhance",
    "make an image finer, less noisy or more even",
    "superres makes cubic voxels from one to three stacks of thick slices and keeps what these slices show; denoise "
    "and debias keep the grid of the image.",
)
def enhance(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun

    with FileRun("enhance", arguments, console) as run:
        run.read()
        run.require_space(run.images["image"])

        from MedGenLib.enhancement import enhance as make  # imports torch

        result = make(**run.options(), progress=console)
        run.write(result, _draw)
    code = run.describe(result)
    _figures(result, console)
    return code


def _draw(result: Result, number: int, path: Path) -> None:
    """The image as it was, interpolated onto the grid of the result, beside the result."""
    from MedGenLib.imaging.resampling import resample_to
    from MedGenLib.visual.preview import preview

    preview(resample_to(result.source, result.volume), result.volume, path, title=result.report.model)


def _figures(result: Result, console: Console) -> None:
    """The figures by which a user sees what was changed."""
    facts, unit = result.report.parameters, result.volume.unit
    if (shares := facts.get("consistency")) is not None:
        shown = ", ".join(f"{share:.2%}" for share in shares)
        console.say(f"The slices of the result are those of the input to {shown} of their range.")
    elif "removed" in facts:
        console.say(
            f"Noise {facts['noise']:.3g} {unit}; removed {facts['removed']:.3g} {unit} (SD), mean changed by "
            f"{facts['mean change']:.2g} {unit}."
        )
