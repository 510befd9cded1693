"""The console API with the real worker and real models: results, callbacks, repeatability."""

import doctest
import os
import shutil
import subprocess
import unittest
from unittest import mock

import numpy as np
import slicer

import support
from support import processUntil
from support.panelcase import ctVolume
from support.processes import MODEL, PYTHON, WarmWorkerTestCase, WorkerTestCase, children
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

import MedGenLib
from MedGenLib import user_folders
from MedGenLib.errors import Cancelled, InputError, LicenseError, PackageError
from MedGenSlicer import logic as logicModule
from MedGenSlicer.nodes import provenance
from support.nodes import GRIDS, maskNode, readInput, volumeNode

QUICK = {"model": MODEL, "preset": "draft", "seed": 11, "device": "cpu"}


def voxels(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


class GenerateTest(WarmWorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.mask = support.hippocampusSegmentation()

    def testSameVoxelsAsTheLibrary(self):
        self.mask.SetAndObserveTransformNodeID(support.obliqueTransform(20).GetID())
        before = snapshotOfScene()
        node = self.api.generate(self.mask, **QUICK)
        after = snapshotOfScene(without=[node, node.GetDisplayNode()])
        changed = [text for text in differences(before, after) if "SubjectHierarchy" not in text]
        self.assertEqual(changed, [])
        direct = MedGenLib.generate(readInput(self.mask).image, **QUICK)
        np.testing.assert_array_equal(voxels(node), direct.volume.array)
        self.assertEqual(node.GetTransformNodeID(), self.mask.GetTransformNodeID())
        made = provenance.read(node)
        self.assertEqual(
            (made.model, made.task, made.seed, made.preset, made.passed, made.input),
            (MODEL, "generate", 11, "draft", direct.report.passed, "Hippocampus"),
        )
        self.assertEqual(made.checks, direct.report.sentences)
        self.assertIn("torch", made.software)
        run = self.api.currentRun
        self.assertEqual((run.state, run.node, run.error, run.sentences), ("done", node, None, made.checks))

    def testOptionsReachTheLibrary(self):
        python = {"sampler": "heun", "steps": 4, "guidance": 1.5, "memory": "small", "retries": 0}
        node = self.api.generate(self.mask, **QUICK, **python)
        direct = MedGenLib.generate(readInput(self.mask).image, **QUICK, **python)
        np.testing.assert_array_equal(voxels(node), direct.volume.array)
        line = provenance.read(node).python
        for name, value in python.items():
            self.assertIn(f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}", line)

    @support.slow
    def testSecondRunIsWarmAndTheSame(self):
        first = self.api.generate(self.mask, **QUICK)
        worker = self.api.engine.info["pid"]
        second = self.api.generate(self.mask, **QUICK)
        self.assertEqual(self.api.engine.info["pid"], worker)
        np.testing.assert_array_equal(voxels(first), voxels(second))

    def testNotWaiting(self):
        seen, ended = [], []
        run = self.api.generate(self.mask, **QUICK, wait=False, onProgress=seen.append, onDone=ended.append)
        self.assertFalse(run.isDone)
        self.assertIs(self.api.currentRun, run)
        processUntil(lambda: ended)
        self.assertEqual(ended, [run])
        self.assertEqual(run.state, "done")
        self.assertIs(run.wait(), run)
        self.assertIs(run.result(), run.node)
        for progress in seen:
            self.assertLessEqual({"stage", "step", "total", "seconds_left", "memory_mib"}, set(progress))
        stages = list(dict.fromkeys(progress["stage"] for progress in seen))
        for stage in ("starting the worker", "writing the input", "sampling", "decoding", "reading the result"):
            self.assertIn(stage, stages)

    @support.slow
    def testCallbacksThatRaiseDoNotBreakTheRun(self):
        def broken(unused):
            raise ValueError("the caller's mistake")

        with self.assertLogs(level="ERROR"):
            node = self.api.generate(self.mask, **QUICK, onProgress=broken, onDone=broken)
        self.assertIsNotNone(node)

    def testSeedIsDrawnAndKept(self):
        node = self.api.generate(self.mask, model=MODEL, preset="draft")
        seed = provenance.read(node).seed
        again = self.api.generate(self.mask, model=MODEL, preset="draft", seed=self.api.currentRun.parameters.seed)
        self.assertIsInstance(seed, int)
        np.testing.assert_array_equal(voxels(node), voxels(again))

    def testSamplesAndUncertainty(self):
        found = self.api.generate(self.mask, **QUICK, samples=3, uncertainty=True)
        self.assertEqual(len(found), 3)
        self.assertEqual([provenance.read(node).seed for node in found][0], 11)
        self.assertEqual(len({voxels(node).tobytes() for node in found}), 3)
        spread = self.api.currentRun.spreadNode
        self.assertEqual(provenance.read(spread).content, "spread")
        expected = np.std([voxels(node) for node in found], axis=0)
        # Population or sample deviation: they differ by one factor.
        ratio = voxels(spread)[expected > 1].mean() / expected[expected > 1].mean()
        self.assertTrue(0.99 < ratio < 1.24, ratio)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), 4)

    @support.slow
    def testTheOldNameOfUncertainty(self):
        with self.assertWarnsRegex(DeprecationWarning, "'spread' is now 'uncertainty'"):
            self.api.generate(self.mask, **QUICK, samples=2, spread=True)
        self.assertEqual(provenance.read(self.api.currentRun.spreadNode).content, "spread")
        self.assertIn("uncertainty=True", provenance.read(self.api.currentRun.node).python)

    def testOutputNode(self):
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Here")
        self.assertIs(self.api.generate(self.mask, **QUICK, outputNode=output), output)
        self.assertIsNotNone(provenance.read(output))

    def testMappingByName(self):
        names = {"front": "anterior hippocampus", "Segment_2": "posterior hippocampus"}
        expected = voxels(self.api.generate(self.mask, **QUICK)).copy()
        for index, name in enumerate(names):
            self.mask.GetSegmentation().GetNthSegment(index).SetName(name)
        node = self.api.generate(self.mask, **QUICK, mapping=names)
        np.testing.assert_array_equal(voxels(node), expected)

    def testCopiedLineRepeatsTheRun(self):
        node = self.api.generate(self.mask, **QUICK)
        line = provenance.read(node).python
        self.assertIn('getModuleLogic("MedGen").generate', line)
        with mock.patch.object(slicer.util, "getModuleLogic", lambda name: self.api):
            again = eval(line, {"slicer": slicer})
        self.assertIsNot(again, node)
        np.testing.assert_array_equal(voxels(again), voxels(node))


