"""The panel before a run: proposals, input check, labels, license, output, in words."""

import json
import unittest
import xml.etree.ElementTree as ElementTree
from unittest.mock import patch

import numpy as np
import qt
import slicer
import vtk

import support
from support.panelcase import WIDTH, PanelCase, ctVolume

NAMES = (
    "taskTabWidget",
    "generateInputSelector",
    "generateModelComboBox",
    "generateOutputSelector",
    "generateButton",
    "translateInputSelector",
    "translateTargetComboBox",
    "translateModelComboBox",
    "translateOutputSelector",
    "translateButton",
    "cancelButton",
    "progressBar",
    "statusLabel",
    "seedSpinBox",
    "presetComboBox",
    "deviceComboBox",
    "installButton",
)


class EmptyPanelTest(PanelCase):
    def test_namesThatScriptsRelyOn(self):
        for name in NAMES:
            self.assertEqual(getattr(self.ui, name).objectName, name)

    def test_emptySceneAsksForAnInput(self):
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertIn("Select", self.ui.checkLabel.text)
        self.assertEqual(self.ui.generateButton.toolTip, self.ui.checkLabel.text)
        self.assertTrue(self.isShown(self.ui.sampleButton))
        for widget in (self.ui.cancelButton, self.ui.progressBar, self.ui.failureFrame, self.ui.resultFrame):
            self.assertFalse(self.isShown(widget))
        self.assertIn("Not for diagnosis", self.ui.disclaimerLabel.text)

    def test_sampleDataIsLoadedAndSelected(self):
        self.ui.sampleButton.click()
        self.settle()
        self.assertIsNotNone(self.ui.generateInputSelector.currentNode())
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)

    def test_fitsIntoAModulePanel(self):
        support.hippocampusSegmentation()
        self.settle()
        image = support.headVolume(16)
        image.SetName("T1 MPRAGE SAGITTAL ISO POST GADOLINIUM MULTIPLANAR RECONSTRUCTION OF THE WHOLE HEAD 1 MM")
        self.parameters.evaluateImage = image
        for section in (self.ui.evaluateSection, self.ui.exportSection):
            section.collapsed = False
            self.addCleanup(setattr, section, "collapsed", True)
        host = slicer.modules.medgen.widgetRepresentation()
        for page in (
            "editPage",
            "lesionPage",
            "enhancePage",
            "breathePage",
            "optionsPage",
            "aboutPage",
            "modelsPage",
            "studyPage",
            "logPage",
        ):
            self.openPage(page)
            self.settle()
            self.assertLessEqual(host.minimumSizeHint.width(), WIDTH, page)

    def test_everyInputHasATooltipAndEveryLabelItsBuddy(self):
        form = ElementTree.parse(str(support.ROOT / "Resources" / "UI" / "MedGen.ui")).getroot()
        widgets = {element.get("name"): element for element in form.iter("widget")}
        inputs = [
            name
            for name, element in widgets.items()
            if element.get("class")
            in ("qMRMLNodeComboBox", "QComboBox", "QSpinBox", "QCheckBox", "QSlider", "QPushButton", "QToolButton")
        ]
        for name in inputs:
            self.assertTrue(widgets[name].findtext("property[@name='toolTip']/string"), f"{name} has no tooltip")
        stops = [element.text for element in form.find("tabstops")]
        self.assertEqual(sorted(set(inputs) - set(stops)), [], "not reached by the Tab key")
        self.assertEqual(sorted(set(stops) - set(widgets)), [])
        for layout in form.iter("layout"):
            if layout.get("class") == "QFormLayout":
                for item in layout.findall("item[@column='0']/widget[@class='QLabel']"):
                    buddy = item.findtext("property[@name='buddy']/cstring")
                    if not item.findtext("property[@name='wordWrap']/bool"):
                        self.assertIn(buddy, widgets, item.get("name"))


