"""`medgen enhance`: a finer, less noisy or more even image."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import PICTURE

if TYPE_CHECKING:
    from MedGenLib.result import Result


@command(
    "enhance",
    "make an image finer, less noisy or more even",
    "superres makes cubic voxels from one to three stacks of thick slices and keeps what these slices show; denoise, "
    "debias and deghost keep the grid of the image.",
)
def enhance(arguments: Namespace, console: Console) -> int:
    from MedGenLib.cli.run import FileRun

    with FileRun("enhance", arguments, console) as run:
        run.read()
        run.require_space(run.images["image"])
        if run.images["image"].modality == PICTURE and arguments.dicom is not None:
            raise InputError("A DICOM series is CT or MR, but the image is a picture or radiograph; leave out --dicom.")

        from MedGenLib.enhancement.measures import in_words

        if (result := run.on_engine(run.images["image"])) is None:
            from MedGenLib.enhancement import enhance as make  # imports torch

            result = make(**run.options(), progress=console)
        run.write(result, _draw)
    code = run.describe(result)
    console.say(in_words(result.report.parameters, result.volume.unit))
    return code


def _draw(result: Result, number: int, path: Path) -> None:
    """The image as it was, interpolated onto the grid of the result, beside the result."""
    from MedGenLib.imaging.resampling import resample_to
    from MedGenLib.visual.preview import preview

    preview(resample_to(result.source, result.volume), result.volume, path, title=result.report.model)
