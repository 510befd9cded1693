"""Live editing on the Slicer side: what is sent when, what is written where, what ends it.

The worker is played (played.py), so that what it draws is known to the voxel; test_panel_edit.py has the real one.
"""

import gc
import json
import os
import time
import unittest
import weakref
from unittest import mock

import numpy as np
import slicer
import vtk

import support
from support import processUntil
from support.painter import Painter
from support.played import HALO, SCALE
from support.processes import PYTHON, WorkerTestCase, script
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.errors import InputError, MedGenError, WorkerError
from MedGenSlicer.engine.background import Background
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.provenance import NodeProvenance
from support.nodes import volumeOn

SECONDS = 60


class LiveCase(WorkerTestCase):
    """A CT that MedGen made, its segmentation, and live editing of it with the played worker."""

    def setUp(self):
        super().setUp()
        self.behavior = self.workFolder / "behavior.json"
        self.behave()
        program = support.FOLDER / "support" / "played.py"
        python = script(self.workFolder, f'exec "{PYTHON}" -u "{program}" "$@"')
        variables = {"MEDGEN_PLAYED": str(self.behavior), "MEDGEN_ROOT": str(support.ROOT)}
        self.api = self.logic(python=python, variables=variables)
        self.segmentation = support.ctSegmentation(32)
        self.volume = volumeOn(self.segmentation)
        provenance.write(
            self.volume, NodeProvenance(model="ct-tissue", task="generate", seed=7, modality="CT", unit="HU")
        )
        self.painter = Painter(self.segmentation, self.volume)

    def behave(self, **how):
        self.behavior.write_text(json.dumps(how), encoding="utf-8")

    def live(self, **keywords):
        self.changes = []
        keywords.setdefault("onChange", lambda edit: self.changes.append(edit.state))
        edit = self.api.liveEdit(keywords.pop("volume", self.volume), self.segmentation, **keywords)
        processUntil(lambda: edit.state != "opening", SECONDS)
        return edit

    def requests(self, method="edit") -> list[dict]:
        path = self.behavior.with_name("requests.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [line for line in map(json.loads, lines) if line["method"] == method]

    def voxels(self, node=None) -> np.ndarray:
        """(i, j, k)"""
        return slicer.util.arrayFromVolume(node or self.volume).transpose(2, 1, 0)


class DrawTest(LiveCase):
    def testAStrokeIsDrawnInPlace(self):
        edit = self.live()
        self.assertIs(edit.volumeNode, self.volume)
        image, before, rest = self.volume.GetImageData(), self.voxels().copy(), snapshotOfScene(without=[self.volume])
        events = []
        tags = [
            self.volume.AddObserver(event, lambda *unused, name=name: events.append(name))
            for name, event in (
                ("modified", vtk.vtkCommand.ModifiedEvent),
                ("image", slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent),
            )
        ]
        ball = self.painter.paint("bone", (10, 20, 14), 4)
        painted = snapshotOfScene(without=[self.volume])
        edit.wait(SECONDS)
        for tag in tags:
            self.volume.RemoveObserver(tag)
        self.assertEqual(sorted(events), ["image", "modified"])
        self.assertIs(self.volume.GetImageData(), image)
        self.assertEqual(differences(painted, snapshotOfScene(without=[self.volume])), [])
        self.assertNotEqual(differences(rest, painted), [])  # the stroke itself
        now = self.voxels()
        self.assertTrue((now[ball] == 3 * SCALE).all())
        corners = np.argwhere(ball)
        near = np.zeros(ball.shape, bool)
        near[tuple(slice(a - HALO, b + 1 + HALO) for a, b in zip(corners.min(0), corners.max(0), strict=True))] = True
        np.testing.assert_array_equal(now[~near], before[~near])
        self.assertEqual(len(edit.seconds), 1)
        self.assertIn("Redrawn in", edit.sentence)

    def testOnlyTheChangedBlockTravels(self):
        edit = self.live()
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        sent = self.requests()
        self.assertEqual(len(sent), 1)
        self.assertTrue(all(size <= 7 for size in sent[0]["shape"]), sent)
        self.assertEqual(sent[0]["preset"], "draft")
        self.assertEqual(self.requests("edit/open")[0]["choices"]["seed"], 7)  # of the volume's provenance
        folders = self.runFolders()
        self.assertEqual(sorted(os.listdir(folders[0])), ["image.npy", "labels.npy"])

    def testStrokesDuringAnEditBecomeOne(self):
        edit = self.live()
        self.behave(seconds=0.5)
        self.painter.paint("bone", (6, 6, 6), 2)
        processUntil(lambda: edit.state == "drawing", SECONDS)
        for number in range(8):
            self.painter.paint("bone", (8 + 2 * number, 20, 20), 2)
            slicer.app.processEvents()
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 2)
        self.assertTrue((self.voxels()[8:23, 20, 20] == 3 * SCALE).all())

    def testAStrokeThatIsTakenBackMeanwhileIsNotSent(self):
        edit = self.live()
        self.behave(seconds=0.5)
        self.painter.paint("bone", (6, 6, 6), 2)
        processUntil(lambda: edit.state == "drawing", SECONDS)
        self.painter.paint("bone", (20, 20, 20), 2)
        self.painter.undo()
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)

    def testStrokesWhileItOpensAreDrawn(self):
        self.behave(seconds=0.3)
        edit = self.api.liveEdit(self.volume, self.segmentation)
        ball = self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())

    def testPausedAndRedrawnOnce(self):
        edit = self.live()
        edit.setLive(False)
        ball = self.painter.paint("bone", (10, 20, 14), 3)
        support.processUntil(lambda: not edit.isBusy, SECONDS)
        self.assertEqual(self.requests(), [])
        edit.redraw()
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())
        self.painter.paint("fat", (20, 20, 20), 3)
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)
        edit.setLive(True)
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 2)

    def testUndoAndRedo(self):
        edit = self.live()
        original = self.voxels().copy()
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        drawn = self.voxels().copy()
        self.assertEqual((edit.canUndo, edit.canRedo), (True, False))
        edit.undo()
        edit.wait(SECONDS)
        np.testing.assert_array_equal(self.voxels(), original)
        self.assertEqual((edit.canUndo, edit.canRedo), (False, True))
        self.assertEqual(len(self.requests()), 1)  # the mask still says something else, but nobody painted
        edit.redo()
        edit.wait(SECONDS)
        np.testing.assert_array_equal(self.voxels(), drawn)
        edit.undo()
        edit.wait(SECONDS)
        self.painter.paint("bone", (24, 24, 24), 2)  # the next stroke draws the mask as it is now
        edit.wait(SECONDS)
        self.assertTrue(self.voxels()[10, 20, 14] == 3 * SCALE)
        edit.undo()
        edit.undo()
        edit.wait(SECONDS)
        self.assertIn("no other edit", edit.sentence)

    def testEveryUndoCounts(self):
        edit = self.live()
        original = self.voxels().copy()
        for place in ((8, 8, 8), (16, 16, 16), (24, 24, 24)):
            self.painter.paint("bone", place, 2)
            edit.wait(SECONDS)
        for _number in range(3):
            edit.undo()
        edit.wait(SECONDS)
        np.testing.assert_array_equal(self.voxels(), original)
        self.assertEqual((edit.canUndo, len(self.requests("edit/undo"))), (False, 3))

    def testNothingNewToRedraw(self):
        edit = self.live()
        edit.redraw()
        edit.wait(SECONDS)
        self.assertSentence(edit.sentence, "shows this mask already")
        self.assertEqual(self.requests(), [])

    def testAFaultInSlicerEndsItWithASentence(self):
        edit = self.live()
        with mock.patch.object(edit._drawn, "write", side_effect=MemoryError):
            ball = self.painter.paint("bone", (10, 20, 14), 3)
            processUntil(lambda: edit.state == "ended", SECONDS)
        self.assertSentence(edit.sentence, "out of memory")
        self.assertTrue((self.live().wait(SECONDS) and self.voxels()[ball] == 3 * SCALE).all())  # it is not lost

    def testAnotherSegmentationInTheSameNode(self):
        edit = self.live()
        copy = slicer.vtkSegmentation()
        copy.DeepCopy(self.segmentation.GetSegmentation())
        self.segmentation.SetAndObserveSegmentation(copy)
        edit.wait(SECONDS)
        self.assertEqual(self.requests(), [])
        ball = Painter(self.segmentation, self.volume).paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())

    def testSceneUndoGoesBackToBeforeLiveEditing(self):
        scene = slicer.mrmlScene
        scene.SetUndoOn()
        self.addCleanup(scene.SetUndoOff)
        self.addCleanup(scene.ClearUndoStack)
        self.volume.SetUndoEnabled(True)
        original = self.voxels().copy()
        edit = self.live()
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertFalse(np.array_equal(self.voxels(), original))
        scene.Undo()
        np.testing.assert_array_equal(self.voxels(), original)
        self.assertIn("changed elsewhere", edit.sentence)

    def testOtherNodesDoNotShareTheVoxels(self):
        twin = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Twin")
        twin.SetAndObserveImageData(self.volume.GetImageData())
        before = self.voxels(twin).copy()
        edit = self.live()
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        np.testing.assert_array_equal(self.voxels(twin), before)

    def testWhatIsToldWithTheVolume(self):
        edit = self.live()
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        made = provenance.read(self.volume)
        self.assertEqual((made.seed, made.python), (7, ""))
        self.assertIn("redrawn", " ".join(made.checks))
        self.assertTrue(made.parameters["edited"])


