"""Runs that fail: each ends in one sentence and a typed exception, the scene is as before, nothing is left behind."""

import os
import signal
import unittest

import numpy as np
import slicer

import support
from support import processUntil
from support.processes import MODEL, PYTHON, WarmWorkerTestCase, playing, script, withoutPackages
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from unittest import mock

from MedGenLib.errors import InputError, MedGenError, MemoryPlanError, WorkerError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.results import volumes as results
from support.processes import ANSWERS_ONCE, SILENT, forceNumberFormat

LONG = {"model": MODEL, "preset": "best", "seed": 1, "samples": 20}
QUICK = {"model": MODEL, "preset": "draft", "seed": 1}
LIMITED = {"MEDGEN_WORKER_MEMORY_MIB": "700", "OMP_NUM_THREADS": "2"}
"""Each thread of another number of cores would take 80 MiB of the limit."""


def largeMask(size: int, name: str = "Large"):
    """A body of four tissues with the model ct-tissue's own numbers."""
    array = np.zeros((size,) * 3, np.uint8)
    edge = size // 10
    array[edge:-edge, edge:-edge, edge:-edge] = 1
    array[2 * edge : -2 * edge, 2 * edge : -2 * edge, 2 * edge : -2 * edge] = 2
    array[3 * edge : -3 * edge, 4 * edge : 5 * edge, 4 * edge : 5 * edge] = 3
    matrix = slicer.util.vtkMatrixFromArray(np.diag([2.0, 2.0, 2.0, 1.0]))
    return slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name, nodeClassName="vtkMRMLLabelMapVolumeNode")


class FailureTestCase(WarmWorkerTestCase):
    def fails(self, logic, kind, *words, node=None, act=None, stage="sampling", gone=(), workerEnds=True, **choices):
        """The run ends in this error, both in the handle and in the console; returns it.

        act: done once when the run has reached `stage`; gone: nodes that the test itself removes.
        """
        node = node or self.mask
        before = snapshotOfScene(without=gone)
        goneIDs = {other.GetID() for other in gone}
        ended = []
        run = logic.generate(node, **{**QUICK, **choices}, wait=False, onDone=ended.append)
        if act is not None:
            processUntil(lambda: run.isDone or run.progress.get("stage") == stage, 60)
            self.assertFalse(run.isDone, run.error)
            act()
        processUntil(lambda: run.isDone, 120)
        self.assertEqual(ended, [run])
        self.assertIsInstance(run.error, MedGenError)
        self.assertIs(type(run.error), kind, run.error) if kind is not InputError else self.assertIsInstance(
            run.error, InputError
        )
        self.assertEqual((run.state, run.nodes), ("failed", []))
        self.assertSentence(run.error, *words)
        with self.assertRaises(kind):
            run.result()
        if workerEnds:
            self.assertStopped(logic.engine)
        else:
            processUntil(lambda: not self.runFolders(), 5)
            self.assertEqual(logic.engine.state, "ready")
        after = {key: value for key, value in snapshotOfScene().items() if key not in goneIDs}
        self.assertEqual(differences(before, after), [])
        return run

    def setUp(self):
        super().setUp()
        self.mask = support.hippocampusSegmentation()


class StartTest(FailureTestCase):
    def testNoSuchPython(self):
        self.fails(self.logic(python="/no/such/python"), WorkerError, "/no/such/python")

    def testPythonWithoutPackages(self):
        self.fails(self.logic(python=withoutPackages()), WorkerError, "torch", "Install")

    def testGarbage(self):
        run = self.fails(self.logic(python=playing(self.workFolder, "print('Welcome!')\n" + SILENT)), WorkerError)
        self.assertIn("Welcome!", run.error.detail)

    def testNeverAnswers(self):
        self.fails(self.logic(python=playing(self.workFolder, SILENT), startTimeout=0.5), WorkerError, "did not answer")

    def testTemporaryFolder(self):
        blocked = self.workFolder / "a file"
        blocked.write_text("", encoding="utf-8")
        self.fails(self.logic(temporaryRoot=str(blocked)), InputError, "temporary folder")

    def testBlockingCallRaises(self):
        with self.assertRaises(WorkerError) as caught:
            self.logic(python="/no/such/python").generate(self.mask, **QUICK)
        self.assertSentence(caught.exception, "cannot start")

    def testWorksAfterTheFaultIsGone(self):
        logic = self.logic(python="/no/such/python")
        self.fails(logic, WorkerError)
        logic.engine.python = PYTHON
        self.assertIsNotNone(logic.generate(self.mask, **QUICK))


