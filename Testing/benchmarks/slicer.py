"""The Slicer module: overhead of nodes and worker, gaps of the event loop, cancel, memory of 50 runs.

    .venv/bin/python Testing/benchmarks/slicer.py          # all
    .venv/bin/python Testing/benchmarks/slicer.py hard     # gaps with the inputs that are hardest to read
    .venv/bin/python Testing/benchmarks/slicer.py hard 600   # with those of them whose name has the word

Runs on the bridge of the tests (Testing/slicer), with the real worker and real models; needs no data.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = False  # Slicer's modules are compiled when they are used
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
import vtk  # noqa: E402

from MedGenLib.imaging.resampling import resample_to  # noqa: E402
from MedGenLib.io.files import read_label_map  # noqa: E402
from MedGenSlicer.engine.engine import Engine  # noqa: E402
from MedGenSlicer.logic import MedGenLogic  # noqa: E402
from MedGenSlicer.nodes.voxels import arrayOf  # noqa: E402
from support import processUntil, worstGap  # noqa: E402
from support.nodes import readInput  # noqa: E402
from support.snapshots import differences, snapshotOfScene  # noqa: E402

MODEL = "mr-hippocampus"
SHAPE = (256, 256, 128)
CHOICES = {"model": MODEL, "preset": "draft", "seed": 5, "device": "cpu"}
REPEATS = 3
RUNS = 50


def main() -> None:
    parts = (opening, times, smoothness, cancelling, memory, hard_inputs)
    figures = {}
    for part in parts if len(sys.argv) < 2 else [hard_inputs]:
        figures |= part()
    rows = [[name, value, limit] for name, (value, limit) in figures.items()]
    print(common.table(["metric", "measured", "limit"], rows))
    common.save(
        "slicer" if len(sys.argv) < 2 else "slicer-hard", {name: value for name, (value, limit) in figures.items()}
    )


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


HARD_SHAPE, HARD_SPACING = (512, 512, 200), (0.25, 0.25, 0.25)
TALL_SHAPE = (512, 512, 600)
IDLE_SECONDS = 10


def hard_inputs() -> dict:
    """Longest time between two iterations of the event loop from the selection in the panel to the shown result."""
    import SimpleITK  # noqa: F401  Slicer's modules have loaded it when a panel is opened

    panel = support.moduleWidget().panel
    found = {"worst gap of the idle panel, ms": (idle_gap(), "")}
    inputs = (
        ("20 closed surfaces, 512 x 512 x 200", closed_surfaces, "generate"),
        ("12 label maps off the lattice, 512 x 512 x 200", label_maps_off_the_lattice, "generate"),
        ("contours of 12 structures as from RTSTRUCT, 512 x 512 x 200", structure_set, "generate"),
        ("volume 512 x 512 x 600, MR to CT", tall_volume, "translate"),
    )
    for name, make, task in inputs:
        if not all(word in name for word in sys.argv[2:]):
            continue
        slicer.mrmlScene.Clear(0)
        processUntil(lambda: not panel.isBusy, 60)
        node = make()
        for part, measure in (("check", selected), ("result", run_from_panel)):
            with bystander() as machine:
                gap, duration = measure(panel, node, task)
            found[f"worst gap until the {part}, {name}, ms"] = (gap.milliseconds, "< 50")
            found[f"of it at most computed, until the {part}, {name}, ms"] = (gap.busy, "")
            found[f"worst gap of a bare process until the {part}, {name}, ms"] = (machine[0], "")
            found[f"time until the {part}, {name}, s"] = (duration, "")
    return found


BYSTANDER = """
import os, sys, threading, time
os.sched_setaffinity(0, {int(sys.argv[1])})
stop, worst, last = threading.Event(), 0.0, time.perf_counter()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.is_set():
    time.sleep(0.002)
    now = time.perf_counter()
    worst, last = max(worst, now - last), now