class ProposalTest(PanelCase):
    def test_segmentationMeansGenerate(self):
        mask = support.hippocampusSegmentation()
        self.settle()
        self.assertEqual(self.ui.taskTabWidget.currentIndex, 0)
        self.assertEqual(self.ui.generateInputSelector.currentNode().GetID(), mask.GetID())
        self.assertEqual(self.panel.tab.manifest.name, "mr-hippocampus")
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)
        self.assertIn("Plan:", self.ui.planLabel.text)

    def test_volumeMeansTranslateToTheOtherModality(self):
        image = support.headVolume()
        self.settle()
        self.assertEqual(self.ui.taskTabWidget.currentIndex, 1)
        self.assertEqual(self.ui.translateInputSelector.currentNode().GetID(), image.GetID())
        self.assertEqual(self.panel.tab.target, "CT")
        shown = [
            self.isShown(selector) for selector in (self.ui.translateInputSelector, self.ui.translateOutputSelector)
        ]
        self.assertEqual(shown, [True, True])
        hidden = [
            self.isShown(selector) for selector in (self.ui.generateInputSelector, self.ui.generateOutputSelector)
        ]
        self.assertEqual(hidden, [False, False])

    def test_targetFollowsTheImageUntilItIsChosen(self):
        support.headVolume()
        self.settle()
        ct = ctVolume()
        self.ui.translateInputSelector.setCurrentNode(ct)
        self.settle()
        self.assertEqual(self.panel.tab.target, "T1w")
        self.assertEqual(self.panel.tab.manifest.name, "head-ct-to-mr")
        self.choose(self.ui.translateTargetComboBox, "CT")
        self.ui.translateInputSelector.setCurrentNode(None)
        self.ui.translateInputSelector.setCurrentNode(ct)
        self.settle()
        self.assertEqual(self.panel.tab.target, "CT")

    def test_laterNodesNeverChangeAChoice(self):
        self.ui.taskTabWidget.setCurrentIndex(1)
        support.hippocampusSegmentation()
        self.settle()
        self.assertEqual(self.ui.taskTabWidget.currentIndex, 1)
        first = support.headVolume()
        self.settle()
        self.assertEqual(self.ui.translateInputSelector.currentNode().GetID(), first.GetID())
        support.headVolume()
        self.settle()
        self.assertEqual(self.ui.translateInputSelector.currentNode().GetID(), first.GetID())

    def test_ownResultsAreNotProposed(self):
        node = support.headVolume()
        node.SetAttribute("MedGen.Synthetic", "1")
        self.panel.nodesArrived()
        self.settle()
        self.assertIsNone(self.ui.translateInputSelector.currentNode())

    def test_manyChangesAreOneCheck(self):
        support.hippocampusSegmentation()
        self.settle()
        real, calls = self.logic.startCheck, []
        self.logic.startCheck = lambda *arguments, **more: calls.append(1) or real(*arguments, **more)
        self.addCleanup(lambda: self.logic.__dict__.pop("startCheck"))
        for preset in ("draft", "best", "normal", "draft"):
            self.choose(self.ui.presetComboBox, preset)
        self.assertEqual(calls, [], "the quality changes nothing about the input")
        combo = self.ui.generateModelComboBox
        for model in ("ct-tissue", "mr-hippocampus", "ct-tissue"):
            combo.setCurrentIndex(combo.findData(model))
        self.settle()
        self.assertEqual(len(calls), 1)

    def test_largeInputDoesNotHoldUpThePanel(self):
        labels = np.zeros((160, 200, 200), np.uint8)
        labels[20:140, 20:180, 20:180] = np.random.default_rng(0).integers(1, 5, (120, 160, 160))
        node = slicer.util.addVolumeFromArray(labels, nodeClassName="vtkMRMLLabelMapVolumeNode")
        node.SetSpacing(2, 2, 2)
        self.settle()
        with support.worstGap() as gap:
            node.Modified()
            self.settle()
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)
        self.assertLess(gap.milliseconds, 500)  # the check itself takes longer


