"""The panel during and after runs: real worker, real models, real clicks."""

import json
import os
import shutil
import unittest

import numpy as np
import slicer

import support
from MedGenLib.errors import InputError
from MedGenLib.worker.process import kill_tree
from support.panelcase import PanelCase
from support.views import pixels, views

VIEWS = ("Red", "Yellow", "Green")
SECONDS = 180
"""Longest wait for a run or for the worker to start."""


class RunCase(PanelCase):
    """Starts runs by clicking and waits for their end."""

    def setUp(self):
        super().setUp()
        self.choose(self.ui.presetComboBox, "draft")

    def selectHippocampus(self):
        mask = support.hippocampusSegmentation()
        self.settle()
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)
        return mask

    def waitForStage(self, words):
        support.processUntil(
            lambda: words in self.ui.statusLabel.text.lower() or not self.panel.sections["run"].isRunning, SECONDS
        )
        self.assertTrue(self.panel.sections["run"].isRunning, self.ui.failureLabel.text)

    def waitForEnd(self):
        support.processUntil(lambda: not self.panel.sections["run"].isRunning, SECONDS)
        self.settle()

    def waitForResult(self):
        self.waitForEnd()
        self.assertTrue(self.isShown(self.ui.resultFrame), self.ui.failureLabel.text or self.ui.statusLabel.text)
        return self.panel.sections["result"].node()

    def volumes(self):
        return len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))