class WithoutMaskTest(WorkerTestCase):
    """A small package for images without a mask, with random weights."""

    NAME = "nv-generate-mr-brain"
    QUICK = {"model": NAME, "modality": "T2w", "seed": 3, "steps": 2, "device": "cpu", "acceptLicense": True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        program = (
            "import sys; from pathlib import Path; from maisis import small_package;"
            "from MedGenLib.user_folders import models_dir; models_dir().mkdir(parents=True, exist_ok=True);"
            f"small_package('{cls.NAME}', models_dir())"
        )
        paths = os.pathsep.join([str(support.ROOT), str(support.ROOT / "Testing" / "support")])
        subprocess.run([PYTHON, "-c", program], check=True, env={**os.environ, "PYTHONPATH": paths}, timeout=120)
        cls.addClassCleanup(shutil.rmtree, user_folders.models_dir() / cls.NAME, ignore_errors=True)

    @support.slow
    def testSizeAndSpacing(self):
        api = self.logic()
        node = api.generate(size=(40, 36, 32), spacing=(1.2, 1.2, 2), retries=0, **self.QUICK)
        self.assertEqual(node.GetImageData().GetDimensions(), (40, 36, 32))
        np.testing.assert_allclose(node.GetSpacing(), (1.2, 1.2, 2))
        center = support.matrixOf(node) @ [19.5, 17.5, 15.5, 1]
        np.testing.assert_allclose(center[:3], 0, atol=1e-4)
        made = provenance.read(node)
        self.assertEqual((made.seed, made.modality, made.input), (3, "T2w", ""))
        self.assertIn("without an input", made.description)
        self.assertEqual(node.GetName(), f"Synthetic T2w ({self.NAME})")
        self.assertIsNone(api.currentRun.snapshot.node)
        with mock.patch.object(slicer.util, "getModuleLogic", lambda name: api):
            again = eval(made.python, {"slicer": slicer})
        np.testing.assert_array_equal(voxels(again), voxels(node))

    def testTheGridOfANode(self):
        mask = maskNode(GRIDS["anisotropic"], shape=(32, 32, 32))
        node = self.logic().generate(mask, retries=0, **self.QUICK)
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(mask).tobytes())

    def testNeitherMaskNorSize(self):
        api = self.logic()
        with self.assertRaisesRegex(InputError, "No node is selected"):
            api.generate(**self.QUICK)
        with self.assertRaisesRegex(InputError, "No node is selected"):
            api.generate(size=(32, 32, 32))  # for a model that needs a mask
        self.assertEqual(api.engine.state, "off")


