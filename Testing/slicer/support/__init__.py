"""What the tests of the Slicer side share. They run on the bridge and in Slicer itself.

Importing this module boots the bridge unless ``slicer`` is the application's, and moves MedGen's
configuration into a temporary folder, so that no test sees or changes the user's.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).resolve().parents[1]
ROOT = FOLDER.parent.parent
SAMPLES = ROOT / "Resources" / "SampleData"
SCREENSHOTS = FOLDER / "screenshots"

if "MEDGEN_TEST_HOME" not in os.environ:
    os.environ["MEDGEN_TEST_HOME"] = tempfile.mkdtemp(prefix="medgen-test-")
os.environ["MEDGEN_HOME"] = os.environ["MEDGEN_TEST_HOME"]


def inSlicer() -> bool:
    """Whether these tests run inside the real application."""
    app = getattr(sys.modules.get("slicer"), "app", None)
    # Whether the bridge was imported says nothing: unittest's discovery imports every package that it passes.
    return app is not None and not getattr(type(app), "__module__", "").startswith("bridge.")


if not inSlicer():
    sys.path.insert(0, str(FOLDER))
    import bridge

    bridge.boot()

import numpy as np
import qt
import slicer
import slicer.util
import vtk

from support import pictures

# The module


def modulePath() -> Path:
    """MedGen.py under test: the installed one that MEDGEN_MODULE names, else the checkout's."""
    return Path(os.environ.get("MEDGEN_MODULE", ROOT / "MedGen" / "MedGen.py"))


def moduleWidget():
    """The Python widget of MedGen, entered; loads the module on the first call."""
    manager = slicer.app.moduleManager()
    if manager.module("MedGen") is None:
        if inSlicer():
            raise RuntimeError("MedGen is not among the modules of this Slicer: give --additional-module-path")
        bridge.loadModule(modulePath())
    widget = slicer.util.getModuleWidget("MedGen")
    _enter(widget)
    return widget


def _enter(widget) -> None:
    """Open the module as a user would; without a main window nobody else does."""
    host = slicer.modules.medgen.widgetRepresentation()
    if not inSlicer():
        if not host.isEntered:
            host.enter()
    elif slicer.util.mainWindow() is not None:
        slicer.util.selectModule("MedGen")
    elif widget not in _entered:
        _entered.append(widget)
        widget.enter()


_entered: list = []


def leaveModule() -> None:
    """Close an open panel, so that it does not react to the nodes of tests that work without it."""
    widget = getattr(slicer.modules, "MedGenWidget", None)
    if widget is not None:
        widget.exit()


def useModuleFolder() -> None:
    """Make MedGenSlicer and MedGenLib importable without loading the module."""
    for folder in (modulePath().parent, ROOT):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def slow(test):
    """A costly variant of another test, which `make bench` runs, as Slicer itself does."""
    try:
        import pytest
    except ImportError:  # unittest of Slicer runs all tests
        return test
    return pytest.mark.slow(test)


# Time


def processUntil(condition, timeout: float = 60.0, message: str = "") -> None:
    """Let the event loop run until ``condition()``; fails after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(message or f"not within {timeout} s: {condition}")
        slicer.app.processEvents()
        idle(0.002)
    slicer.app.processEvents()


def idle(seconds: float) -> None:
    """Let time pass as in the event loop; on the bridge no Python thread gets on meanwhile, as in Slicer's own loop."""
    time.sleep(seconds) if inSlicer() else bridge.idle(seconds)


class Gap:
    """Longest time in milliseconds during which the event loop did not come round, and the most computing time that
    its thread took meanwhile (`busy`), which other programs do not lengthen."""

    def __init__(self):
        self.milliseconds = self.busy = 0.0
        self._last = time.perf_counter(), time.thread_time()

    def tick(self):
        now = time.perf_counter(), time.thread_time()
        self.milliseconds = max(self.milliseconds, 1000 * (now[0] - self._last[0]))
        self.busy = max(self.busy, 1000 * (now[1] - self._last[1]))
        self._last = now


@contextlib.contextmanager
def worstGap():
    """``with worstGap() as gap: ...; gap.milliseconds``. Ticks every 2 ms."""
    gap, timer = Gap(), qt.QTimer()
    timer.setInterval(2)
    timer.setTimerType(qt.Qt.PreciseTimer)
    timer.timeout.connect(gap.tick)
    slicer.app.processEvents()
    gap.tick()
    timer.start()
    try:
        yield gap
    finally:
        timer.stop()
        gap.tick()


# What went wrong, and how it looked


def slotErrors() -> list[BaseException]:
    """Exceptions that Qt or VTK swallowed; a test ends with none. Only the bridge can tell."""
    return [] if inSlicer() else bridge.errors


def screenshot(widget, name: str, width: int = 460, height: int = 0) -> Path:
    """Draw ``widget`` into Testing/slicer/screenshots/NAME.png."""
    SCREENSHOTS.mkdir(exist_ok=True)
    widget.resize(width, height or max(200, widget.sizeHint.height(), widget.heightForWidth(width)))
    widget.show()
    for _ in range(3):
        slicer.app.processEvents()
    path = SCREENSHOTS / f"{name}.png"
    if not widget.grab().save(str(path)):
        raise AssertionError(f"could not write {path}")
    pictures.reduce(path)
    return path


def sliceImage(view: str = "Red"):
    """What a slice view shows, as a QImage (on the bridge)."""
    return slicer.app.layoutManager().sliceWidget(view).image()


ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def straightenViews() -> None:
    """The usual layout, with slice views along the axes of the patient: showing an oblique volume turns them to its
    own."""
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        manager.removeAllMaximizedViewNodes()
    for name, orientation in ORIENTATIONS.items() if manager is not None else ():
        widget = manager.sliceWidget(name)
        if widget is not None:
            widget.sliceLogic().GetSliceNode().SetOrientation(orientation)


