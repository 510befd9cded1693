"""Which voxels of a segmentation changed, seen from a volume: painted with Slicer's own editor logic."""

import unittest

import numpy as np
import slicer

import support
from support import SlicerTestCase
from support.painter import Painter
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.errors import InputError, PackageError
from MedGenLib.packages.catalogue import light_catalogue
from MedGenSlicer.editing.mask import MaskBlock, TrackedMask, boxOf, inModelLabels, knownInModelLabels
from MedGenSlicer.editing.origin import modelFor
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.inputs import captureInput, captureOn
from MedGenSlicer.nodes.provenance import NodeProvenance
from support.nodes import volumeOn


def manifestOf(name="ct-tissue"):
    return next(manifest for manifest in light_catalogue() if manifest.name == name)


class PaintedCase(SlicerTestCase):
    def setUp(self):
        super().setUp()
        support.leaveModule()
        self.segmentation = support.ctSegmentation(32)
        self.volume = volumeOn(self.segmentation)
        self.manifest = manifestOf()
        self.mask = TrackedMask(self.segmentation, self.volume, self.manifest)
        self.painter = Painter(self.segmentation, self.volume)

    def whole(self) -> np.ndarray:
        """(k, j, i) the segmentation as a run would send it."""
        snapshot = captureOn(self.segmentation, self.volume)
        return inModelLabels(snapshot, self.manifest, None).array.transpose(2, 1, 0)

    def drawChange(self) -> MaskBlock | None:
        self.mask.look()
        block = self.mask.changed()
        if block is not None:
            self.mask.accept(block)
        np.testing.assert_array_equal(self.mask.known, self.whole())
        return block


class ChangeTest(PaintedCase):
    def testTheWholeMaskFirst(self):
        np.testing.assert_array_equal(self.mask.known, self.whole())
        self.assertEqual(set(np.unique(self.mask.known)), {0, 1, 2, 3, 4})
        self.assertIsNone(self.drawChange())

    def testAStrokeIsItsBox(self):
        ball = self.painter.paint("bone", (10, 20, 14), 4)
        before = self.mask.known.copy()
        block = self.drawChange()
        bone = next(value for value, label in self.manifest.input.labels.items() if label.name == "bone")
        changed = ball.transpose(2, 1, 0) & (before != bone)
        self.assertEqual(block.box, boxOf(changed, np.zeros_like(changed)))
        self.assertTrue((self.mask.known[ball.transpose(2, 1, 0)] == bone).all())

    def testManyStrokesAreOneBlockAndOneThatCameBackIsNone(self):
        for number in range(4):
            self.painter.paint("fat", (8 + 3 * number, 12, 20), 2)
        self.assertIsNotNone(self.drawChange())
        self.painter.paint("bone", (16, 16, 16), 5)
        self.painter.undo()
        self.assertIsNone(self.drawChange())

    def testErasingIsAChange(self):
        label = self.mask.known[16, 16, 16]
        name = self.manifest.input.labels[int(label)].name
        self.painter.paint(name, (16, 16, 16), 3, erase=True)
        self.assertIsNotNone(self.drawChange())
        self.assertEqual(self.mask.known[16, 16, 16], 0)

    def testSegmentsThatComeAndGo(self):
        segmentation = self.segmentation.GetSegmentation()
        segmentation.AddEmptySegment("new", "Tumor")
        self.mask.look()
        self.assertIsNone(self.mask.changed())  # nobody minds a segment without voxels
        self.painter.paint("Tumor", (16, 16, 16), 4)
        self.mask.look()
        with self.assertRaisesRegex(InputError, "Tumor"):
            self.mask.changed()
        segmentation.GetSegment("new").SetName("bone 2")
        with self.assertRaisesRegex(InputError, "bone 2"):
            self.mask.look()
            self.mask.changed()
        segmentation.GetSegment("new").SetName("skeleton")
        segmentation.RemoveSegment("new")
        self.assertIsNotNone(self.drawChange())  # the ball is background now, the other segments lost it
        self.assertEqual(self.mask.known[16, 16, 16], 0)

    def testWithoutAnySegmentItIsBackground(self):
        self.segmentation.GetSegmentation().RemoveAllSegments()
        self.mask.look()
        self.mask.accept(self.mask.changed())
        self.assertFalse(self.mask.known.any())

    def testARejectedBlockIsPartOfTheNextOne(self):
        self.painter.paint("bone", (8, 8, 8), 3)
        self.mask.look()
        first = self.mask.changed()
        self.painter.paint("bone", (24, 24, 24), 3)
        self.mask.look()
        self.mask.reject(first)
        second = self.drawChange()
        for one, both in zip(first.box, second.box, strict=True):
            self.assertLessEqual(both.start, one.start)
            self.assertGreaterEqual(both.stop, one.stop)

    def testWhatIsGoneBackToIsDrawnWithTheNextStroke(self):
        self.painter.paint("bone", (8, 8, 8), 3)
        self.mask.look()
        block = self.mask.changed()
        before = MaskBlock(self.mask.known[block.box].copy(), block.start)
        self.mask.accept(block)
        self.mask.restore(before)
        again = self.drawChange()
        np.testing.assert_array_equal(again.labels, block.labels)
        self.assertEqual(again.start, block.start)

    def testNothingInTheSceneIsChanged(self):
        self.painter.paint("bone", (10, 20, 14), 4)
        before = snapshotOfScene()
        self.drawChange()
        self.assertEqual(differences(before, snapshotOfScene()), [])


