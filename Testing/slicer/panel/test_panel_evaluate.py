"""The section Evaluate: what it asks for, and what it makes with the real worker."""

import csv
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer

import support
from support.panelcase import PanelCase

SECONDS = 180


def ctPair(shift: float = 20.0):
    """A CT, one that is `shift` HU too bright in the upper half of the slices, and the mask both were made from."""
    segmentation = support.ctSegmentation(48)
    mask = support.ctMaskNode(48)
    labels = slicer.util.arrayFromVolume(mask)
    values = np.array([-1000, -95, 40, 400, -830])[labels].astype(np.float32)
    values += np.random.default_rng(0).normal(0, 12, values.shape)
    shifted = values + np.random.default_rng(1).normal(0, 15, values.shape)
    shifted[: len(values) // 2] += shift
    nodes = [
        slicer.util.addVolumeFromArray(array.astype(np.int16), support.matrixOf(mask), name)
        for array, name in ((values, "Abdomen CT"), (shifted, "Abdomen synthetic CT"))
    ]
    table = mask.GetDisplayNode().GetColorNode()
    for node in (mask, table):
        slicer.mrmlScene.RemoveNode(node)
    for node in nodes:
        node.SetAttribute("MedGen.Modality", "CT")
    return *nodes, segmentation


class EvaluateCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.ui.evaluateSection.collapsed = False
        self.addCleanup(setattr, self.ui.evaluateSection, "collapsed", True)

    def select(self, **nodes):
        for name, node in nodes.items():
            setattr(self.parameters, f"evaluate{name}", node)
        self.settle()

    def waitForEnd(self):
        support.processUntil(lambda: self.ui.evaluateButton.text == "Compare", SECONDS)
        self.settle()

    def compare(self):
        self.assertTrue(self.ui.evaluateButton.enabled, self.ui.evaluateLabel.text)
        self.ui.evaluateButton.click()
        self.waitForEnd()
        self.assertTrue(self.isShown(self.ui.evaluateTable), self.ui.evaluateLabel.text)

    def figures(self) -> dict:
        """(figure, label) -> value as the panel shows it."""
        table = self.ui.evaluateTable
        rows = [[table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)]
        return {(name, label): float(value.split()[0]) for name, label, value in rows if value != "–"}


class ChoicesTest(EvaluateCase):
    def test_saysWhatIsMissing(self):
        real, image, segmentation = ctPair()
        self.select()
        self.assertIn("Select the synthetic image", self.ui.evaluateLabel.text)
        self.select(Image=image)
        self.assertIn("Select a real image, or the structures", self.ui.evaluateLabel.text)
        self.select(Reference=image)
        self.assertIn("same volume", self.ui.evaluateLabel.text)
        self.assertFalse(self.ui.evaluateButton.enabled)
        self.assertFalse(self.ui.reportButton.enabled)
        self.select(Reference=real)
        self.assertFalse(self.isShown(self.ui.evaluateLabel))
        self.assertTrue(self.ui.evaluateButton.enabled)
        self.assertFalse(self.ui.evaluateSegmenterComboBox.enabled)
        self.select(Reference=None, Labels=segmentation)
        self.assertIn("finds the structures", self.ui.evaluateLabel.text)
        self.choose(self.ui.evaluateSegmenterComboBox, "ct-tissue")
        self.assertTrue(self.ui.evaluateButton.enabled, self.ui.evaluateLabel.text)
        self.assertEqual(self.parameters.evaluateSegmenter, "ct-tissue")

    def test_theSegmenterOfEachModelOfMasksIsOffered(self):
        from MedGenLib.packages.catalogue import light_catalogue
        from MedGenSlicer.panel.sections.evaluation import segmenterOf

        box = self.ui.evaluateSegmenterComboBox
        offered = {box.itemData(index) for index in range(box.count)}
        made = [manifest for manifest in light_catalogue() if manifest.task == "generate"]
        wanted = {manifest.name: segmenterOf(manifest) for manifest in made}
        self.assertEqual(wanted["mr-brain"], "brain-segmenter")
        self.assertLessEqual(set(wanted.values()) - {""}, offered)

    def test_segmenterThatIsNotThereStaysVisible(self):
        self.parameters.evaluateSegmenter = "mine"
        self.settle()
        box = self.ui.evaluateSegmenterComboBox
        self.assertEqual(box.itemText(box.currentIndex), "mine (not installed)")


class CompareTest(EvaluateCase):
    def test_figuresErrorMapAndFile(self):
        real, image, segmentation = ctPair()
        self.select(Image=image, Reference=real, Labels=segmentation)
        self.choose(self.ui.evaluateSegmenterComboBox, "ct-tissue")
        self.compare()
        figures = self.figures()
        self.assertAlmostEqual(figures["Bias", ""], 10, delta=1)
        self.assertGreater(figures["MAE", ""], figures["Bias", ""])
        arrays = [slicer.util.arrayFromVolume(node).astype(float) for node in (image, real)]
        bone = arrays[1] > 250  # far from every other tissue
        self.assertAlmostEqual(figures["Bias", "bone"], float((arrays[0] - arrays[1])[bone].mean()), delta=0.01)
        self.assertGreater(figures["Dice", "soft tissue"], 0.8)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLTableNode")), 1)

        error = next(
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node.GetAttribute("MedGen.Content") == "error"
        )
        values = slicer.util.arrayFromVolume(error)
        inside = values[values != 0]
        self.assertAlmostEqual(float(inside.mean()), 10, delta=1.5)
        self.assertEqual(error.GetVoxelValueUnits().GetCodeMeaning(), "Hounsfield unit")
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertEqual(
            (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()), (image.GetID(), error.GetID())
        )
        self.screenshot("evaluate")
        if not support.inSlicer():
            picture = support.sliceImage("Green")
            columns, rows = range(0, picture.width(), 4), range(0, picture.height(), 4)
            colors = [picture.pixelColor(x, y) for x in columns for y in rows]
            red = sum(color.red() > color.blue() + 20 for color in colors)
            blue = sum(color.blue() > color.red() + 20 for color in colors)
            self.assertGreater(red, 2 * blue)  # the image is 10 HU too bright
            self.assertGreater(blue, 0)
        self.ui.errorMapCheckBox.click()
        self.assertIsNone(composite.GetForegroundVolumeID())
        self.ui.errorMapCheckBox.click()
        self.assertEqual(composite.GetForegroundVolumeID(), error.GetID())

        self.answers.path = str(self.temporaryFolder() / "metrics.csv")
        self.ui.saveTableButton.click()
        with open(self.answers.path, newline="", encoding="utf-8") as stream:
            self.assertEqual(len(list(csv.reader(stream))), self.ui.evaluateTable.rowCount + 1)

    def test_labelsAlone(self):
        _real, image, segmentation = ctPair()
        self.select(Image=image, Labels=segmentation)
        self.choose(self.ui.evaluateSegmenterComboBox, "ct-tissue")
        self.compare()
        self.assertGreater(self.figures()["Dice", "soft tissue"], 0.8)
        self.assertFalse(self.isShown(self.ui.errorMapCheckBox))

    def test_uncertainty(self):
        real, image, _segmentation = ctPair()
        error = np.abs(slicer.util.arrayFromVolume(image).astype(np.float32) - slicer.util.arrayFromVolume(real))
        spread = slicer.util.addVolumeFromArray(error, support.matrixOf(image), "Spread")
        self.select(Image=image, Reference=real, Uncertainty=spread)
        self.compare()
        spearman = next(value for (name, _label), value in self.figures().items() if "Spearman" in name)
        self.assertGreater(spearman, 0.95)

    def test_theButtonComesBackAfterAFault(self):
        real, image, _segmentation = ctPair()
        self.select(Image=image, Reference=real)
        with mock.patch.object(self.logic, "evaluate", side_effect=MemoryError):
            self.ui.evaluateButton.click()
        self.assertEqual(self.ui.evaluateButton.text, "Compare")
        self.assertTrue(self.ui.reportButton.enabled)
        self.assertIn("MemoryError", self.panel.context.unexpected.pop())

    def test_anImageThatWasDeletedIsSaid(self):
        real, image, _segmentation = ctPair()
        self.select(Image=image, Reference=real)
        self.compare()
        slicer.mrmlScene.RemoveNode(image)
        self.ui.errorMapCheckBox.click()  # off, which needs no image
        self.assertFalse(self.isShown(self.ui.failureFrame))
        self.ui.errorMapCheckBox.click()
        self.assertTrue(self.isShown(self.ui.failureFrame))
        self.assertIn("no longer in the scene", self.ui.failureLabel.text)

    def test_reportOpensInTheBrowser(self):
        real, image, _segmentation = ctPair()
        self.select(Image=image, Reference=real)
        self.answers.path = str(self.temporaryFolder())
        self.ui.reportButton.click()
        self.waitForEnd()
        self.assertEqual(len(self.answers.opened), 1, self.ui.evaluateLabel.text)
        report = Path(self.answers.opened[0])
        self.assertTrue(report.is_file() and report.suffix == ".html")
        self.assertIn(Path(self.answers.path), report.parents)
        self.assertIn("<html", report.read_text(encoding="utf-8").lower())

    def test_errorIsOneSentenceInTheSection(self):
        _real, image, _segmentation = ctPair()
        flat = slicer.util.addVolumeFromArray(np.full((4, 5, 6), 40, np.int16), np.eye(4), "Elsewhere")
        flat.SetOrigin(5000, 5000, 5000)
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.select(Image=image, Reference=flat)
        self.ui.evaluateButton.click()
        self.waitForEnd()
        self.assertIn("overlap", self.ui.evaluateLabel.text)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_cancel(self):
        real, image, _segmentation = ctPair()
        self.select(Image=image, Reference=real)
        self.ui.evaluateButton.click()
        self.assertEqual(self.ui.evaluateButton.text, "Cancel")
        self.assertFalse(self.ui.reportButton.enabled)
        self.ui.evaluateButton.click()
        self.waitForEnd()
        self.assertIn("cancelled", self.ui.evaluateLabel.text)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])


if __name__ == "__main__":
    unittest.main()