class LabelTableTest(PanelCase):
    def combos(self):
        table = self.ui.labelTable
        return {table.item(row, 0).text(): table.cellWidget(row, 1) for row in range(table.rowCount)}

    def test_namesFillTheTable(self):
        support.ctSegmentation()
        self.settle()
        found = {name: combo.itemData(combo.currentIndex) for name, combo in self.combos().items()}
        self.assertEqual(found, {name: name for name in support.TISSUES})
        self.assertFalse(self.isShown(self.ui.leaveOutButton))

    def test_unknownSegmentIsAskedFor(self):
        mask = support.ctSegmentation()
        mask.GetSegmentation().GetNthSegment(0).SetName("mystery")
        self.settle()
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.assertIn("Choose what 'mystery' becomes", self.ui.labelHintLabel.text)
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertIn("becomes", self.ui.generateButton.toolTip)
        self.choose(self.combos()["mystery"], "fat")
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)
        self.assertEqual(self.panel.tab.arguments()["mapping"]["mystery"], "fat")
        self.assertEqual(json.loads(self.parameters.mapping)["ct-tissue"], {"mystery": "fat"})

    def test_anotherSegmentationInTheSameNode(self):
        mask = support.ctSegmentation()
        self.settle()
        copy = slicer.vtkSegmentation()  # as when its file is read again
        copy.DeepCopy(mask.GetSegmentation())
        copy.GetNthSegment(0).SetName("mystery")
        mask.SetAndObserveSegmentation(copy)
        self.settle()
        self.assertIn("mystery", self.combos())
        copy.GetNthSegment(1).SetName("riddle")
        self.settle()
        self.assertIn("riddle", self.combos())

    def test_choosingKeepsTheBoxes(self):
        support.ctSegmentation()
        self.settle()
        before = self.combos()
        self.choose(before["bone"], "fat")
        self.choose(before["bone"], "0")
        self.assertTrue(all(combo is before[name] for name, combo in self.combos().items()))
        self.assertEqual(self.panel.tab.labels.mapping()["bone"], "0")

    def test_leavingOutTheRest(self):
        mask = support.ctSegmentation()
        for index, name in enumerate(("mystery", "riddle")):
            mask.GetSegmentation().GetNthSegment(index).SetName(name)
        self.settle()
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.assertIn("2 segments", self.ui.labelHintLabel.text)
        self.ui.leaveOutButton.click()
        self.settle()
        self.assertEqual(self.panel.tab.labels.mapping()["riddle"], "0")
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)

    def test_choiceOfAnotherModelIsKept(self):
        support.ctSegmentation()
        self.settle()
        self.choose(self.combos()["bone"], "0")
        self.choose(self.ui.generateModelComboBox, "mr-hippocampus")
        self.assertEqual(len(self.panel.tab.labels.unmapped()), 4)
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.assertEqual(self.panel.tab.labels.mapping()["bone"], "0")

    def test_mappingThatSomebodyBrokeIsIgnored(self):
        support.ctSegmentation()
        for text in ("{", "[1]", '{"ct-tissue": {"bone": "no such label"}}'):
            self.parameters.mapping = text
            self.settle()
            self.assertEqual(self.panel.tab.labels.mapping()["bone"], "bone")