class LabelMapTest(WarmWorkerTestCase):
    def testCtFromALabelMap(self):
        mask = support.ctMaskNode(32)
        node = self.logic().generate(mask, preset="draft", seed=2)
        array = voxels(node)
        self.assertEqual(provenance.read(node).model, "ct-tissue")
        self.assertEqual(node.GetDisplayNode().GetWindow(), 400.0)
        bone, fat = array[voxels(mask) == 3].mean(), array[voxels(mask) == 1].mean()
        self.assertGreater(bone, 150)
        self.assertLess(fat, 0)
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(mask).tobytes())

    def testBodyOfAnImage(self):
        mask, image = support.ctMaskNode(32), ctVolume(32)
        choices = {"model": "ct-tissue", "preset": "draft", "seed": 2, "device": "cpu", "fill": "fat"}
        node = self.logic().generate(mask, bodyFromNode=image, **choices)
        direct = MedGenLib.generate(readInput(mask).image, body_from=readInput(image).image, **choices)
        np.testing.assert_array_equal(voxels(node), direct.volume.array)
        self.assertIn('bodyFromNode=slicer.util.getNode("Abdomen CT")', provenance.read(node).python)


class OrganTest(WarmWorkerTestCase):
    def testPhaseAndHUOfASegmentation(self):
        segmentation = support.ctSegmentation(32)
        for number, name in ((1, "liver"), (2, "vertebrae_L1")):
            segmentation.GetSegmentation().GetNthSegment(number).SetName(name)
        choices = {"preset": "draft", "seed": 2, "device": "cpu", "phase": "portal"}
        node = self.logic().generate(segmentation, hu={"liver": 140}, **choices)
        liver = voxels(support.ctMaskNode(32)) == 2
        inside = np.all([np.roll(liver, step, axis) for axis in range(3) for step in (-1, 0, 1)], axis=0)
        self.assertAlmostEqual(np.median(voxels(node)[inside]), 140, delta=3)
        self.assertIn('phase="portal"', provenance.read(node).python)
        self.assertIn('hu={"liver": 140}', provenance.read(node).python.replace("'", '"'))


class TranslateTest(WorkerTestCase):
    def testSameVoxelsAsTheLibraryAndLicense(self):
        home = mock.patch.dict(os.environ, MEDGEN_HOME=str(self.workFolder / "home"))  # no license is accepted there
        home.start()
        self.addCleanup(home.stop)
        api, head = self.logic(), support.headVolume(64)
        with self.assertRaises(LicenseError) as caught:
            api.translate(head, "CT", preset="draft", device="cpu")
        self.assertSentence(caught.exception, "CC-BY-NC-4.0", "acceptLicense=True")
        self.assertEqual(self.left(), [])  # known before a worker is started
        node = api.translate(head, "CT", preset="draft", device="cpu", acceptLicense=True)
        self.assertEqual(provenance.read(node).model, "head-mr-to-ct")
        self.assertEqual(provenance.read(node).modality, "CT")
        direct = MedGenLib.translate(readInput(head).image, "CT", preset="draft", device="cpu", accept_license=True)
        np.testing.assert_array_equal(voxels(node), direct.volume.array)
        self.assertEqual(support.matrixOf(node).tobytes(), support.matrixOf(head).tobytes())
        line = provenance.read(node).python
        self.assertIn('.translate(slicer.util.getNode("Head T1"), "CT"', line)
        with mock.patch.object(slicer.util, "getModuleLogic", lambda name: api):
            np.testing.assert_array_equal(voxels(eval(line, {"slicer": slicer})), voxels(node))
        # Accepted once, so not asked again.
        self.assertIsNotNone(api.translate(head, "CT", preset="draft", device="cpu"))