class CopyTest(LiveCase):
    def testAUsersVolumeIsCopied(self):
        provenance.erase(self.volume)
        self.volume.CreateDefaultDisplayNodes()
        self.volume.GetDisplayNode().SetAutoWindowLevel(False)
        self.volume.GetDisplayNode().SetWindowLevel(123, 45)
        slicer.util.setSliceViewerLayers(background=self.volume)
        before = snapshotOfScene(without=[self.painter.editor])
        edit = self.live(model="ct-tissue")
        copy = edit.volumeNode
        self.assertIsNot(copy, self.volume)
        self.assertEqual(copy.GetName(), "Volume edited")
        self.assertEqual(copy.GetAttribute("MedGen.Synthetic"), "1")
        display = copy.GetDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel()), (123, 45))
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertEqual(composite.GetBackgroundVolumeID(), copy.GetID())
        self.assertEqual(self.voxels(copy).dtype, self.voxels().dtype)
        np.testing.assert_array_equal(self.voxels(copy), self.voxels())
        ball = self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels(copy)[ball] == 3 * SCALE).all())
        changed = [
            text
            for text in differences(before, snapshotOfScene(without=[copy, display, self.painter.editor]))
            if not any(name in text for name in ("SubjectHierarchy", "SliceComposite", "vtkMRMLSegmentation"))
        ]
        self.assertEqual(changed, [])

    def testTheOriginalMayGoOnceTheCopyIsThere(self):
        provenance.erase(self.volume)
        edit = self.live(model="ct-tissue")
        slicer.mrmlScene.RemoveNode(self.volume)
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)


