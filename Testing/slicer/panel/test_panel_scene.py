"""The choices are saved with the scene and come back with it; reload and closing leave nothing behind."""

import gc
import json
import sys
import unittest

import slicer

import support
from support.panelcase import PanelCase

#: Parameter node as version 0.1.0 wrote it, with the nodes that it names.
SAVED_BY_0_1_0 = """<MRML version="Slicer4.4.0" userTags="">
 <ScriptedModule id="vtkMRMLScriptedModuleNodeMedGen" name="MedGen" hideFromEditors="true" singletonTag="MedGen"
  attributes="ModuleName:MedGen" references="editVolume:vtkMRMLScalarVolumeNode1;evaluateImage:vtkMRMLScalarVolumeNode1;
generateInput.0:vtkMRMLSegmentationNode1;translateInput:vtkMRMLScalarVolumeNode1;" parameter0= "device cpu"
  parameter1= "editMask " parameter2= "editModel " parameter3= "editVolume " parameter4= "evaluateImage "
  parameter5= "evaluateLabels.2 " parameter6= "evaluateMask.2 " parameter7= "evaluateReference "
  parameter8= "evaluateSegmenter " parameter9= "evaluateUncertainty " parameter10= "exportDeidentify True"
  parameter11= "exportNode.3 " parameter12= "exportSource " parameter13= "exportToDatabase False" parameter14= "fill "
  parameter15= "generateInput.0 " parameter16= "generateModel " parameter17= "generateOutput "
  parameter18= "generateStyle " parameter19= "guessed True" parameter20= "lesionContrast -60.0"
  parameter21= "lesionOrgan " parameter22= "lesionOrgans.2 " parameter23= "lesionPlace.2 "
  parameter24= "lesionSegment " parameter25= "lesionShape sphere" parameter26= "lesionSize 22.5"
  parameter27= "lesionTissue " parameter28= "lesionVolume "
  parameter29= "mapping {&quot;ct-tissue&quot;: {&quot;bone&quot;: &quot;0&quot;}}" parameter30= "preset draft"
  parameter31= "samples 3" parameter32= "seed 77" parameter33= "seedLocked True" parameter34= "spread True"
  parameter35= "targetChosen True" parameter36= "task translate" parameter37= "translateInput "
  parameter38= "translateModel " parameter39= "translateOutput " parameter40= "translateTarget CT" ></ScriptedModule>
 <Segmentation id="vtkMRMLSegmentationNode1" name="Old mask" ></Segmentation>
 <Volume id="vtkMRMLScalarVolumeNode1" name="Old image" ></Volume>
</MRML>
"""