class CheckTest(PanelCase):
    def test_wrongModalityIsSaidAndBlocks(self):
        support.headVolume()
        self.settle()
        self.choose(self.ui.translateTargetComboBox, "T1w")
        self.acceptLicense()
        self.assertIn("MR", self.ui.checkLabel.text)
        self.assertFalse(self.ui.translateButton.enabled)

    def test_unusualSpacingIsSaidAndDoesNotBlock(self):
        mask = support.hippocampusSegmentation()
        self.settle()
        labels = support.ctMaskNode(24)
        labels.SetSpacing(7, 7, 7)
        self.ui.generateInputSelector.setCurrentNode(labels)
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.assertIn("7", self.ui.checkLabel.text)
        self.assertTrue(self.ui.generateButton.enabled)
        self.assertIsNotNone(mask)

    def test_theLabelTableShowsTheHUOfOrgans(self):
        mask = support.ctSegmentation()
        mask.GetSegmentation().GetNthSegment(1).SetName("liver")
        self.settle()
        tips = [self.ui.labelTable.item(row, 0).toolTip() for row in range(self.ui.labelTable.rowCount)]
        self.assertEqual([("HU" in tip) for tip in tips], [False, True, False, False])
        self.assertIn("portal 110", tips[1])

    def test_onlyModelsWithOrgansHaveAPhase(self):
        support.hippocampusSegmentation()
        self.settle()
        shown, widgets = [], (self.ui.phaseLabel, self.ui.phaseComboBox)
        for model in ("ct-tissue", "mr-hippocampus"):
            self.choose(self.ui.generateModelComboBox, model)
            shown.append([widget.isVisibleTo(widget.parent()) for widget in widgets])
        self.assertEqual(shown, [[True, True], [False, False]])
        self.assertEqual(self.panel.tab.arguments()["phase"], "none")

    def test_theUsualNoiseIsNamedWhereNoScanIsChosen(self):
        mask = support.ctMaskNode(24)
        self.settle()
        self.ui.generateInputSelector.setCurrentNode(mask)
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.assertEqual(self.ui.styleSelector.noneDisplay, "Noise 13 HU, usual at 3 mm")
        self.choose(self.ui.generateModelComboBox, "mr-hippocampus")
        self.assertEqual(self.ui.styleSelector.noneDisplay, "No particular scan")

    def test_findingsSpeakOfThePanel(self):
        image = support.headVolume()
        image.SetAttribute("MedGen.Modality", "FLAIR")
        self.settle()
        self.acceptLicense()
        self.assertIn("FLAIR", self.ui.checkLabel.text)
        for word in ("--", "Python", "command line"):
            self.assertNotIn(word, self.ui.checkLabel.text)

    def test_hintsForTheCommandLineAreLeftOut(self):
        from MedGenSlicer.panel.words import inPanel

        for sentence, shown in (
            ("Fill it with fat (command line: --fill 'fat').", "Fill it with fat."),
            ("State it (command line: --modality MR, Python: read_volume(..., modality=...)).", "State it."),
            (
                "They were read by number; state it with --map (Python: mapping=).",
                "They were read by number; make a segmentation of it and give each segment a name.",
            ),
        ):
            self.assertEqual(inPanel(sentence), shown)

    def test_emptySegmentation(self):
        mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
        self.ui.generateInputSelector.setCurrentNode(mask)
        self.settle()
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertIn("Empty", self.ui.checkLabel.text)

    def test_colorImage(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Photo")
        slicer.util.updateVolumeFromArray(node, np.zeros((4, 4, 4, 3), np.uint8))
        self.ui.taskTabWidget.setCurrentIndex(1)
        self.ui.translateInputSelector.setCurrentNode(node)
        self.settle()
        self.assertEqual(self.ui.translateInputSelector.currentNode().GetID(), node.GetID())
        self.acceptLicense()
        self.assertIn("Photo", self.ui.checkLabel.text)
        self.assertFalse(self.ui.translateButton.enabled)

    def test_warpedInputOffersAHardenedCopy(self):
        mask = support.ctMaskNode()
        grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
        spline = vtk.vtkThinPlateSplineTransform()
        points, moved = vtk.vtkPoints(), vtk.vtkPoints()
        for corner in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)):
            points.InsertNextPoint(corner)
            moved.InsertNextPoint(*(value * 1.02 + 1 for value in corner))
        spline.SetSourceLandmarks(points)
        spline.SetTargetLandmarks(moved)
        spline.SetBasisToR()
        grid.SetAndObserveTransformToParent(spline)
        mask.SetAndObserveTransformNodeID(grid.GetID())
        self.settle()
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertTrue(self.isShown(self.ui.hardenButton))
        self.ui.hardenButton.click()
        self.settle()
        copy = self.ui.generateInputSelector.currentNode()
        self.assertNotEqual(copy.GetID(), mask.GetID())
        self.assertEqual(mask.GetTransformNodeID(), grid.GetID())
        self.assertFalse(self.isShown(self.ui.hardenButton))
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)

    def test_modelThatIsNotInstalled(self):
        support.hippocampusSegmentation()
        self.settle()
        self.parameters.generateModel = "gone"
        self.settle()
        self.assertIn("'gone' is not installed", self.ui.checkLabel.text)
        self.assertFalse(self.ui.generateButton.enabled)

    def test_removedInput(self):
        mask = support.hippocampusSegmentation()
        self.settle()
        slicer.mrmlScene.RemoveNode(mask)
        self.settle()
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertIsNone(self.ui.generateInputSelector.currentNode())

    def test_inputAsOutput(self):
        image = support.headVolume()
        self.settle()
        self.acceptLicense()
        self.ui.translateOutputSelector.setCurrentNode(image)
        self.settle()
        self.assertIn("replace the input", self.ui.translateButton.toolTip)
        self.assertFalse(self.ui.translateButton.enabled)