class EarlierMaskTest(LiveCase):
    def testEndedAndBegunAgainDrawsWhatWasPaintedBetween(self):
        self.live().stop()
        ball = self.painter.paint("bone", (10, 20, 14), 3)
        edit = self.live()
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())

    def testNotWhereTheVolumeHasAnotherGridSince(self):
        self.live().stop()
        slicer.util.updateVolumeFromArray(self.volume, slicer.util.arrayFromVolume(self.volume)[:24].copy())
        edit = self.live()
        edit.wait(SECONDS)
        self.assertEqual(self.requests(), [])


class EndTest(LiveCase):
    def assertEnded(self, edit, words, kind=InputError):
        self.assertEqual(edit.state, "ended")
        self.assertFalse(edit.isLive)
        self.assertSentence(edit.sentence, words)
        self.assertIsInstance(edit.error, kind)
        with self.assertRaises(MedGenError):
            edit.wait(SECONDS)
        self.painter.paint("bone", (16, 16, 16), 2)  # reaches nobody
        processUntil(lambda: not edit.isBusy, SECONDS)
        self.assertEqual(self.changes.count("ended"), 1)

    def testVolumeDeleted(self):
        edit = self.live()
        slicer.mrmlScene.RemoveNode(self.volume)
        self.assertEqual(edit.state, "ended")
        self.assertSentence(edit.sentence, "'Volume' was deleted; choose another one")

    def testSegmentationDeletedDuringAnEdit(self):
        edit = self.live()
        self.behave(seconds=0.3)
        before = self.voxels().copy()
        self.painter.paint("bone", (10, 20, 14), 3)
        processUntil(lambda: edit.state == "drawing", SECONDS)
        slicer.mrmlScene.RemoveNode(self.segmentation)
        self.assertSentence(edit.sentence, "was deleted")
        processUntil(lambda: self.api.engine.state == "ready", SECONDS)
        np.testing.assert_array_equal(self.voxels(), before)

    def testVolumeChangedElsewhere(self):
        edit = self.live()
        slicer.util.arrayFromVolume(self.volume)[:] = 5
        slicer.util.arrayFromVolumeModified(self.volume)
        self.assertEnded(edit, "changed elsewhere")
        self.assertTrue((self.voxels() == 5).all())

    def testVolumeMoved(self):
        edit = self.live()
        self.volume.SetOrigin(1, 2, 3)
        self.assertEnded(edit, "changed elsewhere")

    def testOnlyTheVolumeUnderATransform(self):
        edit = self.live()
        transform = support.obliqueTransform(5)
        self.volume.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEnded(edit, "moved against its mask")

    def testBothUnderATransformGoesOn(self):
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        for node in (self.volume, self.segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
        edit = self.live()
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 12)
        transform.SetMatrixTransformToParent(matrix)
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)

    def testSceneClosed(self):
        edit = self.live()
        slicer.mrmlScene.Clear(0)
        self.assertEqual(edit.state, "ended")
        self.assertSentence(edit.sentence, "the scene was closed")

    def testWorkerDiesDuringAnEdit(self):
        edit = self.live()
        before = self.voxels().copy()
        self.behave(die=True)
        self.painter.paint("bone", (10, 20, 14), 3)
        processUntil(lambda: edit.state == "ended", SECONDS)
        self.behave()
        self.assertEnded(edit, "the worker stopped", WorkerError)
        np.testing.assert_array_equal(self.voxels(), before)

    def testWorkerStoppedWhileIdle(self):
        edit = self.live()
        self.api.engine.cancel()
        self.assertEnded(edit, "the worker stopped", WorkerError)

    def testWorkerDiesWhileItOpens(self):
        self.behave(die=True)
        edit = self.live()
        self.behave()
        self.assertEnded(edit, "The worker ended unexpectedly", WorkerError)

    def testAnotherWorkerSinceTheVolumeWasWritten(self):
        engine, ready = self.api.engine, []
        engine.start(ready.append)
        processUntil(lambda: ready, SECONDS)
        edit = self.api.liveEdit(self.volume, self.segmentation)
        engine.cancel()
        engine.start(ready.append)
        processUntil(lambda: edit.state == "ended" and len(ready) == 2, SECONDS)
        self.assertSentence(edit.sentence, "worker stopped", "switch live editing on again")
        self.assertEqual(self.requests("edit/open"), [])

    def testStoppedWhileTheVolumeIsWritten(self):
        ready = []
        self.api.engine.start(ready.append)
        processUntil(lambda: ready, SECONDS)
        edit = self.api.liveEdit(self.volume, self.segmentation)
        edit.stop()
        processUntil(lambda: not Background.alive, SECONDS)
        self.assertEqual((self.requests("edit/open"), self.runFolders()), ([], []))

    def testStoppedByWhomItIsTold(self):
        before = sorted(os.listdir())
        edit = self.live(onChange=lambda edit: edit.state == "drawing" and edit.stop())
        self.painter.paint("bone", (10, 20, 14), 3)
        processUntil(lambda: edit.state == "ended", SECONDS)
        processUntil(lambda: self.api.engine.state == "ready", SECONDS)
        self.assertEqual((self.requests(), sorted(os.listdir())), ([], before))

    def testNothingOfItIsKept(self):
        edit = self.live()
        edit.stop()
        known = weakref.ref(edit)
        self.api.currentEdit = edit = None
        slicer.app.processEvents()
        gc.collect()
        self.assertIsNone(known())

    def testWorkerThatDoesNotStart(self):
        api = self.logic(python=str(self.workFolder / "nothing"))
        edit = api.liveEdit(self.volume, self.segmentation)
        processUntil(lambda: edit.state == "ended", SECONDS)
        self.assertSentence(edit.sentence, "cannot start")

    def testASecondOneEndsTheFirst(self):
        first = self.live()
        second = self.live()
        self.assertEqual((first.state, second.state), ("ended", "ready"))
        self.assertIn("another one", first.sentence)
        self.painter.paint("bone", (10, 20, 14), 3)
        second.wait(SECONDS)
        self.assertEqual(len(self.requests()), 1)
        self.assertEqual(len(self.requests("edit/close")), 1)

    def testStop(self):
        edit = self.live()
        edit.stop()
        self.assertIsNone(edit.error)
        self.assertIs(edit.wait(SECONDS), edit)
        self.assertEqual(self.runFolders(), [])