class DuringTest(FailureTestCase):
    def testWorkerKilled(self):
        logic = self.logic()
        self.fails(
            logic,
            WorkerError,
            "ended unexpectedly",
            **LONG,
            act=lambda: os.kill(logic.engine.info["pid"], signal.SIGKILL),
        )
        self.assertIsNotNone(logic.generate(self.mask, **QUICK))  # the next run starts another

    def testWorkerHangs(self):
        import psutil

        logic = self.logic(silenceTimeout=2.5)
        self.fails(
            logic, WorkerError, "not answered", **LONG, act=lambda: psutil.Process(logic.engine.info["pid"]).suspend()
        )

    def testGarbageDuringTheRun(self):
        source = ANSWERS_ONCE + "print('Segmentation fault?')\n" + SILENT
        self.fails(self.logic(python=playing(self.workFolder, source)), WorkerError, "an invalid message")

    def testInputDeleted(self):
        logic = self.logic()
        display = self.mask.GetDisplayNode()
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        self.fails(
            logic,
            InputError,
            "'Hippocampus'",
            "deleted",
            **LONG,
            gone=[self.mask, display, tree],
            act=lambda: (slicer.mrmlScene.RemoveNode(self.mask), slicer.mrmlScene.RemoveNode(display)),
        )

    def testOutputDeleted(self):
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Wanted")
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        self.fails(
            self.logic(),
            InputError,
            "'Wanted'",
            "deleted",
            **LONG,
            outputNode=output,
            gone=[output, tree],
            act=lambda: slicer.mrmlScene.RemoveNode(output),
        )

    def testAnotherNodeDeletedDoesNotMatter(self):
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
        run = self.logic().generate(self.mask, **QUICK, wait=False)
        slicer.mrmlScene.RemoveNode(other)
        self.assertEqual(run.wait().state, "done")

    def testInputDeletedWhileTheWorkerStarts(self):
        logic = self.logic(idleTimeout=600.0)  # a worker of its own
        display = self.mask.GetDisplayNode()
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        self.fails(
            logic,
            InputError,
            "deleted",
            stage="starting the worker",
            gone=[self.mask, display, tree],
            act=lambda: (slicer.mrmlScene.RemoveNode(self.mask), slicer.mrmlScene.RemoveNode(display)),
        )

    def testSceneClosed(self):
        logic = self.logic()
        ended = []
        run = logic.generate(self.mask, **LONG, wait=False, onDone=ended.append)
        processUntil(lambda: run.progress.get("stage") == "sampling")
        slicer.mrmlScene.Clear(0)
        self.assertEqual((ended, run.state), ([run], "failed"))
        self.assertSentence(run.error, "scene was closed")
        self.assertStopped(logic.engine)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])

    def testImportFailsHalfWay(self):
        logic = self.logic()
        real, calls = results.addResult, []

        def failing(*arguments, **keywords):
            calls.append(arguments)
            if len(calls) == 2:
                raise RuntimeError("half-way")
            return real(*arguments, **keywords)

        with mock.patch.object(results, "addResult", failing), self.assertLogs(level="ERROR"):
            self.fails(logic, WorkerError, "unexpectedly", "half-way", samples=3, workerEnds=False)
        self.assertEqual(len(calls), 2)


class ChoicesTest(FailureTestCase):
    """What only the worker or the voxels can tell: the worker goes on."""

    def testUnknownLabel(self):
        self.mask.GetSegmentation().GetNthSegment(0).SetName("thingamajig")
        run = self.fails(self.logic(), InputError, "'thingamajig'", "mapping", workerEnds=False)
        self.assertNotIn("--map", str(run.error))

    def testEmptyAfterErasing(self):
        for segmentID in self.mask.GetSegmentation().GetSegmentIDs():
            slicer.util.arrayFromSegmentInternalBinaryLabelmap(self.mask, segmentID)[:] = 0
        self.fails(self.logic(), InputError, "is empty", workerEnds=False)

    def testDevice(self):
        self.fails(self.logic(), InputError, "cuda:7", device="cuda:7", workerEnds=False)

    def testMappingToALabelThatIsNotThere(self):
        self.fails(self.logic(), InputError, "amygdala", mapping={"anterior hippocampus": "amygdala"}, workerEnds=False)


class DiskTest(FailureTestCase):
    def testFullWhileSlicerWritesTheInput(self):
        import resource

        logic = self.logic()
        mask = largeMask(160)
        logic.engine.start()
        processUntil(lambda: logic.engine.state == "ready")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))  # as a full disk: no file grows beyond 2 MiB
        try:
            self.fails(logic, InputError, "disk is full", node=mask, model="ct-tissue", workerEnds=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def testFullWhileTheWorkerWritesTheResult(self):
        limited = script(self.workFolder, "ulimit -f 100", f'exec "{PYTHON}" "$@"')  # 100 blocks of 512 bytes
        logic = self.logic(python=limited)
        self.fails(logic, InputError, "disk is full", workerEnds=False)

    def testTemporaryFolderVanishes(self):
        logic = self.logic()
        logic.generate(self.mask, **QUICK)
        import shutil

        shutil.rmtree(logic.engine._worker.folder)  # as programs do that clean temporary folders
        self.assertIsNotNone(logic.generate(self.mask, **QUICK))


@unittest.skipUnless(os.path.exists("/proc/self/status"), "the limit is Linux's")
class MemoryTest(FailureTestCase):
    def testRealOutOfMemory(self):
        logic = self.logic(variables={**LIMITED, "MEDGEN_WORKER_MEMORY_MIB": "400"})
        mask = largeMask(200)
        self.fails(logic, MemoryPlanError, "memory", node=mask, model="ct-tissue", workerEnds=False)

    def testTheWorkerGoesOnAfterIt(self):
        self.goesOn(bfloat16=False)

    @support.slow
    def testTheWorkerGoesOnAfterItInBfloat16(self):
        # Memory ran out in oneDNN's code generator, and in the other format in an allocation.
        self.goesOn(bfloat16=True)

    def goesOn(self, bfloat16):
        forceNumberFormat(bfloat16)
        logic = self.logic(variables=LIMITED)
        with self.assertRaises(MemoryPlanError):
            logic.generate(largeMask(300), model="ct-tissue", preset="draft", seed=1)
        worker = logic.engine.info["pid"]
        node = logic.generate(self.mask, **QUICK)
        self.assertEqual(logic.engine.info["pid"], worker)
        self.assertIsNotNone(provenance.read(node))


if __name__ == "__main__":
    unittest.main()