class RefusedTest(WorkerTestCase):
    """What is wrong with the choices is known before a worker is started."""

    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.mask = support.hippocampusSegmentation()

    def assertRefused(self, kind, words, call, *arguments, **keywords):
        before = snapshotOfScene()
        ended = []
        for wait in (True, False):
            with self.assertRaises(kind) as caught:
                call(*arguments, **keywords, wait=wait, onDone=ended.append)
            self.assertSentence(caught.exception, words)
        self.assertSceneIs(before)
        self.assertEqual((self.left(), ended, self.api.currentRun), ([], [], None))

    def testModelNotInstalled(self):
        self.assertRefused(PackageError, "ct-tissue", self.api.generate, self.mask, model="no-such-model")

    def testModelOfTheOtherTask(self):
        self.assertRefused(InputError, "translates", self.api.generate, self.mask, model="head-mr-to-ct")
        self.assertRefused(InputError, "needs a mask", self.api.translate, volumeNode(), "CT", model="ct-tissue")

    def testNoTranslation(self):
        self.assertRefused(PackageError, "No model translates", self.api.translate, volumeNode(), "PET")

    def testPreset(self):
        self.assertRefused(InputError, "draft", self.api.generate, self.mask, model=MODEL, preset="fast")

    def testUnknownOption(self):
        self.assertRefused(InputError, "use noiseHU", self.api.generate, self.mask, noise_hu=8)
        self.assertRefused(InputError, "a node holds one series", self.api.translate, volumeNode(), "CT", series="1.2")

    def testValueOutOfRange(self):
        self.assertRefused(InputError, "1 to 50 HU", self.api.generate, self.mask, noiseHU=80)
        self.assertRefused(InputError, "at least 1", self.api.generate, self.mask, samples=0)

    def testNoNode(self):
        self.assertRefused(InputError, "No node", self.api.generate, None)
        self.assertRefused(InputError, "scalar volume node", self.api.translate, None, "CT")

    def testMaskWhereAnImageIsNeeded(self):
        self.assertRefused(InputError, "scalar volume", self.api.translate, self.mask, "CT")

    def testOutputIsInput(self):
        node = volumeNode()
        slicer.util.updateVolumeFromArray(node, np.ones((5, 5, 5), np.uint8))
        self.assertRefused(InputError, "is the input", self.api.generate, node, model=MODEL, outputNode=node)

    def testWhileAnotherRunIsOn(self):
        run = self.api.generate(self.mask, **QUICK, wait=False)
        with self.assertRaises(InputError) as caught:
            self.api.generate(self.mask, **QUICK)
        self.assertSentence(caught.exception, "A run is going on")
        self.assertIs(self.api.currentRun, run)
        self.assertEqual(run.wait().state, "done")  # the first is not disturbed


class CancelTest(WorkerTestCase):
    @support.slow
    def testInAStage(self):
        self.cancelIn("starting the worker", "sampling", "reading the result")

    @support.slow
    def testInEveryOtherStage(self):
        self.cancelIn("writing the input", "preparing", "checking")

    def cancelIn(self, *stages):
        mask = support.hippocampusSegmentation()
        for stage in stages:
            with self.subTest(stage):
                api = self.logic()
                before = snapshotOfScene()
                after, ended = [], []

                def onProgress(progress, api=api, stage=stage, after=after):
                    if api.currentRun.isDone:
                        after.append(progress)
                    elif progress["stage"] == stage:
                        api.cancel()

                with self.assertRaises(Cancelled) as caught:
                    api.generate(mask, model=MODEL, preset="normal", onProgress=onProgress, onDone=ended.append)
                self.assertSentence(caught.exception, "cancelled")
                self.assertStopped(api.engine)
                self.assertEqual((after, [run.state for run in ended]), ([], ["cancelled"]))
                self.assertSceneIs(before)

    def testNextRunWorks(self):
        api, mask = self.logic(), support.hippocampusSegmentation()
        run = api.generate(mask, model=MODEL, preset="best", wait=False)
        processUntil(lambda: run.progress.get("stage") == "sampling")
        run.cancel()
        self.assertIsNotNone(api.generate(mask, **QUICK))

    def testWithoutARun(self):
        self.logic().cancel()

    def testAfterTheEnd(self):
        api = self.logic()
        api.generate(support.hippocampusSegmentation(), **QUICK)
        run = api.currentRun
        api.cancel()
        run.cancel()
        self.assertEqual((run.state, api.engine.state), ("done", "ready"))


