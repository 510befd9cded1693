"""Results: where they lie, how they are shown, what they tell; saving, undo, writing over, failing half-way."""

import unittest
from dataclasses import replace
from unittest import mock

import support
from support import SlicerTestCase

support.useModuleFolder()

import numpy as np
import slicer

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.modality import guessModality
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import volumes as results
from support.nodes import (
    GRIDS,
    MADE,
    affine,
    hierarchy,
    maskNode,
    readInput,
    rotation,
    segmentationOf,
    synthetic,
    transformNode,
    volumeNode,
)
from support.snapshots import differences, snapshotOfScene


def arrayOf(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


def parentItem(node):
    return hierarchy().GetItemParent(hierarchy().GetItemByDataNode(node))


class PlaceTest(SlicerTestCase):
    """Same grid to the last bit, same parent transform, same place in the subject hierarchy."""

    def assertBeside(self, node, inputNode):
        self.assertEqual(node.GetTransformNodeID(), inputNode.GetTransformNodeID())
        self.assertEqual(parentItem(node), parentItem(inputNode))

    def testGridIsBitEqual(self):
        for name, matrix in GRIDS.items():
            for make in (volumeNode, maskNode):
                with self.subTest(name):
                    inputNode = make(matrix)
                    inputNode.SetAndObserveTransformNodeID(transformNode(affine(rotation(4), origin=(1, 2, 3))).GetID())
                    snapshot = readInput(inputNode)
                    volume = synthetic(snapshot)
                    node = results.addResult(snapshot, volume, MADE)
                    self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(inputNode).tobytes())
                    np.testing.assert_array_equal(arrayOf(node), volume.array)
                    self.assertEqual(arrayOf(node).dtype, np.int16)
                    self.assertBeside(node, inputNode)

    def testSegmentationWithReferenceVolume(self):
        labels = maskNode(GRIDS["oblique"])
        segmentation = segmentationOf(labels)
        segmentation.SetAndObserveTransformNodeID(transformNode(affine(rotation(5))).GetID())
        snapshot = readInput(segmentation)
        node = results.addResult(snapshot, synthetic(snapshot), MADE)
        self.assertEqual(node.GetTransformNodeID(), segmentation.GetTransformNodeID())
        self.assertEqual(parentItem(node), parentItem(segmentation))

    def testSegmentationSharingTheFrameOfItsReferenceIsBitEqual(self):
        labels = maskNode(GRIDS["oblique"])
        snapshot = readInput(segmentationOf(labels))
        node = results.addResult(snapshot, synthetic(snapshot), MADE)
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(labels).tobytes())

    def testBelowTheSameStudy(self):
        inputNode = maskNode()
        tree = hierarchy()
        patient = tree.CreateSubjectItem(tree.GetSceneItemID(), "Patient")
        study = tree.CreateStudyItem(patient, "Study")
        tree.SetItemParent(tree.GetItemByDataNode(inputNode), study)
        snapshot = readInput(inputNode)
        node = results.addResult(snapshot, synthetic(snapshot), MADE)
        self.assertEqual(parentItem(node), study)

    def testTransformDeletedMeanwhile(self):
        inputNode = maskNode()
        transform = transformNode(affine(rotation()))
        inputNode.SetAndObserveTransformNodeID(transform.GetID())
        snapshot = readInput(inputNode)
        slicer.mrmlScene.RemoveNode(transform)
        node = results.addResult(snapshot, synthetic(snapshot), MADE)
        self.assertIsNone(node.GetParentTransformNode())

    def testInputsAreNotChanged(self):
        inputNode = segmentationOf(maskNode(GRIDS["oblique"]))
        inputNode.SetAndObserveTransformNodeID(transformNode(affine(rotation())).GetID())
        before = snapshotOfScene()
        snapshot = readInput(inputNode)
        node = results.addResult(snapshot, synthetic(snapshot), MADE)
        after = snapshotOfScene(without=[node, node.GetDisplayNode()])
        changed = [text for text in differences(before, after) if "SubjectHierarchy" not in text]
        self.assertEqual(changed, [])


class ShownTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.mask = maskNode(name="Abdomen")
        self.snapshot = readInput(self.mask)

    def testCtWindow(self):
        display = results.addResult(self.snapshot, synthetic(self.snapshot), MADE).GetDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()), (400.0, 40.0, 0))
        self.assertEqual(display.GetColorNode().GetID(), "vtkMRMLColorTableNodeGrey")

    def testMrWindowCoversTheValues(self):
        volume = synthetic(self.snapshot, "MR")
        node = results.addResult(self.snapshot, volume, replace(MADE, modality="T1w", unit="a.u."))
        display = node.GetDisplayNode()
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        inside = (volume.array >= low) & (volume.array <= high)
        self.assertGreater(inside.mean(), 0.95)
        self.assertLess(high, volume.array.max())

    def testConstantVolumeHasAWindow(self):
        volume = Volume(np.full(self.snapshot.shape, 3, np.float32), self.snapshot.affine)
        node = results.addResult(self.snapshot, volume, MADE)
        self.assertGreater(node.GetDisplayNode().GetWindow(), 0)

    def testNamesAreUniqueAndSaySynthetic(self):
        first, second = (results.addResult(self.snapshot, synthetic(self.snapshot), MADE) for unused in range(2))
        self.assertEqual(first.GetName(), "Abdomen synthetic CT (ct-tissue)")
        self.assertNotEqual(second.GetName(), first.GetName())
        self.assertIn("synthetic", second.GetName())

    def testSpread(self):
        spread = Volume(
            np.abs(np.random.default_rng(0).normal(0, 30, self.snapshot.shape)).astype(np.float32),
            self.snapshot.affine,
            "CT",
            "HU",
        )
        node = results.addResult(self.snapshot, spread, replace(MADE, content="spread", passed=None))
        self.assertIn("spread", node.GetName())
        self.assertNotEqual(node.GetDisplayNode().GetWindow(), 400.0)

    def testUnits(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        self.assertEqual(node.GetVoxelValueUnits().GetCodeMeaning(), "Hounsfield unit")


class ProvenanceTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.snapshot = readInput(maskNode(GRIDS["oblique"]))

    def testWhatIsWrittenIsRead(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        self.assertEqual(provenance.read(node), MADE)
        self.assertIn("SYNTHETIC", node.GetDescription())
        self.assertIn("not for diagnosis", node.GetDescription())
        self.assertIn("Bones are bright.", node.GetDescription())
        self.assertEqual(node.GetAttribute("MedGen.Synthetic"), "1")

    def testOtherNodesHaveNone(self):
        self.assertIsNone(provenance.read(volumeNode()))
        self.assertIsNone(provenance.read(None))

    def testFailedChecksAreSaid(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), replace(MADE, passed=False))
        self.assertIs(provenance.read(node).passed, False)
        self.assertIn("NOT", node.GetDescription())

    def testAttributesEditedByHand(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        node.SetAttribute("MedGen.Parameters", "{not json")
        self.assertEqual(provenance.read(node).parameters, {})

    def testSeedOfEachSampleIsTheOneThatWasKept(self):
        """That of the attempt that passed the checks, of the first one where none did."""

        def attempt(sample: int, seed: int, passed: bool) -> dict:
            return {"sample": sample, "seed": seed, "check": {"passed": passed}}

        attempts = [
            attempt(0, 5, True),
            attempt(1, 6, False),
            attempt(1, 1000009, True),
            attempt(2, 7, False),
            attempt(2, 1000010, False),
        ]
        report = {"model": "m", "version": "1", "task": "generate", "seed": 5, "attempts": attempts}
        seeds = [NodeProvenance.ofReport(report, sample).seed for sample in range(4)]
        self.assertEqual(seeds, [5, 1000009, 7, 8])

    def testTheModalityOfAResultIsKnownWhenItIsAnInput(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        self.assertEqual(readInput(node).image.modality, "CT")
        self.assertEqual(guessModality(node), "CT")

    def testSurvivesSavingAndLoadingTheScene(self):
        transform = transformNode(affine(rotation(6), origin=(4, 5, 6)))
        inputNode = slicer.mrmlScene.GetNodeByID(self.snapshot.nodeID)
        inputNode.SetAndObserveTransformNodeID(transform.GetID())
        self.snapshot = readInput(inputNode)
        volume = synthetic(self.snapshot)
        node = results.addResult(self.snapshot, volume, MADE)
        name, description, matrix = node.GetName(), node.GetDescription(), support.matrixOf(node)
        path = str(self.temporaryFolder() / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByName(name))
        slicer.util.loadScene(path)
        loaded = slicer.util.getNode(name)
        self.assertEqual(provenance.read(loaded), MADE)
        self.assertEqual(loaded.GetDescription(), description)
        np.testing.assert_array_equal(arrayOf(loaded), volume.array)
        np.testing.assert_allclose(support.matrixOf(loaded), matrix, atol=1e-6)
        self.assertEqual(loaded.GetParentTransformNode().GetName(), "Transform")
        self.assertEqual(loaded.GetDisplayNode().GetWindow(), 400.0)
        self.assertEqual(parentItem(loaded), parentItem(slicer.util.getNode("Mask")))


class UndoTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.snapshot = readInput(maskNode())
        slicer.mrmlScene.SetUndoOn()
        self.addCleanup(slicer.mrmlScene.SetUndoOff)
        self.addCleanup(slicer.mrmlScene.ClearUndoStack)

    def testUndoTakesTheResultBack(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        name, nodeID = node.GetName(), node.GetID()
        slicer.mrmlScene.Undo()
        self.assertIsNone(slicer.mrmlScene.GetNodeByID(nodeID))
        slicer.mrmlScene.Redo()
        self.assertEqual(provenance.read(slicer.util.getNode(name)), MADE)

    def testUndoGivesBackWhatWasWrittenOver(self):
        node = volumeNode(GRIDS["oblique"], name="Old")
        node.SetUndoEnabled(True)
        before, matrix = arrayOf(node).copy(), support.matrixOf(node)
        results.addResult(self.snapshot, synthetic(self.snapshot), MADE, outputNode=node)
        slicer.mrmlScene.Undo()
        old = slicer.util.getNode("Old")
        np.testing.assert_array_equal(arrayOf(old), before)
        np.testing.assert_allclose(support.matrixOf(old), matrix, atol=1e-12)
        self.assertIsNone(provenance.read(old))

    def testWithoutUndoNothingIsKept(self):
        slicer.mrmlScene.SetUndoOff()
        results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        self.assertEqual(slicer.mrmlScene.GetNumberOfUndoLevels(), 0)


class OverwriteTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.mask = maskNode(GRIDS["left-handed"])
        self.mask.SetAndObserveTransformNodeID(transformNode(affine(rotation())).GetID())
        self.snapshot = readInput(self.mask)

    def testChosenNode(self):
        node = volumeNode(GRIDS["oblique"], shape=(3, 4, 5), name="Chosen")
        node.SetAttribute("Mine", "kept")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        count = slicer.mrmlScene.GetNumberOfNodes()
        volume = synthetic(self.snapshot)
        self.assertIs(results.addResult(self.snapshot, volume, MADE, outputNode=node), node)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
        np.testing.assert_array_equal(arrayOf(node), volume.array)
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(self.mask).tobytes())
        self.assertEqual(node.GetTransformNodeID(), self.mask.GetTransformNodeID())
        self.assertEqual((node.GetName(), node.GetAttribute("Mine")), ("Chosen", "kept"))
        self.assertIs(node.GetDisplayNode(), display)
        self.assertEqual(display.GetWindow(), 400.0)
        self.assertEqual(provenance.read(node), MADE)

    def testFreshNodeOfASelectorGetsTheName(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Volume_1")
        results.addResult(self.snapshot, synthetic(self.snapshot), MADE, outputNode=node)
        self.assertEqual(node.GetName(), "Mask synthetic CT (ct-tissue)")
        self.assertEqual(node.GetDisplayNode().GetWindow(), 400.0)

    def testSecondResultReplacesTheFirstOnesProvenance(self):
        node = results.addResult(self.snapshot, synthetic(self.snapshot), MADE)
        second = NodeProvenance(model="other", modality="CT")
        results.addResult(self.snapshot, synthetic(self.snapshot, seed=1), second, outputNode=node)
        self.assertEqual(provenance.read(node), second)

    def assertRefused(self, node, words: str):
        before = snapshotOfScene()
        with self.assertRaises(InputError) as caught:
            results.addResult(self.snapshot, synthetic(self.snapshot), MADE, outputNode=node)
        self.assertIn(words, str(caught.exception))
        self.assertEqual(differences(before, snapshotOfScene()), [])

    def testInput(self):
        self.assertRefused(self.mask, "is the input")

    def testOtherClass(self):
        self.assertRefused(maskNode(name="Second"), "scalar volume")

    def testDeleted(self):
        node = volumeNode()
        slicer.mrmlScene.RemoveNode(node)
        self.assertRefused(node, "no longer in the scene")


class FailureTest(SlicerTestCase):
    """What fails half-way leaves the scene as it was."""

    def setUp(self):
        super().setUp()
        self.mask = maskNode()
        self.snapshot = readInput(self.mask)

    def assertNothingLeft(self, failing: str, outputNode=None):
        before = snapshotOfScene()
        with mock.patch.object(results, failing, side_effect=RuntimeError), self.assertRaises(RuntimeError):
            results.addResult(self.snapshot, synthetic(self.snapshot), MADE, outputNode=outputNode)
        self.assertEqual(differences(before, snapshotOfScene()), [])

    def testNewNode(self):
        for step in ("_fill", "_setDisplay", "placeBeside"):
            with self.subTest(step):
                self.assertNothingLeft(step)

    def testChosenNode(self):
        node = volumeNode(GRIDS["oblique"], name="Chosen")
        node.CreateDefaultDisplayNodes()
        for step in ("_setDisplay", "placeBeside", "_setUnits"):
            with self.subTest(step):
                self.assertNothingLeft(step, outputNode=node)

    def testChosenNodeThatWasEmpty(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Volume_1")
        for step in ("_setDisplay", "placeBeside"):
            with self.subTest(step):
                self.assertNothingLeft(step, outputNode=node)

    def testWrongShape(self):
        volume = Volume(np.zeros((2, 3, 4), np.int16), np.eye(4))
        before = snapshotOfScene()
        with self.assertRaises(InputError) as caught:
            results.addResult(self.snapshot, volume, MADE)
        self.assertIn("2 x 3 x 4", str(caught.exception))
        self.assertEqual(differences(before, snapshotOfScene()), [])


if __name__ == "__main__":
    unittest.main()
