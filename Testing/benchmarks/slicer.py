"""The Slicer module: overhead of nodes and worker, gaps of the event loop, cancel, memory of 50 runs.

    .venv/bin/python Testing/benchmarks/slicer.py

Runs on the bridge of the tests (Testing/slicer), with the real worker and real models; needs no data.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import common  # noqa: E402

# This file has the name of Slicer's package, so its folder must not be on the path.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.insert(0, str(common.ROOT / "Testing" / "slicer"))
import support  # noqa: E402

support.useModuleFolder()

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import slicer  # noqa: E402

from MedGenLib.imaging.resampling import resample_to  # noqa: E402
from MedGenLib.io.files import read_label_map  # noqa: E402
from MedGenSlicer.engine.engine import Engine  # noqa: E402
from MedGenSlicer.logic import MedGenLogic  # noqa: E402
from support import processUntil, worstGap  # noqa: E402
from support.nodes import readInput  # noqa: E402
from support.snapshots import differences, snapshotOfScene  # noqa: E402

MODEL = "mr-hippocampus"
SHAPE = (256, 256, 128)
CHOICES = {"model": MODEL, "preset": "draft", "seed": 5, "device": "cpu"}
REPEATS = 3
RUNS = 50


def main() -> None:
    figures = {**opening(), **times(), **smoothness(), **cancelling(), **memory()}
    rows = [[name, value, limit] for name, (value, limit) in figures.items()]
    print(common.table(["metric", "measured", "limit"], rows))
    common.save("slicer", {name: value for name, (value, limit) in figures.items()})


def large_segmentation():
    """The sample hippocampus in 256 x 256 x 128 voxels of 0.25 mm: many voxels, little computation."""
    mask = read_label_map(support.SAMPLES / "hippocampus_mask.nii.gz")
    fine = mask.geometry.with_spacing((0.25,) * 3)
    start = [(n - wanted) // 2 for n, wanted in zip(fine.shape, SHAPE, strict=True)]
    middle = fine.moved(start, SHAPE)
    array = np.ascontiguousarray(resample_to(mask, middle).array.T)
    matrix = slicer.util.vtkMatrixFromArray(np.diag([0.25, 0.25, 0.25, 1.0]))
    labels = slicer.util.addVolumeFromArray(
        array, ijkToRAS=matrix, name="Large", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    labels.CreateDefaultDisplayNodes()
    table = support.colorTable(support.HIPPOCAMPUS)
    labels.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
    scene, logic = slicer.mrmlScene, slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    logic.ImportLabelmapToSegmentationNode(labels, segmentation)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(labels)
    return segmentation


def new_logic() -> MedGenLogic:
    return MedGenLogic(Engine(temporaryRoot=tempfile.mkdtemp(prefix="medgen-benchmark-")))


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


OPENING = """
import os, time
import support
support.bridge.loadModule(support.modulePath())
start = time.perf_counter()
support.moduleWidget()
print("SECONDS", time.perf_counter() - start, flush=True)
os._exit(0)
"""


def opening() -> dict:
    """Time to open the module, in new processes with compiled files."""
    folder, found = common.ROOT / "Testing" / "slicer", []
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(REPEATS + 1):  # the first run compiles
        done = subprocess.run(
            [sys.executable, "-c", OPENING], cwd=folder, env=variables, capture_output=True, text=True, check=True
        )
        found.append(float(done.stdout.split("SECONDS")[1]))
    return {"module open, s": (statistics.median(found[1:]), "< 0.3")}


def times() -> dict:
    """Times of cold and warm runs, and overhead compared with the library."""
    import MedGenLib

    slicer.mrmlScene.Clear(0)
    mask, logic = large_segmentation(), new_logic()
    engine = logic.engine
    start = seconds(lambda: (engine.start(), processUntil(lambda: engine.state == "ready")))
    first = seconds(lambda: logic.generate(mask, **CHOICES))
    image = readInput(mask).image
    MedGenLib.generate(image, **CHOICES)  # loads the model into this process
    warm, direct = [], []
    for _ in range(REPEATS):  # alternating, so that load of the machine affects both equally
        direct.append(seconds(lambda: MedGenLib.generate(image, **CHOICES)))
        warm.append(seconds(lambda: logic.generate(mask, **CHOICES)))
        slicer.mrmlScene.RemoveNode(logic.currentRun.node)
    logic.cleanup()
    warm_time, direct_time = statistics.median(warm), statistics.median(direct)
    return {
        "worker start, s": (start, ""),
        "first run 256 x 256 x 128, s": (first, ""),
        "second run, s": (warm_time, ""),
        "saved by the warm worker, s": (start + first - warm_time, "> 0"),
        "library call alone, s": (direct_time, ""),
        "overhead of nodes and worker, s": (warm_time - direct_time, "< 1.0"),
    }


def smoothness() -> dict:
    """Longest time between two iterations of the event loop, during cold and warm runs."""
    found = {}
    for name, make in (
        ("256 x 256 x 128 segmentation", large_segmentation),
        ("head 192 x 256 x 256, MR to CT", lambda: support.headVolume(None)),
    ):
        slicer.mrmlScene.Clear(0)
        node, logic = make(), new_logic()
        logic.models()  # as the panel does on opening
        gaps = []
        for _ in range(2):
            if node.IsA("vtkMRMLSegmentationNode"):

                def start(logic=logic, node=node):
                    return logic.generate(node, **CHOICES, wait=False)
            else:

                def start(logic=logic, node=node):
                    return logic.translate(node, "CT", preset="draft", acceptLicense=True, wait=False)

            with worstGap() as gap:
                run = start()
                processUntil(lambda run=run: run.isDone, 300)
            if run.error is not None:
                raise run.error
            gaps.append(gap.milliseconds)
        logic.cleanup()
        found[f"worst gap, {name}, ms"] = (max(gaps), "< 50")
    return found


def cancelling() -> dict:
    """Time from cancel to the last progress, and to the end of the last process and file."""
    slicer.mrmlScene.Clear(0)
    mask, last_progress, stopped, left, changed = support.ctMaskNode(None), [], [], 0, 0
    before_children = running_children()
    for step in range(REPEATS):
        logic, before, last = new_logic(), snapshotOfScene(), [0.0]

        def on_progress(progress, last=last):
            last[0] = time.perf_counter()

        run = logic.generate(mask, preset="best", seed=1, wait=False, onProgress=on_progress)
        processUntil(
            lambda run=run, step=step: run.progress["stage"] == "sampling" and run.progress["step"] >= step, 300
        )
        clicked = time.perf_counter()
        run.cancel()
        processUntil(lambda logic=logic: not logic.engine.isStopping, 30)
        stopped.append(time.perf_counter() - clicked)
        last_progress.append(max(0.0, last[0] - clicked))
        left += len(running_children() - before_children)
        changed += len(differences(before, snapshotOfScene()))
        logic.cleanup()
    return {
        "last progress after cancel, s": (max(last_progress), "< 1"),
        "worker and files gone after cancel, s": (max(stopped), "< 1"),
        "processes left after cancel": (left, "0"),
        "nodes changed by a canceled run": (changed, "0"),
    }


def running_children() -> set[int]:
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def memory() -> dict:
    """Growth of the worker from the fifth to the fiftieth run."""
    slicer.mrmlScene.Clear(0)
    mask, logic, used = support.hippocampusSegmentation(), new_logic(), []
    for number in range(RUNS):
        logic.generate(mask, **{**CHOICES, "seed": number})
        slicer.mrmlScene.RemoveNode(logic.currentRun.node)
        used.append(psutil.Process(logic.engine.info["pid"]).memory_info().rss / 2**20)
    logic.cleanup()
    return {
        "worker after the 5th run, MiB": (used[4], ""),
        f"growth until the {RUNS}th run, MiB": (max(used[5:]) - used[4], "< 100"),
    }


if __name__ == "__main__":
    main()
