"""A CT whose values are HU + 1024: the panel asks, and uses a copy in HU."""

import unittest

import numpy as np
import slicer

from support.panelcase import PanelCase, ctVolume


class HounsfieldTest(PanelCase):
    def select(self, shift, kind=np.int16):
        node = ctVolume()
        array = slicer.util.arrayFromVolume(node).astype(np.float64) + shift
        slicer.util.updateVolumeFromArray(node, array.clip(0 if shift else None).astype(kind))
        node.SetAttribute("DICOM.Modality", "CT")
        self.ui.taskTabWidget.setCurrentIndex(1)
        self.ui.translateInputSelector.setCurrentNode(node)
        self.settle()
        if self.isShown(self.ui.licenseCheckBox) and not self.ui.licenseCheckBox.checked:
            self.acceptLicense()
        self.settle()
        return node

    def questions(self):
        return [question for question in self.answers.asked if "HU + 1024" in question]

    def test_aCopyInHUIsUsed(self):
        for kind in (np.uint16, np.float32):
            with self.subTest(kind=kind):
                node = self.select(1024, kind)
                before = slicer.util.arrayFromVolume(node).copy()
                self.settle()
                copy = self.ui.translateInputSelector.currentNode()
                self.assertNotEqual(copy.GetID(), node.GetID())
                np.testing.assert_array_equal(
                    slicer.util.arrayFromVolume(copy).astype(float), before.astype(float) - 1024
                )
                np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
                self.assertNotIn("HU + 1024", self.ui.checkLabel.text)
        self.assertEqual(len(self.questions()), 2)

    def test_noMeansAnErrorAndNoSecondQuestion(self):
        self.answers.confirm = lambda question, title: self.answers.asked.append(question)
        node = self.select(1024)
        node.Modified()
        self.panel.inputCheck.invalidate()
        self.panel.scheduleCheck()
        self.settle()
        self.assertEqual(len(self.questions()), 1, self.ui.checkLabel.text)
        self.assertEqual(self.ui.translateInputSelector.currentNode().GetID(), node.GetID())
        self.assertIn("HU + 1024", self.ui.checkLabel.text)
        self.assertNotIn("--hu-offset", self.ui.checkLabel.text)
        self.assertFalse(self.ui.translateButton.enabled)

    def test_aCtInHUAsksNothing(self):
        self.select(0)
        self.assertEqual(self.questions(), [])


if __name__ == "__main__":
    unittest.main()