class GenerateRunTest(RunCase):
    def test_oneClickMakesAVolumeOverTheMask(self):
        self.choose(self.ui.presetComboBox, "best")  # slow enough to be looked at
        mask = self.selectHippocampus()
        before = choices(self.parameters)
        self.ui.generateButton.click()
        self.assertTrue(self.isShown(self.ui.cancelButton))
        self.assertFalse(self.isShown(self.ui.generateButton))
        self.waitForStage("sampling, step 3")
        self.screenshot("running")
        self.assertTrue(self.isShown(self.ui.progressBar))
        self.assertTrue(self.ui.progressBar.maximum > 1)
        # Nothing about the run is in the scene: the drawn seed is a choice.
        self.assertEqual({**choices(self.parameters), "seed": 0}, {**before, "seed": 0})

        node = self.waitForResult()
        self.assertEqual(slicer.util.arrayFromVolume(node).shape, (35, 51, 35))
        self.assertIn("synthetic", node.GetName())
        self.assertIn(mask.GetName(), node.GetName())
        self.assertIn("quality checks", self.ui.verdictLabel.text)
        self.assertIn("Not for diagnosis", self.ui.disclaimerLabel.text)
        self.assertFalse(self.isShown(self.ui.cancelButton))
        self.assertIn("Ready: ", self.ui.readinessLabel.text)
        self.assertEqual(self.parameters.evaluateImage.GetID(), node.GetID())
        self.assertEqual(self.parameters.evaluateLabels.GetID(), mask.GetID())
        self.screenshot("done")

    def test_sameAgainIsTheSameVolume(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        result = self.waitForResult()
        first = slicer.util.arrayFromVolume(result).copy()
        self.ui.sameAgainButton.click()
        again = self.waitForResult()
        self.assertEqual(self.volumes(), 2)
        self.assertTrue(np.array_equal(first, slicer.util.arrayFromVolume(again)))
        self.assertEqual(again.GetAttribute("MedGen.Seed"), result.GetAttribute("MedGen.Seed"))

    def test_copyAsPythonRepeatsTheRun(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        result = self.waitForResult()
        first = slicer.util.arrayFromVolume(result).copy()
        self.ui.copyPythonButton.click()
        line = self.answers.copied[-1]
        self.assertIn(f"seed={result.GetAttribute('MedGen.Seed')}", line)
        node = eval(line, {"slicer": slicer})  # noqa: S307 - the line is what is tested
        self.assertTrue(np.array_equal(first, slicer.util.arrayFromVolume(node)))

    @support.slow
    def test_theStyleOfAnotherVolume(self):
        """The deciles of the result are the reference's, whose own scale is another one."""
        self.selectHippocampus()
        reference = support.headVolume(16)
        array = slicer.util.arrayFromVolume(reference)
        array[:] = np.linspace(1000, 3000, array.size).reshape(array.shape)
        slicer.util.arrayFromVolumeModified(reference)
        before = array.copy()
        self.ui.styleSelector.setCurrentNode(reference)
        self.settle()
        self.ui.generateButton.click()
        found = slicer.util.arrayFromVolume(self.waitForResult())
        self.assertTrue(np.allclose(np.percentile(found, (10, 50, 90)), np.percentile(before, (10, 50, 90)), atol=20))
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(reference), before))

    def test_samplesAndTheirSpread(self):
        self.selectHippocampus()
        self.ui.samplesSpinBox.setValue(2)
        self.ui.spreadCheckBox.setChecked(True)
        self.settle()
        self.ui.generateButton.click()
        self.waitForResult()
        self.assertEqual(self.ui.resultComboBox.count, 3)
        self.assertTrue(self.isShown(self.ui.resultComboBox))
        self.ui.resultComboBox.setCurrentIndex(2)
        spread = slicer.util.arrayFromVolume(self.panel.sections["result"].node())
        self.assertGreaterEqual(spread.min(), 0)
        self.assertGreater(spread.max(), 0)

    def test_resultIsSeenAndTheMaskIsBlendedIn(self):
        mask = self.selectHippocampus()
        self.ui.generateButton.click()
        node = self.waitForResult()
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        self.assertEqual((composite.GetBackgroundVolumeID(), self.ui.blendSlider.value), (node.GetID(), 0))
        if not support.inSlicer():
            gray = [(np.ptp(pixels(view).astype(int), axis=2) < 9) & (pixels(view).max(axis=2) > 30) for view in VIEWS]
            self.assertTrue(all(share.mean() > 0.1 for share in gray), [share.mean() for share in gray])
        self.assertFalse(mask.GetDisplayNode().GetVisibility2DFill())
        self.ui.blendSlider.setValue(25)
        self.assertTrue(mask.GetDisplayNode().GetVisibility2DFill())
        self.assertAlmostEqual(mask.GetDisplayNode().GetOpacity2DFill(), 0.25)

    def test_sideBySideAnd3DAreSwitches(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForResult()
        manager = slicer.app.layoutManager()
        layout, before = manager.layout, views()
        self.ui.compareButton.click()
        self.assertTrue(self.ui.compareButton.checked)
        self.assertFalse(self.ui.blendSlider.enabled)
        self.ui.show3DButton.click()
        self.assertEqual((self.ui.compareButton.checked, self.ui.show3DButton.checked), (False, True))
        self.assertEqual((manager.layout, views()), (layout, before))
        self.ui.compareButton.click()
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
        slicer.app.processEvents()
        self.assertFalse(self.ui.compareButton.checked)
        self.assertTrue(self.ui.blendSlider.enabled)

    @support.slow
    def test_layoutChangedDuringTheRun(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForResult()
        self.ui.compareButton.click()
        self.ui.sameAgainButton.click()
        manager = slicer.app.layoutManager()
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
        node = self.waitForResult()
        self.assertEqual(manager.layout, slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
        self.assertEqual(manager.sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID(), node.GetID())
        self.assertFalse(self.ui.compareButton.checked)

    @support.slow
    def test_overwritingAfterAYes(self):
        self.selectHippocampus()
        output = support.headVolume(16)
        self.ui.generateOutputSelector.setCurrentNode(output)
        self.settle()
        self.ui.generateButton.click()
        self.assertEqual(len(self.answers.asked), 1)
        self.assertEqual(self.waitForResult().GetID(), output.GetID())
        self.assertEqual(slicer.util.arrayFromVolume(output).shape, (35, 51, 35))

    @support.slow
    def test_deletedOneByOne(self):
        """The result that is shown, then the mask, then the last result: the views follow."""
        mask = self.selectHippocampus()
        self.ui.samplesSpinBox.setValue(2)
        self.settle()
        self.ui.generateButton.click()
        first = self.waitForResult()
        self.ui.compareButton.click()
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        slicer.mrmlScene.RemoveNode(first)
        slicer.app.processEvents()
        second = self.panel.sections["result"].node()
        self.assertIsNot(second, first)
        self.assertFalse(self.isShown(self.ui.resultComboBox))
        self.assertTrue(self.ui.compareButton.checked)
        slicer.mrmlScene.RemoveNode(mask)
        slicer.app.processEvents()
        self.assertFalse(self.ui.compareButton.checked)
        for widget in (self.ui.compareButton, self.ui.blendSlider):
            self.assertFalse(widget.enabled)
        self.assertEqual(composite.GetBackgroundVolumeID(), second.GetID())
        slicer.mrmlScene.RemoveNode(second)
        slicer.app.processEvents()
        self.assertFalse(self.isShown(self.ui.resultFrame))
        self.assertIsNone(composite.GetBackgroundVolumeID())

    @support.slow
    def test_deletedResultHidesItsBox(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        slicer.mrmlScene.RemoveNode(self.waitForResult())
        slicer.app.processEvents()
        self.assertFalse(self.isShown(self.ui.resultFrame))


class TranslateRunTest(RunCase):
    def test_headToCT(self):
        image = support.headVolume(48)
        self.settle()
        self.acceptLicense()
        self.ui.translateButton.click()
        node = self.waitForResult()
        self.assertTrue(np.allclose(support.matrixOf(node), support.matrixOf(image)))
        self.assertEqual(node.GetAttribute("MedGen.Task"), "translate")

    @support.slow
    def test_uncertaintyOfATranslation(self):
        support.headVolume(48)
        self.settle()
        self.acceptLicense()
        self.ui.spreadCheckBox.setChecked(True)
        self.settle()
        self.assertTrue(self.ui.spreadCheckBox.enabled)
        self.ui.translateButton.click()
        self.waitForResult()
        self.assertEqual(self.ui.resultComboBox.count, 2)
        self.ui.resultComboBox.setCurrentIndex(1)
        node = self.panel.sections["result"].node()
        self.assertIn("half-width of an interval", node.GetDescription())
        spread = slicer.util.arrayFromVolume(node)
        self.assertGreaterEqual(spread.min(), 0)
        self.assertGreater(spread.max(), 0)
        self.assertEqual(self.parameters.evaluateUncertainty.GetID(), node.GetID())

    def test_thirdPartyScriptUsesOnlyTheNames(self):
        """Selectors and the button of the other tab, without opening it."""
        image = support.headVolume(48)
        self.ui.taskTabWidget.setCurrentIndex(0)
        self.ui.translateInputSelector.setCurrentNode(image)
        self.settle()
        self.ui.translateTargetComboBox.setCurrentIndex(self.ui.translateTargetComboBox.findData("CT"))
        self.ui.taskTabWidget.setCurrentIndex(1)
        self.settle()
        self.acceptLicense()
        self.ui.taskTabWidget.setCurrentIndex(0)
        self.settle()
        self.ui.translateButton.click()
        self.waitForResult()


class CancelAndFailureTest(RunCase):
    def setUp(self):
        super().setUp()
        self.choose(self.ui.presetComboBox, "best")  # slow enough to be interrupted

    def test_cancelLeavesNothing(self):
        self.selectHippocampus()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.ui.generateButton.click()
        self.waitForStage("step")
        self.ui.cancelButton.click()
        self.assertFalse(self.ui.cancelButton.enabled)
        self.waitForEnd()
        self.assertIn("cancelled", self.ui.statusLabel.text)
        self.assertFalse(self.isShown(self.ui.failureFrame))
        self.assertFalse(self.isShown(self.ui.resultFrame))
        self.assertTrue(self.ui.generateButton.enabled)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_killedWorkerIsOneSentenceAndTryAgainWorks(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForStage("step")
        kill_tree(self.logic.engine.info["pid"])
        self.waitForEnd()
        self.assertTrue(self.isShown(self.ui.failureFrame))
        self.assertIn("ended unexpectedly", self.ui.failureLabel.text)
        self.screenshot("failed")
        self.ui.copyReportButton.click()
        report = self.answers.copied[-1]
        for words in ("ended unexpectedly", "Python", "torch"):
            self.assertIn(words, report)
        self.assertEqual(self.ui.failureActionButton.text, "Try again")
        self.ui.failureActionButton.click()
        self.waitForResult()
        self.assertFalse(self.isShown(self.ui.failureFrame))

    @support.slow
    def test_earlierResultIsThereAgain(self):
        """After a run that was cancelled or has failed: box, blend, side by side and the pixels of the views."""
        self.selectHippocampus()
        self.choose(self.ui.presetComboBox, "draft")
        self.ui.generateButton.click()
        node = self.waitForResult()
        self.choose(self.ui.presetComboBox, "best")
        self.ui.blendSlider.setValue(40)
        cancel, kill = self.ui.cancelButton.click, lambda: kill_tree(self.logic.engine.info["pid"])
        for button, stop in ((None, kill), (self.ui.compareButton, cancel), (self.ui.show3DButton, kill)):
            if button is not None:
                button.click()
                slicer.app.processEvents()
            before = self.shown()
            self.ui.generateButton.click()
            self.waitForStage("step")
            self.assertFalse(self.isShown(self.ui.resultFrame))
            stop()
            self.assertIs(self.waitForResult(), node)
            self.assertEqual(self.shown(), before)
        self.assertTrue(self.isShown(self.ui.failureFrame))

    def shown(self):
        """The box of the result and what the views show."""
        ui = self.ui
        states = [ui.blendSlider.value, ui.blendSlider.enabled, ui.compareButton.checked, ui.show3DButton.checked]
        drawn = [] if support.inSlicer() else [pixels(view).tobytes() for view in VIEWS]
        return states, ui.verdictLabel.text, slicer.app.layoutManager().layout, views(), drawn

    def test_closingTheSceneStopsTheRunWithASentence(self):
        self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForStage("step")
        slicer.mrmlScene.Clear(0)
        self.waitForEnd()
        self.assertTrue(self.isShown(self.ui.statusLabel))
        self.assertIn("scene was closed", self.ui.statusLabel.text)
        self.assertFalse(self.isShown(self.ui.failureFrame))
        self.assertEqual(self.volumes(), 0)
        self.selectHippocampus()
        self.choose(self.ui.presetComboBox, "draft")
        self.ui.generateButton.click()
        self.waitForResult()

    def test_deletedInputStopsTheRun(self):
        mask = self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForStage("step")
        slicer.mrmlScene.RemoveNode(mask)
        self.waitForEnd()
        self.assertIn("deleted during the run", self.ui.failureLabel.text)

    def test_workerThatCannotStart(self):
        self.logic.engine.kill()
        self.addCleanup(setattr, self.panel.sections["readiness"], "state", "")
        support.processUntil(lambda: not self.logic.engine.isStopping, 30)
        self.logic.engine.python = "/no/such/python"
        self.addCleanup(setattr, self.logic.engine, "python", None)
        self.selectHippocampus()
        self.ui.generateButton.click()
        self.waitForEnd()
        self.assertIn("cannot start", self.ui.failureLabel.text)


class WarmUpTest(RunCase):
    def test_workerStartsQuietlyOnceAnInputIsSelected(self):
        self.logic.engine.kill()
        self.panel.sections["readiness"].state = ""
        self.panel.sections["readiness"].refresh()
        self.assertEqual(self.logic.engine.state, "off")
        self.selectHippocampus()
        self.assertEqual(self.logic.engine.state, "off")
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", SECONDS)
        self.assertIn("free", self.ui.readinessLabel.text)
        self.assertGreaterEqual(self.ui.deviceComboBox.findData("cpu"), 1)
        self.screenshot("ready-generate")

    def test_sceneClosedWhileTheWorkerStarts(self):
        self.logic.engine.kill()
        self.panel.sections["readiness"].state = ""
        self.panel.sections["readiness"].refresh()
        self.selectHippocampus()
        support.processUntil(lambda: self.logic.engine.state == "starting", 10)
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertNotEqual(self.panel.sections["readiness"].state, "failed", self.ui.readinessLabel.text)
        self.selectHippocampus()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", SECONDS)


class ModelsTest(RunCase):
    def test_addAndRemove(self):
        source = self.temporaryFolder() / "mine"
        shutil.copytree(support.ROOT / "Resources" / "Models" / "head-ct-to-mr", source)
        metadata = source / "configs" / "metadata.json"
        data = json.loads(metadata.read_text(encoding="utf-8"))
        metadata.write_text(json.dumps({**data, "name": "my-model"}), encoding="utf-8")
        self.openPage("modelsPage")
        self.settle()
        count = self.ui.modelsTable.rowCount
        self.answers.path = str(source)
        self.ui.addModelButton.menu().actions()[0].trigger()
        support.processUntil(lambda: "…" not in self.ui.modelsLabel.text, SECONDS)
        self.assertEqual(self.ui.modelsTable.rowCount, count + 1, self.ui.modelsLabel.text)
        row = self.rowOf("my-model")
        self.assertEqual(self.ui.modelsTable.item(row, 1).text(), "CC-BY-NC-4.0")
        self.ui.modelsTable.selectRow(row)
        self.assertTrue(self.ui.removeModelButton.enabled)
        self.ui.removeModelButton.click()
        support.processUntil(lambda: self.ui.modelsTable.rowCount == count, SECONDS)
        self.ui.modelsTable.selectRow(self.rowOf("ct-tissue"))
        self.assertFalse(self.ui.removeModelButton.enabled)

    def test_everyModelSaysWhatItIsFor(self):
        self.openPage("modelsPage")
        self.settle()
        table = self.ui.modelsTable
        installed = [row for row in range(table.rowCount) if "not installed" not in table.item(row, 0).toolTip()]
        self.assertEqual(len(installed), len(self.logic.models()))
        self.assertIn("makes images from masks", table.item(self.rowOf("ct-tissue"), 0).toolTip())
        segmenter = next((model.name for model in self.logic.models() if model.task == "segment"), None)
        self.assertIsNotNone(segmenter)
        self.assertIn("finds labels in images", table.item(self.rowOf(segmenter), 0).toolTip())
        offered = [self.ui.generateModelComboBox.itemData(row) for row in range(self.ui.generateModelComboBox.count)]
        self.assertNotIn(segmenter, offered)
        with self.assertRaises(InputError) as caught:
            self.logic.generate(support.hippocampusSegmentation(), model=segmenter)
        self.assertIn("serves the evaluation", str(caught.exception))

    def test_whatIsNoModelIsSaid(self):
        self.answers.path = str(self.temporaryFolder())
        self.ui.addModelButton.menu().actions()[0].trigger()
        support.processUntil(lambda: "…" not in self.ui.modelsLabel.text, SECONDS)
        self.assertIn(os.path.basename(self.answers.path), self.ui.modelsLabel.text)

    def rowOf(self, name):
        table = self.ui.modelsTable
        return next(row for row in range(table.rowCount) if table.item(row, 0).toolTip().startswith(f"{name}:"))


class InstalledTest(RunCase):
    def test_journeyThatTheInstalledModuleTests(self):
        import MedGen

        test = MedGen.MedGenTest()
        test.setUp()
        test.test_sampleJourney()


def choices(parameters):
    """Every value of the parameter node; nodes by ID."""
    values = {name: parameters.getValue(name) for name in parameters.allParameters}
    return {name: value.GetID() if hasattr(value, "GetID") else value for name, value in values.items()}


if __name__ == "__main__":
    unittest.main()