class TroubleTest(LiveCase):
    def testAnEditThatFailsIsTriedWithTheNextStroke(self):
        edit = self.live()
        before = self.voxels().copy()
        self.behave(fail="The window is too large; paint less at once.")
        first = self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertEqual(edit.sentence, "The window is too large; paint less at once.")
        self.assertEqual(edit.state, "ready")
        np.testing.assert_array_equal(self.voxels(), before)
        self.behave()
        second = self.painter.paint("bone", (20, 20, 20), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[first | second] == 3 * SCALE).all())

    def testAForgottenCanvasIsOpenedAgain(self):
        edit = self.live()
        self.behave(closed=True)
        ball = self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())
        opened = self.requests("edit/open")
        self.assertEqual(len(opened), 2)
        self.assertEqual(opened[0]["choices"], opened[1]["choices"])

    def testADrawnBlockThatCannotBeReadIsDrawnAgain(self):
        edit = self.live()
        before = self.voxels().copy()
        with mock.patch("MedGenSlicer.editing.remote_canvas.take", side_effect=InputError("The image cannot be read.")):
            first = self.painter.paint("bone", (10, 20, 14), 3)
            edit.wait(SECONDS)
        self.assertEqual((edit.state, edit.sentence), ("ready", "The image cannot be read."))
        np.testing.assert_array_equal(self.voxels(), before)
        second = self.painter.paint("bone", (20, 20, 20), 3)
        edit.wait(SECONDS)
        self.assertTrue((self.voxels()[first | second] == 3 * SCALE).all())
        self.assertEqual(len(self.requests("edit/open")), 2)

    def testARunOfSlicerDoesNotEndIt(self):
        """Another request of the same worker comes between two edits."""
        edit = self.live()
        answers = []
        self.api.engine.request(
            "initialize", {"folder": str(self.temporary), "parent": os.getpid()}, answers.append, answers.append
        )
        self.painter.paint("bone", (10, 20, 14), 3)
        edit.wait(SECONDS)
        self.assertEqual((len(answers), len(self.requests())), (1, 1))

    def testAnUnknownSegmentIsSaidAndDrawnOnceItIsNamed(self):
        edit = self.live()
        segmentation = self.segmentation.GetSegmentation()
        segmentation.AddEmptySegment("new", "Tumor")
        segmentation.AddEmptySegment("empty", "Nothing yet")
        self.assertEqual(edit.unknown, [])
        ball = self.painter.paint("Tumor", (16, 16, 16), 3)
        edit.wait(SECONDS)
        self.assertIn("Tumor", edit.sentence)
        self.assertEqual(edit.unknown, ["Tumor"])
        self.assertEqual(self.requests(), [])
        segmentation.GetSegment("new").SetName("bone")
        edit.wait(SECONDS)
        self.assertEqual(edit.unknown, [])
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all(), edit.sentence)

    def testASegmentIsGivenAnotherLabel(self):
        edit = self.live()
        self.segmentation.GetSegmentation().AddEmptySegment("new", "Tumor")
        ball = self.painter.paint("Tumor", (16, 16, 16), 3)
        edit.wait(SECONDS)
        self.assertEqual(self.requests(), [])
        for label, value in (("bone", 3), ("fat", 1)):
            edit.setMapping({"Tumor": label})
            edit.wait(SECONDS)
            self.assertTrue((self.voxels()[ball] == value * SCALE).all(), edit.sentence)

    def testRefusedBeforeItBegins(self):
        provenance.erase(self.volume)
        self.volume.SetAttribute("DICOM.Modality", "MR")
        with self.assertRaisesRegex(InputError, "is MR, but the model 'ct-tissue' draws CT"):
            self.api.liveEdit(self.volume, self.segmentation, model="ct-tissue")
        with self.assertRaisesRegex(InputError, "'volumeNode' of liveEdit is missing; give it: scalar volume node"):
            self.api.liveEdit(None, self.segmentation)
        with self.assertRaisesRegex(InputError, "follows a segmentation"):
            self.api.liveEdit(self.volume, support.ctMaskNode(24), model="mr-hippocampus")
        self.assertEqual(self.api.engine.state, "off")

    def testACallerThatRaisesBreaksNothing(self):
        def broken(edit):
            raise ValueError("the caller's mistake")

        with self.assertLogs(level="ERROR"):
            edit = self.live(onChange=broken)
            ball = self.painter.paint("bone", (10, 20, 14), 3)
            edit.wait(SECONDS)
        self.assertTrue((self.voxels()[ball] == 3 * SCALE).all())

    def testWaitingHasATimeout(self):
        edit = self.live()
        self.behave(seconds=2)
        self.painter.paint("bone", (10, 20, 14), 3)
        start = time.monotonic()
        with self.assertRaisesRegex(WorkerError, "continues"):
            edit.wait(0.2)
        self.assertLess(time.monotonic() - start, 2)
        edit.wait(SECONDS)


if __name__ == "__main__":
    unittest.main()
