"""One edit and one lesion as runs, with the real worker and the real model."""

import unittest

import numpy as np
import slicer

import support
from support import processUntil
from support.painter import Painter
from support.processes import WarmWorkerTestCase
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.errors import Cancelled, InputError, PackageError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.copies import copyOfSegmentation
from MedGenSlicer.nodes.geometry import worldTransform
from MedGenSlicer.nodes.inputs import captureOn
from support.nodes import syntheticCT

QUICK = {"preset": "draft", "seed": 3, "device": "cpu"}


def voxels(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


class EditingCase(WarmWorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.volume, self.segmentation = syntheticCT()

    def changedSegmentation(self, center=(10, 20, 14), radius=4):
        """A copy of the segmentation with a ball of bone, and where that is."""
        copy = copyOfSegmentation(self.segmentation, "Changed")
        painter = Painter(copy, self.volume)
        ball = painter.paint("bone", center, radius)
        slicer.mrmlScene.RemoveNode(painter.editor)
        return copy, ball

    def assertOnlyAdded(self, before, *added):
        without = [node for node in added] + [node.GetDisplayNode() for node in added]
        changed = [
            text for text in differences(before, snapshotOfScene(without=without)) if "SubjectHierarchy" not in text
        ]
        self.assertEqual(changed, [])


class EditTest(EditingCase):
    def testOnlyTheRegionIsAnotherOne(self):
        changed, ball = self.changedSegmentation()
        before = snapshotOfScene()
        node = self.api.edit(self.volume, self.segmentation, changed, **QUICK)
        self.assertOnlyAdded(before, node)
        old, new = voxels(self.volume), voxels(node)
        self.assertEqual(new.dtype, old.dtype)
        self.assertGreater(float(new[ball].mean()), 200)
        np.testing.assert_array_equal(new[:, :, -2:], old[:, :, -2:])
        self.assertGreater(self.api.currentRun.changed, 100)
        made = provenance.read(node)
        self.assertEqual((made.model, made.task, made.seed, made.input), ("ct-tissue", "edit", 3, "Volume"))
        self.assertEqual(node.GetName(), "Volume edited")
        np.testing.assert_allclose(support.matrixOf(node), support.matrixOf(self.volume))

    def testAForgottenMaskIsNoUnchangedCopy(self):
        run = self.api.edit(self.volume, self.segmentation, self.segmentation, **QUICK, wait=False)
        processUntil(lambda: run.state == "running")
        before = snapshotOfScene()
        run._onAnswer({"closed": True})
        self.assertSentence(run.error, "needed the memory", "run again")
        processUntil(lambda: self.api.engine.state == "ready")
        self.assertSceneIs(before)

    def testTheSameMaskIsTheSameVolume(self):
        node = self.api.edit(self.volume, self.segmentation, self.segmentation, **QUICK)
        np.testing.assert_array_equal(voxels(node), voxels(self.volume))
        self.assertEqual(self.api.currentRun.changed, 0)

    def testWhatCannotBeEdited(self):
        changed, _ball = self.changedSegmentation()
        other = support.ctMaskNode(24)
        with self.assertRaisesRegex(InputError, "different grids"):
            self.api.edit(self.volume, self.segmentation, other)
        with self.assertRaisesRegex(PackageError, "no model named"):
            self.api.edit(self.volume, self.segmentation, changed, model="mine")
        changed.GetSegmentation().GetNthSegment(2).SetName("Liver of steel")
        before = snapshotOfScene()
        with self.assertRaisesRegex(InputError, "Liver of steel"):
            self.api.edit(self.volume, self.segmentation, changed, **QUICK)
        run = self.api.edit(self.volume, self.segmentation, self.segmentation, **QUICK, wait=False)
        run.cancel()
        self.assertIsInstance(run.error, Cancelled)
        self.assertSceneIs(before)


class LesionTest(EditingCase):
    def testAPointUnderATransform(self):
        """A point in the world, a volume under an oblique transform, and one whose voxels stay as they are."""
        transform = support.obliqueTransform(25)
        self.volume.SetAndObserveTransformNodeID(transform.GetID())
        index = (16, 16, 16)
        local = support.matrixOf(self.volume) @ [*index, 1.0]
        world = (worldTransform(self.volume) @ local)[:3]
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Here")
        points.AddControlPoint(0, 0, 0)
        points.AddControlPoint(*world)
        old = voxels(self.volume).copy()
        node = self.api.insertLesion(self.volume, points, "sphere", 12.0, label="bone", **QUICK)
        run = self.api.currentRun
        lesion = run.lesionNode
        np.testing.assert_array_equal(voxels(self.volume), old)
        for made in (node, lesion):
            self.assertEqual(made.GetTransformNodeID(), transform.GetID())
        segment = lesion.GetSegmentation().GetNthSegmentID(0)
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(lesion, segment, node).transpose(2, 1, 0) > 0
        self.assertTrue(inside[index])
        np.testing.assert_allclose(run.at, world, atol=1e-2)
        ball = 4 / 3 * np.pi * 6.0**3 / abs(np.linalg.det(support.matrixOf(node)[:3, :3]))
        self.assertLess(abs(inside.sum() - ball), 0.4 * ball)
        new = voxels(node)
        self.assertGreater(float(new[inside].mean()), 200)
        reach = np.ceil(run.haloMm / np.array(self.volume.GetSpacing())).astype(int)
        where = np.argwhere(inside)
        near = np.zeros(new.shape, bool)
        near[
            tuple(slice(max(0, a - r), b + r + 1) for a, b, r in zip(where.min(0), where.max(0), reach, strict=True))
        ] = True
        np.testing.assert_array_equal(new[~near], old[~near])
        self.assertEqual(provenance.read(node).task, "insert-lesion")

    def testAPaintedSegmentIsTakenAsItIs(self):
        drawing, ball = self.changedSegmentation((16, 16, 16), 3)
        drawing.GetSegmentation().AddEmptySegment("tumor", "Tumor")
        ball = Painter(drawing, self.volume).paint("Tumor", (16, 16, 16), 3)
        with self.assertRaisesRegex(InputError, "Choose which segment"):
            self.api.insertLesion(self.volume, drawing, label="bone", **QUICK)
        node = self.api.insertLesion(self.volume, drawing, label="bone", segment="Tumor", **QUICK)
        lesion = self.api.currentRun.lesionNode
        segment = lesion.GetSegmentation().GetNthSegmentID(0)
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(lesion, segment, node).transpose(2, 1, 0) > 0
        np.testing.assert_array_equal(inside, ball)

    def testTheSeedChoosesAPlaceInTheOrgan(self):
        node = self.api.insertLesion(
            self.volume, None, "sphere", 8.0, contrast=300, organ="soft tissue", labelsNode=self.segmentation, **QUICK
        )
        run = self.api.currentRun
        labels = captureOn(self.segmentation, self.volume).image
        value = next(value for value, name in labels.names.items() if name == "soft tissue")
        segment = run.lesionNode.GetSegmentation().GetNthSegmentID(0)
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(run.lesionNode, segment, node).transpose(2, 1, 0) > 0
        self.assertTrue((labels.array[inside] == value).all())
        self.assertGreater(float((voxels(node)[inside].astype(float) - voxels(self.volume)[inside]).mean()), 100)

    def testWhatCannotBeInserted(self):
        before = snapshotOfScene()
        for place, words in (
            ((1, 2), "three numbers"),
            ("here", "three numbers"),
            ((9000, 0, 0), "outside of the image"),
        ):
            with self.assertRaisesRegex(InputError, words):
                self.api.insertLesion(self.volume, place, label="bone", **QUICK)
        self.assertSceneIs(before)
        with self.assertRaisesRegex(InputError, "scalar volume node"):
            self.api.insertLesion(None, (0, 0, 0), label="bone")

    def testDeletedDuringTheRun(self):
        run = self.api.insertLesion(self.volume, (0, 0, 0), label="bone", **QUICK, wait=False)
        slicer.mrmlScene.RemoveNode(self.volume)
        processUntil(lambda: run.isDone)
        self.assertSentence(run.error, "was deleted during the run")


if __name__ == "__main__":
    unittest.main()
