"""The page Breathe: a CT becomes a sequence, with its segmentation, and a sentence says what was made."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import slicer

import support
from support.panelcase import PanelCase
from support.snapshots import snapshotOfNode

support.useModuleFolder()
sys.path.insert(0, str(support.ROOT / "Testing" / "support"))

from chests import chest

from MedGenLib.motion import breathe
from MedGenSlicer.results.sequences import sequencesOf

SECONDS = 120


class BreathePageTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.image, self.mask = chest((4.0, 4.0, 4.0))
        self.openPage("breathePage")
        self.ui.breatheAmplitudeSpinBox.setValue(15)  # the panel is the same for all tests
        self.ui.breatheChestSpinBox.setValue(4)
        self.ui.breatheTraceEdit.currentPath = ""
        self.settle()

    def add(self, image, name: str, className: str = "vtkMRMLScalarVolumeNode"):
        matrix = slicer.util.vtkMatrixFromArray(image.affine)
        return slicer.util.addVolumeFromArray(image.array.transpose(2, 1, 0), matrix, name, className)

    def press(self):
        self.settle()
        self.assertTrue(self.ui.breatheButton.enabled)
        self.ui.breatheButton.click()
        self.assertEqual(self.ui.breatheButton.text, "Cancel")

    def ended(self):
        support.processUntil(lambda: self.ui.breatheButton.text == "Breathe", SECONDS)
        self.settle()

    def test_aCtBecomesASequenceWithItsSegmentation(self):
        self.assertFalse(self.ui.breatheButton.enabled)
        volume = self.add(self.image, "CT")
        labels = self.add(self.mask, "Organs", "vtkMRMLLabelMapVolumeNode")
        slicer.util.setSliceViewerLayers(background=volume)
        self.ui.breatheVolumeSelector.setCurrentNode(volume)
        self.ui.breatheLabelsSelector.setCurrentNode(labels)
        self.ui.breathePhasesSpinBox.setValue(3)
        self.ui.breatheAmplitudeSpinBox.setValue(12)
        self.ui.breatheChestSpinBox.setValue(2)
        before = snapshotOfNode(volume)
        self.press()
        self.ended()
        self.assertIsNone(self.logic.currentRun.error)
        self.assertEqual(snapshotOfNode(volume), before)
        browser = self.logic.currentRun.node
        moving, masks = sequencesOf(browser)
        self.assertEqual([moving.GetNumberOfDataNodes(), masks.GetNumberOfDataNodes()], [3, 3])
        expected = breathe(
            self.image, labels=self.mask.with_array(self.mask.array, {}), phases=3, amplitude=12, chest=2
        )
        for number in range(3):
            found = slicer.util.arrayFromVolume(moving.GetNthDataNode(number)).transpose(2, 1, 0)
            np.testing.assert_array_equal(found, expected.volumes[number].array)
        for view in ("Red", "Yellow", "Green"):
            composite = slicer.app.layoutManager().sliceWidget(view).sliceLogic().GetSliceCompositeNode()
            self.assertEqual(composite.GetBackgroundVolumeID(), browser.GetProxyNode(moving).GetID())
        said = self.ui.breatheLabel.text
        for words in (f"as '{browser.GetName()}'", "3 phases: the diaphragm travels", "smallest Jacobian", "diagnosis"):
            self.assertIn(words, said)
        self.assertTrue(self.isShown(self.ui.breatheLabel))
        self.screenshot("breathe")  # the whole panel; a visible one draws its section, too
        support.screenshot(self.ui.editSection, "breathe", self.ui.editSection.width)

    @support.slow
    def test_aTraceIsReadRefusalsAreSaidAndARunCanBeCancelled(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        trace = Path(folder.name) / "trace.csv"
        trace.write_text("time,position\n" + "\n".join(f"{t},{t}" for t in range(9)))
        self.ui.breatheVolumeSelector.setCurrentNode(self.add(self.image, "CT"))
        self.ui.breathePhasesSpinBox.setValue(4)
        self.ui.breatheTraceEdit.currentPath = str(trace)
        count = slicer.mrmlScene.GetNumberOfNodes()
        self.press()
        self.ended()
        self.assertIn("shows no whole cycle", self.ui.breatheLabel.text)
        trace.write_text("\n".join(f"{t / 5},{abs(t % 10 - 5)}" for t in range(40)))
        self.press()
        self.ui.breatheButton.click()
        self.ended()
        self.assertIn("cancelled", self.ui.breatheLabel.text)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
        self.press()
        self.ended()
        self.assertIsNone(self.logic.currentRun.error)
        measured = breathe(self.image, phases=4, trace=trace)
        self.assertEqual([phase["rise"] for phase in self.logic.currentRun.phases], [p.rise for p in measured.phases])
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertFalse(self.ui.breatheButton.enabled)
        self.assertEqual(self.ui.breatheLabel.text, "")