print(1000 * worst)
"""


@contextlib.contextmanager
def bystander():
    """The worst gap in ms, as soon as it is left, of processes that only sleep 2 ms at a time, one on each core: what
    the machine and its other programs cost."""
    found: list[float] = []
    command, pipe = [sys.executable, "-c", BYSTANDER], subprocess.PIPE
    bare = [subprocess.Popen([*command, str(core)], stdin=pipe, stdout=pipe) for core in os.sched_getaffinity(0)]
    try:
        yield found
    finally:
        found.append(max(float(process.communicate()[0]) for process in bare))


def idle_gap() -> float:
    """What the other programs of this machine cost."""
    end = time.perf_counter() + IDLE_SECONDS
    with worstGap() as gap:
        processUntil(lambda: time.perf_counter() > end)
    return gap.milliseconds


def selected(panel, node, task: str) -> tuple:
    """Worst gap (`Gap`) and seconds from the selection of a node to the end of its check."""
    start, ui, parameters = time.perf_counter(), panel.ui, panel.context.parameters
    steps = [
        lambda: setattr(parameters, "task", task),
        lambda: setattr(parameters, "preset", "draft"),
        lambda: getattr(ui, f"{task}InputSelector").setCurrentNode(node),
    ]
    if task == "generate":
        steps.append(lambda: ui.generateModelComboBox.setCurrentIndex(ui.generateModelComboBox.findData(MODEL)))
    with worstGap() as gap:
        for step in steps:  # each is a click of its own
            step()
            slicer.app.processEvents()
        processUntil(lambda: not panel.isBusy, 600)
    return gap, time.perf_counter() - start


def run_from_panel(panel, node, task: str) -> tuple:
    """Worst gap (`Gap`) and seconds from the click to the result."""
    if panel.sections["card"].problem():
        panel.ui.licenseCheckBox.click()
        processUntil(lambda: not panel.isBusy, 60)
    start, ended = time.perf_counter(), []
    button = panel.ui.generateButton if task == "generate" else panel.ui.translateButton
    with worstGap() as gap:
        button.click()
        if not panel.sections["run"].isRunning:
            raise RuntimeError(panel.blocked or panel.ui.failureLabel.text)
        processUntil(lambda: not panel.sections["run"].isRunning, 3000)
        ended.append(panel.sections["failure"].error)
    if ended[0] is not None:
        raise ended[0]
    return gap, time.perf_counter() - start


def reference_volume():
    """An empty scan, whose grid a segmentation has."""
    matrix = slicer.util.vtkMatrixFromArray(np.diag([*HARD_SPACING, 1.0]))
    return slicer.util.addVolumeFromArray(np.zeros(HARD_SHAPE[::-1], np.int16), ijkToRAS=matrix, name="Scan")


def segmentation_on(volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Hard")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def closed_surfaces():
    """20 spheres of 80 000 triangles each, which overlap."""
    node, rng = segmentation_on(reference_volume()), np.random.default_rng(0)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    extent = np.multiply(HARD_SHAPE, HARD_SPACING)
    for index in range(20):
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(3 + 0.25 * index)
        sphere.SetCenter(*(extent / 2 + rng.uniform(-8, 8, 3)))
        sphere.SetPhiResolution(200)
        sphere.SetThetaResolution(200)
        sphere.Update()
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), support.HIPPOCAMPUS[index % 2], [1, 0, 0])
    return node


def label_maps_off_the_lattice():
    """12 layers, each on a grid of its own that is turned against the reference."""
    node = segmentation_on(reference_volume())
    for index in range(12):
        image, place = slicer.vtkOrientedImageData(), vtk.vtkTransform()
        image.SetExtent(0, 255, 0, 255, 0, 149)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        place.Translate(50 + 0.5 * index, 50, 5)
        place.RotateZ(7 + index)
        place.Scale(0.2, 0.2, 0.2)
        image.SetImageToWorldMatrix(place.GetMatrix())
        array = arrayOf(image)
        array[:] = 0
        array[20 + index : 130, 60 : 180 - index, 60:160] = 1
        node.AddSegmentFromBinaryLabelmapRepresentation(image, support.HIPPOCAMPUS[index % 2], [1, 0, 0])
    return node


def structure_set():
    """12 structures drawn slice by slice every 3 mm, as surfaces through their contours."""
    node = segmentation_on(reference_volume())
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    for index in range(12):
        parts = vtk.vtkAppendPolyData()
        for z in range(6, 40, 3):
            disk = vtk.vtkCylinderSource()
            disk.SetRadius(2 + 3 * abs(np.sin(0.3 * z + index)))
            disk.SetHeight(3)
            disk.SetResolution(180)
            place = vtk.vtkTransform()
            place.Translate(54 + 2 * index, 64, z)
            place.RotateX(90)
            moved = vtk.vtkTransformPolyDataFilter()
            moved.SetInputConnection(disk.GetOutputPort())
            moved.SetTransform(place)
            parts.AddInputConnection(moved.GetOutputPort())
        parts.Update()
        node.AddSegmentFromClosedSurfaceRepresentation(parts.GetOutput(), support.HIPPOCAMPUS[index % 2], [1, 0, 0])
    return node


def tall_volume():
    """The sample head on a grid of 512 x 512 x 600 voxels."""
    head = support.headVolume(None)
    matrix, array = support.matrixOf(head), slicer.util.arrayFromVolume(head)
    for axis, (count, wanted) in enumerate(zip(array.shape, TALL_SHAPE[::-1], strict=True)):
        array = array.take(np.arange(wanted) * count // wanted, axis)
        matrix[:3, 2 - axis] *= count / wanted
    slicer.mrmlScene.RemoveNode(head)
    return slicer.util.addVolumeFromArray(array, ijkToRAS=slicer.util.vtkMatrixFromArray(matrix), name="Tall head")


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
