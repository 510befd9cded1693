"""The error map: where it lies, what its colors say, how it is marked; and the table beside it."""

import unittest

import numpy as np
import slicer

import support
from support import SlicerTestCase

support.useModuleFolder()

from MedGenLib.imaging.volume import Volume
from MedGenSlicer.nodes import provenance
from MedGenSlicer.panel import guess, words
from MedGenSlicer.results import error_map, tables
from MedGenSlicer.results import volumes as results
from support.nodes import GRIDS, affine, maskNode, readInput, rotation, segmentationOf, transformNode, volumeNode
from support.snapshots import differences, snapshotOfScene
from support.views import pixels, views


def errorOf(snapshot, seed: int = 0) -> Volume:
    error = np.random.default_rng(seed).normal(0, 40, snapshot.shape).astype(np.float32)
    return Volume(error, snapshot.affine, None, "HU")


def displayNodes(node) -> list:
    return [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]


class ErrorMapTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.image = volumeNode(GRIDS["oblique"], name="Head synthetic CT")
        self.image.SetAndObserveTransformNodeID(transformNode(affine(rotation(4), origin=(1, 2, 3))).GetID())
        self.snapshot = readInput(self.image)

    def add(self, volume=None):
        image = error_map.prepareErrorMap(volume or errorOf(self.snapshot))
        return error_map.addErrorMap(self.snapshot, image, "Head CT")

    def testLiesOverItsImage(self):
        node = self.add()
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(self.image).tobytes())
        self.assertEqual(node.GetTransformNodeID(), self.image.GetTransformNodeID())
        np.testing.assert_array_equal(
            slicer.util.arrayFromVolume(node).transpose(2, 1, 0), errorOf(self.snapshot).array
        )
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        parents = [tree.GetItemParent(tree.GetItemByDataNode(found)) for found in (node, self.image)]
        self.assertEqual(parents[0], parents[1])

    def testSaysThatItIsDerived(self):
        node = self.add()
        made = provenance.read(node)
        self.assertEqual(
            (made.content, made.input, made.parameters), ("error", "Head synthetic CT", {"reference": "Head CT"})
        )
        self.assertIn("not for diagnosis", node.GetDescription())
        self.assertIn("'Head synthetic CT' minus 'Head CT'", node.GetDescription())
        self.assertEqual(node.GetVoxelValueUnits().GetCodeMeaning(), "Hounsfield unit")
        self.assertIn("error", node.GetName())
        self.assertFalse(guess.isImage(node))  # is not proposed as the next input

    def testWindowIsSymmetricAndRound(self):
        for scale, largest in ((40, 200), (4, 20), (0.7, 2)):
            error = np.random.default_rng(1).normal(0, scale, self.snapshot.shape)
            image = error_map.prepareErrorMap(Volume(error, self.snapshot.affine, None, "HU"))
            self.assertEqual((image.level, image.window), (0.0, 2 * largest), scale)

    def testNoErrorAtAll(self):
        node = self.add(Volume(np.zeros(self.snapshot.shape, np.float32), self.snapshot.affine, None, "HU"))
        self.assertEqual(node.GetDisplayNode().GetWindow(), 2.0)

    def testColorsDivergeAndSmallErrorsAreClear(self):
        table = self.add().GetDisplayNode().GetColorNode()
        first, middle, last = [0.0] * 4, [0.0] * 4, [0.0] * 4
        table.GetColor(0, first)
        table.GetColor(error_map.COLORS // 2, middle)
        table.GetColor(error_map.COLORS - 1, last)
        self.assertGreater(first[2], first[0] + 0.4)
        self.assertGreater(last[0], last[2] + 0.4)
        self.assertEqual((first[3], middle[3], last[3]), (1.0, 0.0, 1.0))
        count = len(slicer.util.getNodesByClass("vtkMRMLColorTableNode"))
        self.assertIs(self.add().GetDisplayNode().GetColorNode(), table)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLColorTableNode")), count)

    def testLegendNamesTheUnit(self):
        node = self.add()
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
        self.assertEqual(legend.GetTitleText(), "Error (HU)")

    def testWhatIsSeen(self):
        """Blue on one side, red on the other, the gray image where they agree."""
        image = volumeNode(np.eye(4), shape=(40, 40, 3), name="Flat")
        slicer.util.updateVolumeFromArray(image, np.full((3, 40, 40), 100, np.int16))
        image.CreateDefaultDisplayNodes()
        image.GetDisplayNode().SetAutoWindowLevel(False)
        image.GetDisplayNode().SetWindowLevel(400, 100)
        error = np.zeros((40, 40, 3), np.float32)
        error[:13], error[27:] = -100, 100
        snapshot = readInput(image)
        prepared = error_map.prepareErrorMap(Volume(error, snapshot.affine, None, "HU"))
        node = error_map.addErrorMap(snapshot, prepared, "Real")
        logic = slicer.app.layoutManager().sliceWidget("Red").sliceLogic()
        slicer.util.setSliceViewerLayers(background=image, fit=False)
        slicer.app.layoutManager().resetSliceViews()
        logic.GetSliceNode().SetXYZOrigin(1, 2, 0)
        view = error_map.ErrorMapView()
        view.show(image, node)
        self.assertEqual(tuple(logic.GetSliceNode().GetXYZOrigin()), (1, 2, 0))  # views are not moved
        logic.GetSliceNode().SetXYZOrigin(0, 0, 0)
        if support.inSlicer():
            return  # only the bridge draws without a window
        picture = support.sliceImage("Red")
        width, height = picture.width(), picture.height()
        colors = [picture.pixelColor(int(width * part), height // 2) for part in (0.2, 0.5, 0.8)]
        # An axial view has the patient's right (and here +x) on the left.
        self.assertGreater(colors[0].red(), colors[0].blue() + 60)
        self.assertLess(abs(colors[1].red() - colors[1].blue()), 5)
        self.assertGreater(colors[2].blue(), colors[2].red() + 60)
        view.hide()
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertEqual((composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()), (image.GetID(), None))

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testMasksDoNotCoverIt(self):
        """They are outlines meanwhile; then everything is as before, also where the map was deleted."""
        labels = maskNode(affine(origin=(-20, -20, 0)), (40, 40, 3))
        labels.CreateDefaultDisplayNodes()
        mask = segmentationOf(labels)
        mask.CreateDefaultDisplayNodes()
        image = volumeNode(affine(origin=(-20, -20, 0)), (40, 40, 3), "Flat")
        slicer.util.updateVolumeFromArray(image, np.full((3, 40, 40), 100, np.int16))
        snapshot = readInput(image)
        slicer.util.setSliceViewerLayers(background=image, label=labels, labelOpacity=0.5, fit=True)
        before, layers = pixels("Red"), views()
        for isDeleted in (False, True):
            error = Volume(np.full((40, 40, 3), 100, np.float32), snapshot.affine, None, "HU")
            node = error_map.addErrorMap(snapshot, error_map.prepareErrorMap(error), "Real")
            view = error_map.ErrorMapView()
            view.show(image, node)
            shown = pixels("Red").astype(int)
            isRed = (shown[..., 0] > shown[..., 1] + 60) & (shown[..., 0] > shown[..., 2] + 60)
            self.assertGreater(isRed.mean() / (before.max(axis=2) > 0).mean(), 0.8)
            if isDeleted:
                slicer.mrmlScene.RemoveNode(node)
            view.hide()
            self.assertEqual(views(), layers)
            self.assertLessEqual(np.abs(pixels("Red").astype(int) - before).max(), 1)

    def testTakenOutAgain(self):
        error_map.errorColors()
        before = snapshotOfScene()
        results.removeResult(self.add())
        changed = [text for text in differences(before, snapshotOfScene()) if "SubjectHierarchy" not in text]
        self.assertEqual(changed, [])

    def testSurvivesSavingTheScene(self):
        name = self.add().GetName()
        path = str(self.temporaryFolder() / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        node = slicer.util.getNode(name)
        self.assertEqual(provenance.read(node).content, "error")
        color = [0.0] * 4
        node.GetDisplayNode().GetColorNode().GetColor(0, color)
        np.testing.assert_allclose(color[:3], error_map.BLUE, atol=0.01)


class TableTest(SlicerTestCase):
    def testFigures(self):
        rows = [
            {"name": "MAE", "value": 86.5, "unit": "HU", "sentence": "Mean absolute error."},
            {"name": "MAE", "label": "bone", "value": None, "unit": "HU", "sentence": "Not defined."},
        ]
        table = tables.addTable("A against B", rows, "resampled")
        self.assertEqual(table.GetNumberOfRows(), 2)
        self.assertEqual(
            [table.GetCellText(1, column) for column in (0, 1, 3, 4)], ["MAE", "bone", "HU", "Not defined."]
        )
        self.assertEqual(float(table.GetCellText(0, 2)), 86.5)
        self.assertEqual(table.GetCellText(1, 2), "nan")
        self.assertEqual(table.GetTable().GetColumn(2).GetName(), "Value")
        path = str(self.temporaryFolder() / "figures.csv")
        self.assertTrue(slicer.util.saveNode(table, path))
        with open(path, encoding="utf-8") as file:
            self.assertIn("86.5", file.read())

    def testIntervals(self):
        rows = [
            {"name": "Accuracy", "label": "R1", "value": 75, "low": 34.9, "high": 96.8, "unit": "%"},
            {"name": "d'", "label": "R1", "value": 1.05},
        ]
        table = tables.addTable("Study", rows, "")
        self.assertEqual([table.GetCellText(0, column) for column in range(1, 6)], ["R1", "75", "34.9", "96.8", "%"])
        self.assertEqual(
            [words.figure(75, 34.94, 96.84), words.figure(1.049), words.figure(28420), words.figure(float("nan"))],
            ["75 (34.9 to 96.8)", "1.049", "28420", "–"],
        )

    def testAnatomy(self):
        rows = tables.anatomyRows(
            [
                {
                    "name": "bone",
                    "dice": 0.9,
                    "hd95_mm": None,
                    "wanted_ml": 10.0,
                    "found_ml": 11.0,
                    "difference_percent": 10.0,
                    "sentence": "Why not.",
                }
            ]
        )
        found = {row["name"]: (row["value"], row["unit"]) for row in rows}
        self.assertEqual(found["Dice"], (0.9, ""))
        self.assertEqual(found["HD95"], (None, "mm"))
        self.assertEqual(found["Volume difference"], (10.0, "%"))
        self.assertEqual({(row["label"], row["sentence"]) for row in rows}, {("bone", "Why not.")})


if __name__ == "__main__":
    unittest.main()