@contextlib.contextmanager
def idleWorkersKept():
    """A closed scene leaves workers that do nothing alone: otherwise each test would start another."""
    engines = sys.modules.get("MedGenSlicer.engine.engine")
    if engines is None:
        yield
        return
    end = engines.Engine._end

    def endBusy(engine, error=None):
        if engine.state != "ready":
            end(engine, error)

    with mock.patch.object(engines.Engine, "_end", endBusy):
        yield


class SlicerTestCase(unittest.TestCase):
    """An empty scene and straight views before each test; no swallowed exception after it."""

    keepsWorkers = False
    """Whether a worker that does nothing survives the emptying of the scene."""

    def setUp(self):
        with idleWorkersKept() if self.keepsWorkers else contextlib.nullcontext():
            slicer.mrmlScene.Clear(0)
        straightenViews()
        slicer.app.processEvents()
        slotErrors().clear()

    def tearDown(self):
        slicer.app.processEvents()
        self.assertEqual(slotErrors(), [])

    def temporaryFolder(self) -> Path:
        folder = tempfile.mkdtemp(prefix="medgen-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def requireWorker() -> None:
    """Skip the tests of a class where the worker's packages are missing, as in a new Slicer."""
    useModuleFolder()
    from MedGenSlicer.engine.dependencies import Dependencies

    missing = [need.name for need in Dependencies().missing()]
    if missing:
        raise unittest.SkipTest(f"the worker needs {', '.join(missing)}: install them with the button of MedGen")


def rememberSetting(case: unittest.TestCase, name: str) -> None:
    """Take a setting of the application away during a test."""
    settings = slicer.app.settings()
    before = settings.value(name, "") or ""
    settings.remove(name)
    case.addCleanup(lambda: settings.setValue(name, before) if before else settings.remove(name))


# Nodes

TISSUES = ("fat", "soft tissue", "bone", "lung or gas")
HIPPOCAMPUS = ("anterior hippocampus", "posterior hippocampus")


def _load(file: str, name: str, **properties):
    return slicer.util.loadVolume(str(SAMPLES / file), {"name": name, "show": False, **properties})


def colorTable(names, name: str = "labels"):
    """A color table that gives the values 1, 2, ... names."""
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
    table.SetTypeToUser()
    table.SetNumberOfColors(len(names) + 1)
    table.SetColor(0, "background", 0, 0, 0, 0)
    for value, label in enumerate(names, 1):
        table.SetColor(value, label, 0.2 * value, 0.8 - 0.1 * value, 0.4, 1)
    return table


def crop(node, size: int, center=None):
    """Cut a cube of ``size`` voxels about ``center`` (i, j, k; the middle) out of a volume node, in place."""
    array = slicer.util.arrayFromVolume(node)
    middle = center[::-1] if center else [n // 2 for n in array.shape]
    starts = [min(max(0, m - size // 2), max(0, n - size)) for m, n in zip(middle, array.shape, strict=True)]
    cut = array[tuple(slice(s, s + size) for s in starts)].copy()
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    origin = matrix.MultiplyPoint((*starts[::-1], 1.0))
    slicer.util.updateVolumeFromArray(node, cut)
    node.SetOrigin(origin[:3])
    return node


def ctMaskNode(size: int | None = 32, names=TISSUES):
    """Label map of an abdomen with named tissues, 3 mm; ``size``: only a cube (24 or more holds all four)."""
    node = _load("ct_tissue_mask.nii.gz", "Abdomen", labelmap=True)
    if size:
        crop(node, size, center=(60, 28, 96))
    node.GetDisplayNode().SetAndObserveColorNodeID(colorTable(names, "tissues").GetID())
    return node


def _segmentation(labels, names, name: str):
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, segmentation)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(labels)
    color = labels.GetDisplayNode().GetColorNode()
    slicer.mrmlScene.RemoveNode(labels)
    slicer.mrmlScene.RemoveNode(color)
    found = segmentation.GetSegmentation()
    assert [found.GetNthSegment(i).GetName() for i in range(found.GetNumberOfSegments())] == list(names)
    return segmentation


def ctSegmentation(size: int | None = 32):
    """ctMaskNode() as a segmentation node with four segments."""
    return _segmentation(ctMaskNode(size), TISSUES, "Abdomen segmentation")


def hippocampusSegmentation():
    """Segmentation of a hippocampus, 35 x 51 x 35 voxels of 1 mm, two segments."""
    labels = _load("hippocampus_mask.nii.gz", "Hippocampus labels", labelmap=True)
    labels.GetDisplayNode().SetAndObserveColorNodeID(colorTable(HIPPOCAMPUS, "hippocampus").GetID())
    return _segmentation(labels, HIPPOCAMPUS, "Hippocampus")


def headVolume(size: int | None = 64):
    """T1w MR of a head, 1 mm, oblique; ``size``: only its middle."""
    node = _load("head_t1.nii.gz", "Head T1")
    return crop(node, size) if size else node


def obliqueTransform(degrees: float = 20.0, shift=(11.0, -7.0, 5.0)):
    """A rigid linear transform node about a skew axis."""
    transform = vtk.vtkTransform()
    transform.Translate(*shift)
    transform.RotateWXYZ(degrees, 1.0, 2.0, 3.0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Oblique")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


def matrixOf(node) -> np.ndarray:
    """IJK to RAS of a volume node in its own frame."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