class GridTest(PaintedCase):
    def testAnotherGridUnderATransform(self):
        """The segments drawn on 3 mm, the volume 1.5 mm and shifted, both moved by the same transform."""
        transform = support.obliqueTransform(25)
        matrix = support.matrixOf(self.volume)
        fine = matrix @ np.diag([0.5, 0.5, 0.5, 1.0])
        fine[:3, 3] = (matrix @ [4, 6, 8, 1])[:3]
        values = np.zeros((20, 30, 24), np.int16)
        volume = slicer.util.addVolumeFromArray(values, fine, "Fine")
        for node in (volume, self.segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
        mask = TrackedMask(self.segmentation, volume, self.manifest)
        coarse = self.mask.known
        for k, j, i in ((0, 0, 0), (8, 20, 12), (18, 28, 22)):
            self.assertEqual(mask.known[k, j, i], coarse[8 + k // 2, 6 + j // 2, 4 + i // 2])
        self.assertEqual(mask.labelMap(np.eye(4)).array.shape, (24, 30, 20))

    def testALabelMapHasToLieOnTheGrid(self):
        other = support.ctMaskNode(24)
        with self.assertRaisesRegex(InputError, "different grids"):
            captureOn(other, self.volume)
        same = support.ctMaskNode(32)
        snapshot = captureOn(same, self.volume)
        np.testing.assert_array_equal(
            inModelLabels(snapshot, self.manifest, None).array.transpose(2, 1, 0), self.mask.known
        )

    def testTheSegmentsAloneTellWhatTheVoxelsBecome(self):
        snapshot = captureInput(self.segmentation, "labels")
        for mapping in (None, {"bone": "fat", "fat": 0}):
            found = knownInModelLabels(snapshot, self.manifest, mapping)
            np.testing.assert_array_equal(
                found, inModelLabels(snapshot, self.manifest, mapping).array.transpose(2, 1, 0)
            )


class SentenceTest(PaintedCase):
    def assertRefused(self, words, segmentation, volume=None, **keywords):
        with self.assertRaises(InputError) as caught:
            TrackedMask(segmentation, volume or self.volume, self.manifest, **keywords)
        self.assertIn(words, str(caught.exception))
        self.assertTrue(str(caught.exception).endswith("."))

    def testWhatCannotBeFollowed(self):
        scene = slicer.mrmlScene
        self.assertRefused("choose one", None)
        self.assertRefused("choose one", self.volume)
        empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
        self.assertRefused("no segments", empty)
        elsewhere = slicer.util.addVolumeFromArray(np.zeros((8, 8, 8), np.int16), np.eye(4), "Elsewhere")
        elsewhere.SetOrigin(5000, 0, 0)
        self.assertRefused("No segment", self.segmentation, elsewhere)
        first = self.segmentation.GetSegmentation().GetNthSegment(0)
        first.SetName("Liver of somebody")
        self.assertRefused("Liver of somebody", self.segmentation)
        TrackedMask(self.segmentation, self.volume, self.manifest, mapping={"Liver of somebody": "fat"})


class ModelTest(SlicerTestCase):
    def testTheModelThatSuitsVolumeAndMask(self):
        support.leaveModule()
        models = light_catalogue()
        volume = slicer.util.addVolumeFromArray(np.zeros((8, 8, 8), np.int16), np.eye(4), "Scan")
        for modality, mask, expected in (
            ("CT", support.ctSegmentation(32), "ct-tissue"),
            ("MR", support.hippocampusSegmentation(), "mr-hippocampus"),
        ):
            volume.SetAttribute("DICOM.Modality", modality)
            self.assertEqual(modelFor(volume, models, mask), expected)
        provenance.write(volume, NodeProvenance(model="mr-hippocampus", modality="MR"))
        self.assertEqual(modelFor(volume, models), "mr-hippocampus")
        provenance.write(volume, NodeProvenance(model="of a friend", modality="PET"))
        volume.SetAttribute("DICOM.Modality", None)
        with self.assertRaises(PackageError):
            modelFor(volume, [model for model in models if model.task != "generate"])


if __name__ == "__main__":
    unittest.main()
