"""Enhancement: thick slices to an isotropic volume, less noise, even brightness, no ghosts.

`enhance` restores one image, from one to three stacks of slices. What it adds is kept to what was measured: slices of
the result are those of the input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from MedGenLib.enhancement.inputs import read_stacks
from MedGenLib.imaging.volume import Volume
from MedGenLib.options import EnhanceOptions, documented
from MedGenLib.progress import ProgressCallback
from MedGenLib.result import Result


@documented("enhance")
def enhance(
    image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[EnhanceOptions]
) -> Result:
    """Make an image finer, less noisy or more even.

    The task "superres" makes a volume of cubic voxels from thick slices, and lies on a grid of its own in the same
    place; the other tasks keep the grid. The image may have any orientation.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: nothing was computed.

    Notes
    -----
    "superres" and "denoise" use the network of a package; "debias" is N4 (Tustison et al. 2010), and
    "deghost" is in `MedGenLib.enhancement.ghosts`. For "superres" the
    slices of the result, computed with the thickness of the slices, are corrected until they are the input's; what
    remains is in ``report.parameters["consistency"]``. What lies between the slices is an estimate.

    Examples
    --------
    >>> result = enhance("sagittal.nii.gz", second="axial.nii.gz")   # doctest: +SKIP
    >>> result.volume.spacing                                        # doctest: +SKIP
    (0.9, 0.9, 0.9)
    """
    from MedGenLib.enhancement.tasks import TASKS

    stacks = read_stacks(image, options)
    return TASKS[options["task"]](stacks, options, progress)
