"""MedGen in 3D Slicer: module, panel, console API and tests. The work is in MedGenSlicer and MedGenLib.

In the Python console::

    logic = slicer.util.getModuleLogic("MedGen")
    ct = logic.generate(slicer.util.getNode("Segmentation"), model="ct-tissue", seed=7)
"""

import importlib
import json
import sys
import unittest

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from MedGenSlicer import paths

paths.ensureLibrary()


def __getattr__(name: str):
    """`MedGen.MedGenLogic`, imported when it is first asked for: Slicer loads this file at each of its starts."""
    if name == "MedGenLogic":
        from MedGenSlicer.logic import MedGenLogic

        return MedGenLogic
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class MedGen(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedGen")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        about = json.loads(paths.resource("extension.json").read_text(encoding="utf-8"))
        parent.contributors = about["contributors"]
        parent.helpText = _(
            "Makes synthetic CT and MR volumes from segmentations, and translates CT and MR of the head into each"
            " other. Choose an input, press one button: the new volume lies exactly over the input."
            " Synthetic images are for research and teaching, not for diagnosis."
        )
        parent.helpText += f'<p><a href="{about["homepage"]}#documentation">{_("Documentation")}</a></p>'
        parent.acknowledgementText = _(
            "The models were trained on public data; each model card names them with their licenses."
        )
        parent.acknowledgementText += f"<p>{_('How to cite:')} {about['citation']}</p>"
        icon = paths.resource("Icons/MedGen.png")
        if icon.is_file():
            parent.icon = qt.QIcon(str(icon))
        slicer.app.connect("startupCompleted()", onStartup)


def onStartup() -> None:
    """Slicer is there; the panel may never be opened."""
    registerSamples()
    slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, onImported)


def onImported(caller=None, event=None) -> None:
    """A scene that was saved while a mask was an outline over a result: the mask is drawn as the user had it."""
    from MedGenSlicer.results.outline import giveBackSaved

    giveBackSaved()


def registerSamples() -> None:
    """Offer the embedded examples in the Sample Data module."""
    from MedGenSlicer import samples

    samples.register()


class MedGenWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connects the panel to Slicer: scene, parameter node, reload."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.ui = None
        self.panel = None

    def setup(self) -> None:
        """Called when the user opens the module the first time."""
        from MedGenSlicer.logic import MedGenLogic
        from MedGenSlicer.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        registerSamples()  # a module that is loaded later hears of no startup
        form = slicer.util.loadUI(str(paths.resource("UI/MedGen.ui")))
        self.layout.addWidget(form)
        self.ui = slicer.util.childWidgetVariables(form)
        form.setMRMLScene(slicer.mrmlScene)
        self.logic = MedGenLogic()
        self.panel = Panel(self.ui, self.logic)

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneImported)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and before the module is reloaded."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
        if self.logic is not None:
            self.logic.cleanup()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        # Slicer 5.10 keeps what every wrapper of a node observes, so one that fits is not made again.
        shown = self.panel.context.parameters
        if shown is None or shown.parameterNode is not self.logic.parameterNode():
            self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens a different module; a run continues."""
        self.panel.exit()

    def initializeParameterNode(self) -> None:
        """Ensure that the parameter node exists and that the panel shows it."""
        self.panel.setParameterNode(self.logic.getParameterNode())

    def onSceneStartClose(self, caller=None, event=None) -> None:
        self.panel.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None) -> None:
        self.initializeParameterNode()

    def onSceneImported(self, caller=None, event=None) -> None:
        onImported()  # a module that is loaded later hears of no startup
        self.initializeParameterNode()
        self.panel.nodesArrived()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, node) -> None:
        if node is not None and not slicer.mrmlScene.IsBatchProcessing() and self.panel.takes(node):
            self.panel.nodesArrived()

    def onReload(self) -> None:
        """Reload the whole module: Slicer itself reloads this file only."""
        self.logic.cleanup()
        for name in [name for name in sys.modules if name.split(".")[0] in ("MedGenSlicer", "MedGenLib")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)


class MedGenTest(ScriptedLoadableModuleTest):
    """Runs the tests of the source checkout, or one journey on sample data where there is none."""

    def runTest(self, **kwargs) -> None:
        folder = paths.testsFolder()
        if folder is None:
            self.setUp()
            self.test_sampleJourney()
            return
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        scripts = sorted(folder.glob("*/test_*.py"))
        stale = {"support", *(script.stem for script in scripts)}
        for name in [name for name in sys.modules if name.split(".")[0] in stale]:
            del sys.modules[name]  # of an earlier run, and of the code before a reload
        suite = unittest.TestSuite()
        for place in dict.fromkeys(str(script.parent) for script in scripts):
            suite.addTests(unittest.TestLoader().discover(place, pattern="test_*.py", top_level_dir=place))
        result = unittest.TextTestRunner(verbosity=2).run(suite)
        if not result.wasSuccessful():
            problems = "\n".join(text for _case, text in result.failures + result.errors)
            raise AssertionError(f"{len(result.failures) + len(result.errors)} tests failed:\n{problems}")

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def test_sampleJourney(self) -> None:
        """Sample mask in, synthetic volume on the same grid out."""
        from MedGenSlicer import samples

        logic = slicer.util.getModuleLogic("MedGen")
        if missing := logic.dependencies.missing():
            self.skipTest("not installed yet: " + ", ".join(need.name for need in missing))
        mask = samples.loadFor("mr-hippocampus")
        volume = logic.generate(mask, model="mr-hippocampus", seed=1, preset="draft")
        self.assertIsNotNone(volume.GetImageData())
        self.assertEqual(volume.GetAttribute("MedGen.Synthetic"), "1")