class SavedSceneTest(PanelCase):
    def test_choicesOfAnEarlierVersionComeBack(self):
        path = self.temporaryFolder() / "old.mrml"
        path.write_text(SAVED_BY_0_1_0.replace(";\n", ";"), encoding="utf-8")
        slicer.util.loadScene(str(path))
        self.settle()
        ui = self.ui
        self.assertEqual(ui.taskTabWidget.currentIndex, 1)
        for selector in (ui.translateInputSelector, ui.editVolumeSelector, ui.evaluateImageSelector):
            self.assertEqual(selector.currentNode().GetName(), "Old image", selector.objectName)
        self.assertEqual(ui.generateInputSelector.currentNode().GetName(), "Old mask")
        for combo, data in (
            (ui.presetComboBox, "draft"),
            (ui.deviceComboBox, "cpu"),
            (ui.translateTargetComboBox, "CT"),
        ):
            self.assertEqual(combo.itemData(combo.currentIndex), data, combo.objectName)
        self.assertEqual((ui.seedSpinBox.value, ui.seedLockCheckBox.checked), (77, True))
        self.assertEqual((ui.samplesSpinBox.value, ui.spreadCheckBox.checked), (3, True))
        self.assertEqual((ui.lesionSizeSpinBox.value, ui.lesionContrastSpinBox.value), (22.5, -60))
        self.assertTrue(ui.exportDeidentifyCheckBox.checked)
        self.assertEqual(json.loads(self.parameters.mapping), {"ct-tissue": {"bone": "0"}})

    def test_choicesComeBackWithABundle(self):
        self.assertChoicesComeBack("scene.mrb")

    def test_choicesComeBackWithASceneFile(self):
        self.assertChoicesComeBack("scene.mrml")

    def assertChoicesComeBack(self, name):
        mask, output = support.ctSegmentation(), support.headVolume(16)
        mask.SetName("My mask")
        output.SetName("My output")
        self.settle()
        self.choose(self.ui.generateModelComboBox, "ct-tissue")
        self.panel.tab.labels._store({"bone": "0"})
        self.choose(self.ui.fillComboBox, "fat")
        self.choose(self.ui.phaseComboBox, "portal")
        self.ui.generateOutputSelector.setCurrentNode(output)
        self.choose(self.ui.presetComboBox, "best")
        self.ui.seedSpinBox.setValue(1234)
        self.ui.samplesSpinBox.setValue(4)
        self.ui.spreadCheckBox.setChecked(True)
        self.parameters.device = "cuda:7"
        self.choose(self.ui.translateTargetComboBox, "T1w")
        self.settle()
        path = self.temporaryFolder() / name
        self.assertTrue(slicer.util.saveScene(str(path)))

        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertIsNone(self.ui.generateInputSelector.currentNode())
        self.assertEqual(self.parameters.preset, "normal")
        self.assertEqual(self.ui.samplesSpinBox.value, 1)

        slicer.util.loadScene(str(path))
        self.settle()
        self.assertEqual(self.ui.generateInputSelector.currentNode().GetName(), "My mask")
        self.assertEqual(self.ui.generateOutputSelector.currentNode().GetName(), "My output")
        self.assertEqual(self.panel.tab.manifest.name, "ct-tissue")
        self.assertEqual(json.loads(self.parameters.mapping), {"ct-tissue": {"bone": "0"}})
        if name.endswith(".mrb"):  # the voxels, and with them the segments, are only in a bundle
            self.assertEqual(self.panel.tab.labels.mapping()["bone"], "0")
        self.assertEqual(self.panel.tab.arguments()["fill"], "fat")
        self.assertEqual(self.panel.tab.arguments()["phase"], "portal")
        for combo, data in (
            (self.ui.presetComboBox, "best"),
            (self.ui.deviceComboBox, "cuda:7"),
            (self.ui.translateTargetComboBox, "T1w"),
            (self.ui.fillComboBox, "fat"),
            (self.ui.phaseComboBox, "portal"),
        ):
            self.assertEqual(combo.itemData(combo.currentIndex), data, combo.objectName)
        self.assertEqual(self.ui.seedSpinBox.value, 1234)
        self.assertTrue(self.ui.seedLockCheckBox.checked)
        self.assertEqual(self.ui.samplesSpinBox.value, 4)
        self.assertTrue(self.ui.spreadCheckBox.checked)
        self.assertFalse(self.panel.sections["run"].isRunning)

    def test_openTabComesBack(self):
        support.hippocampusSegmentation()
        support.headVolume(16)
        self.settle()
        self.ui.taskTabWidget.setCurrentIndex(1)
        self.settle()
        path = self.temporaryFolder() / "scene.mrb"
        self.assertTrue(slicer.util.saveScene(str(path)))
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertEqual(self.ui.taskTabWidget.currentIndex, 0)
        slicer.util.loadScene(str(path))
        self.settle()
        self.assertEqual(self.ui.taskTabWidget.currentIndex, 1)


class ReloadTest(PanelCase):
    def test_reloadBringsFreshModulesAndNoWorker(self):
        from MedGenSlicer.panel.panel import Panel

        support.hippocampusSegmentation()
        self.settle()
        support.processUntil(lambda: self.logic.engine.state == "ready", 120)
        self.widget.onReload()
        type(self).widget = slicer.util.getModuleWidget("MedGen")
        self.assertIsNot(type(self.widget.panel), Panel)
        self.assertIsNot(sys.modules["MedGenSlicer.panel.panel"].Panel, Panel)
        self.assertEqual(self.logic.engine.state, "off")
        self.assertIsNot(self.widget.logic, self.logic)
        self.widget.enter()
        self.panel, self.ui, self.logic = self.widget.panel, self.widget.ui, self.widget.logic
        self.settle()
        self.assertTrue(self.ui.generateButton.enabled, self.ui.checkLabel.text)

    def test_leavingAndComingBack(self):
        self.widget.exit()
        mask = support.hippocampusSegmentation()
        self.settle()
        self.widget.enter()
        self.settle()
        self.assertEqual(self.ui.generateInputSelector.currentNode().GetID(), mask.GetID())

    def test_leavingAndComingBackKeepsTheWrapper(self):
        # Slicer 5.10 keeps the observer of every wrapper, and so each would show every change.
        gc.collect()
        before = self.wrappers()
        for _visit in range(5):
            self.widget.exit()
            self.widget.enter()
        gc.collect()
        self.assertEqual(self.wrappers(), before)

    def wrappers(self) -> int:
        kind = type(self.parameters)
        return sum(type(found) is kind for found in gc.get_objects())


if __name__ == "__main__":
    unittest.main()