class LicenseTest(PanelCase):
    def test_isAskedOnceAndExplainsTheButton(self):
        support.headVolume()
        self.settle()
        self.assertFalse(self.ui.translateButton.enabled)
        self.assertIn("license", self.ui.translateButton.toolTip)
        self.assertIn("CC-BY-NC-4.0", self.ui.licenseCheckBox.text)
        self.ui.licenseButton.click()
        text, detail = self.answers.shown[0]
        self.assertIn("No commercial use", text)
        self.assertIn("NonCommercial", detail.replace("-", "").replace(" ", ""))
        self.acceptLicense()
        self.assertFalse(self.isShown(self.ui.licenseWidget))
        self.assertTrue(self.ui.translateButton.enabled, self.ui.checkLabel.text)

    def test_cardSaysWhatTheModelIs(self):
        support.headVolume()
        self.settle()
        card = self.ui.cardLabel.text
        for words in (
            "SynthRAD2023",
            "120 subjects",
            "CC-BY-NC-4.0",
            "no commercial use",
            "192 × 256 × 256",
            "GB",
            "0.8 to 1.25 mm",
            "Thummerer",
        ):
            self.assertIn(words, card)


class OutputTest(PanelCase):
    def test_overwritingIsAskedAndRefused(self):
        support.hippocampusSegmentation()
        output = support.headVolume(16)
        self.settle()
        before = slicer.util.arrayFromVolume(output).copy()
        self.ui.generateOutputSelector.setCurrentNode(output)
        self.settle()
        self.answers.answer = False
        self.ui.generateButton.click()
        self.assertIn("'Head T1' is overwritten", self.answers.asked[0])
        self.assertFalse(self.logic.isRunning)
        self.assertTrue(np.array_equal(before, slicer.util.arrayFromVolume(output)))


class OptionsTest(PanelCase):
    def test_typedSeedIsKept(self):
        self.assertFalse(self.parameters.seedLocked)
        self.ui.seedSpinBox.setValue(42)
        self.settle()
        self.assertTrue(self.ui.seedLockCheckBox.checked)
        self.assertEqual(self.panel.sections["options"].nextSeed(), 42)
        self.ui.seedLockCheckBox.setChecked(False)
        self.settle()
        seeds = {self.panel.sections["options"].nextSeed() for _ in range(3)}
        self.assertGreater(len(seeds), 1)
        self.assertIn(self.ui.seedSpinBox.value, seeds)
        self.assertFalse(self.parameters.seedLocked)

    def test_uncertaintyNeedsTwoSamplesOrIntervals(self):
        self.assertIsNotNone(self.panel.context.tab.manifest.statistics.intervals)
        self.assertTrue(self.ui.spreadCheckBox.enabled)
        with patch.object(type(self.panel.context.tab), "manifest", None):
            self.ui.samplesSpinBox.setValue(2)
            self.settle()
            self.assertTrue(self.ui.spreadCheckBox.enabled)
            self.ui.samplesSpinBox.setValue(1)
            self.settle()
            self.assertFalse(self.ui.spreadCheckBox.enabled)

    def test_deviceOfAnotherComputerStaysVisible(self):
        self.parameters.device = "cuda:3"
        self.panel.sections["options"].setDevices([{"name": "cpu", "description": "CPU, 2 threads", "free_mib": 2048}])
        combo = self.ui.deviceComboBox
        self.assertIn("cuda:3 (not on this computer)", combo.itemText(combo.currentIndex))
        self.assertIn("2.0 GB free", combo.itemText(combo.findData("cpu")))

    def test_plainKeysReachTheTask(self):
        """A mnemonic of a label moves the focus to its field."""
        label = self.ui.presetLabel
        self.assertIn("&", label.text)
        self.assertEqual(label.buddy().objectName, "presetComboBox")
        self.assertNotEqual(self.ui.presetComboBox.focusPolicy, qt.Qt.NoFocus)


if __name__ == "__main__":
    unittest.main()
