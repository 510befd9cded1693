"""Loads MedGen from an installed tree and makes one volume with it; run by test_extension.py.

MEDGEN_MODULE names the installed MedGen.py, MEDGEN_INSTALLED its folder. Nothing of the checkout
may be used but the bridge.
"""

import os
import subprocess
import sys
from pathlib import Path

import support

ROOT = Path(os.environ["MEDGEN_INSTALLED"])


def workerLibrary() -> Path:
    """The MedGenLib that a worker started from here would run."""
    from MedGenLib.worker.process import environment

    code = "import MedGenLib; print(MedGenLib.__file__)"
    command = [sys.executable, "-c", code]
    return Path(subprocess.check_output(command, env=environment(os.environ), text=True, cwd="/").strip())


def main() -> None:
    widget = support.moduleWidget()
    import MedGenLib
    import MedGenSlicer

    for path in (Path(MedGenLib.__file__), Path(MedGenSlicer.__file__), workerLibrary()):
        if ROOT not in path.parents:
            raise SystemExit(f"{path} is not below {ROOT}")
    mask = support.hippocampusSegmentation()
    node = widget.logic.generate(mask, model="mr-hippocampus", seed=1, preset="draft")
    if support.slotErrors():
        raise SystemExit(f"swallowed: {support.slotErrors()}")
    print("done:", node.GetName(), flush=True)


main()