class QuickAnswersTest(WorkerTestCase):
    """What needs no worker."""

    def setUp(self):
        super().setUp()
        self.api = self.logic()

    def tearDown(self):
        self.assertEqual([child for child in children() if child.pid not in self.before], [])
        super().tearDown()

    def testModels(self):
        names = [model.name for model in self.api.models()]
        self.assertLessEqual({"ct-tissue", "head-ct-to-mr", "head-mr-to-ct", "mr-hippocampus"}, set(names))
        self.assertEqual(names, sorted(names))

    def testCheckOfAMask(self):
        mask = support.hippocampusSegmentation()
        self.assertEqual([f for f in self.api.checkInput(mask, MODEL) if f.level == "error"], [])
        mask.GetSegmentation().GetNthSegment(0).SetName("thingamajig")
        mask.GetSegmentation().GetNthSegment(1).SetName("Liver")  # is soft tissue, as a table knows
        errors = [finding for finding in self.api.checkInput(mask, "ct-tissue") if finding.level == "error"]
        self.assertEqual(len(errors), 1)
        self.assertIn("'thingamajig'", errors[0].sentence)
        self.assertNotIn("Liver", errors[0].sentence)
        self.assertNotIn("--map", errors[0].sentence)  # that is for the command line
        self.assertEqual(
            [f for f in self.api.checkInput(mask, "ct-tissue", mapping={"thingamajig": "fat"}) if f.level == "error"],
            [],
        )

    def testCheckOfAnImage(self):
        head = support.headVolume(64)
        self.assertEqual([f for f in self.api.checkInput(head, to="CT") if f.level == "error"], [])
        errors = [f for f in self.api.checkInput(head, "head-ct-to-mr") if f.level == "error"]
        self.assertIn("looks like MR", errors[0].sentence)

    def testCheckOfNothing(self):
        for node, words in ((None, "No node"), (support.obliqueTransform(), "neither")):
            (finding,) = self.api.checkInput(node, MODEL)
            self.assertEqual(finding.level, "error")
            self.assertIn(words, finding.sentence)

    def testPlan(self):
        plan = self.api.planFor(support.hippocampusSegmentation(), MODEL, "draft")
        self.assertGreater(plan.memory_mib, 100)
        self.assertIn("CPU", plan.sentence)

    def testNoTorch(self):
        # Opening and asking must not load it into Slicer; a fresh process is the only honest witness.
        import subprocess
        import sys

        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import support; support.useModuleFolder();"
            "from MedGenSlicer.logic import MedGenLogic; api = MedGenLogic(); api.models();"
            "mask = support.hippocampusSegmentation(); api.checkInput(mask, 'mr-hippocampus');"
            "print([name for name in ('torch', 'monai', 'jsonschema', 'skimage', 'psutil', 'platformdirs')"
            " if name in sys.modules]); api.cleanup()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(support.FOLDER)], capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.stdout.strip().splitlines()[-1:], ["[]"], done.stderr)


class EvaluateTest(WarmWorkerTestCase):
    def testTable(self):
        head = support.headVolume(48)
        noisy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, head, "Noisy")
        slicer.util.updateVolumeFromArray(noisy, slicer.util.arrayFromVolume(head) + np.int16(7))
        before = snapshotOfScene()
        api = self.logic()
        table = api.evaluate(noisy, head)
        names = [table.GetCellText(row, 0) for row in range(table.GetNumberOfRows())]
        values = {name: float(table.GetCellText(row, 2)) for row, name in enumerate(names)}
        self.assertAlmostEqual(values["MAE"], 7, places=3)
        self.assertAlmostEqual(values["Bias"], 7, places=3)
        error = api.currentRun.errorNode
        np.testing.assert_allclose(np.unique(voxels(error)), [0, 7])
        self.assertEqual(error.GetParentTransformNode(), head.GetParentTransformNode())
        new = [table, error, *(error.GetNthDisplayNode(n) for n in range(error.GetNumberOfDisplayNodes()))]
        self.assertEqual(
            [
                text
                for text in differences(before, snapshotOfScene(without=new))
                if "SubjectHierarchy" not in text and "is new" not in text
            ],
            [],
        )


class DocumentationTest(unittest.TestCase):
    def testEveryCallHasAnExample(self):
        for name in ("generate", "translate", "models", "cancel", "evaluate", "exportDicom"):
            self.assertIn(">>>", getattr(logicModule.MedGenLogic, name).__doc__, name)


class ExamplesTest(WarmWorkerTestCase):
    def testExamplesRun(self):
        # Exactly as printed, in a scene that has the nodes they name.
        api = self.logic()
        support.ctSegmentation(24).SetName("Segmentation")
        support.headVolume(64).SetName("HeadT1")
        parser = doctest.DocTestParser()
        with mock.patch.object(slicer.util, "getModuleLogic", lambda name: api):
            for name in ("generate", "translate", "models", "cancel"):
                space = {"slicer": slicer}
                for example in parser.get_examples(getattr(logicModule.MedGenLogic, name).__doc__):
                    if "organs" in example.source:
                        continue  # needs a segmentation of organs
                    exec(compile(example.source, f"<{name}>", "single"), space)
                if "ct" in space:
                    self.assertIsNotNone(provenance.read(space["ct"]))


if __name__ == "__main__":
    unittest.main()
