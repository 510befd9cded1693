"""The worker in a QProcess: start, requests, end; every way in which it can fail to start or to answer."""

import os
import signal
import time
import unittest

import slicer

import support
from support import processUntil, worstGap
from support.processes import PYTHON, WorkerTestCase, playing, script, withoutPackages

support.useModuleFolder()

from MedGenLib.errors import Cancelled, InputError, WorkerError
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.engine.process import asBytes
from support.processes import ANSWERS_ONCE, SILENT


class EngineTestCase(WorkerTestCase):
    def started(self, **keywords) -> Engine:
        engine = self.engine(**keywords)
        errors = []
        engine.start(None, errors.append)
        processUntil(lambda: engine.state == "ready" or errors)
        self.assertEqual(errors, [])
        return engine

    def startError(self, seconds: float = 20.0, **keywords):
        """The error that a start ends in; there is exactly one."""
        engine = self.engine(**keywords)
        ready, errors = [], []
        engine.start(ready.append, errors.append)
        processUntil(lambda: ready or errors, seconds)
        self.assertEqual(ready, [])
        self.assertStopped(engine)
        self.assertEqual(len(errors), 1)
        return errors[0]


class LifeTest(EngineTestCase):
    def testStatesAndInfo(self):
        engine = self.engine()
        states = [engine.state]
        engine.addObserver(lambda: states.append(engine.state) if states[-1] != engine.state else None)
        infos = []
        with worstGap() as gap:
            engine.start(infos.append)
            engine.start(infos.append)  # while it starts
            processUntil(lambda: len(infos) == 2)
        self.assertLess(gap.milliseconds, 500)  # waiting for the start would take more than a second
        engine.start(infos.append)  # when it is ready: at once
        self.assertEqual(len(infos), 3)
        self.assertEqual(states, ["off", "starting", "ready"])
        self.assertIn("cpu", [device["name"] for device in engine.info["devices"]])
        self.assertEqual(len(self.left()), 2 if support.inSlicer() else 1)  # PythonSlicer waits for its child
        self.assertIn(engine.info["pid"], [child.pid for child in self.left()])

    def testRequests(self):
        engine = self.started()
        answers, errors, progress = [], [], []
        engine.request("self_test", {}, answers.append, errors.append, progress.append)
        self.assertEqual(engine.state, "running")
        engine.request("models/list", {}, answers.append, errors.append)
        engine.request("no such method", {}, answers.append, errors.append)
        processUntil(lambda: len(answers) + len(errors) == 3)
        self.assertTrue(answers[0]["passed"])
        self.assertIn("ct-tissue", [model["name"] for model in answers[1]["models"]])
        self.assertSentence(errors[0], "no such method")
        self.assertEqual(engine.state, "ready")  # a failed request does not end it
        folders = [engine.runFolder() for unused in range(2)]
        self.assertEqual(len(set(folders)), 2)
        self.assertTrue(all(os.path.isdir(folder) and str(self.temporary) in folder for folder in folders))

    def testRequestWithoutWorker(self):
        errors = []
        self.engine().request("self_test", {}, None, errors.append)
        self.assertIsInstance(errors[0], WorkerError)

    def testLaunchedThroughALauncher(self):
        # PythonSlicer starts the real interpreter as its child and waits for it.
        source = f"import subprocess, sys\nsys.exit(subprocess.call([{PYTHON!r}, *sys.argv[1:]]))\n"
        launcher = playing(self.workFolder, source)
        engine = self.started(python=launcher)
        self.assertEqual(len(self.left()), 2)
        engine.cancel()
        self.assertStopped(engine)

    def testCurrentFolderIsNotImportedFrom(self):
        (self.workFolder / "psutil.py").write_text("raise RuntimeError('the wrong one')", encoding="utf-8")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.workFolder)
        self.started()

    def testSettingNamesThePython(self):
        settings = slicer.app.settings()
        settings.setValue("MedGen/WorkerPython", "/another/python")
        self.addCleanup(settings.remove, "MedGen/WorkerPython")
        self.assertEqual(self.engine().workerPython(), "/another/python")
        self.assertEqual(self.engine(python=PYTHON).workerPython(), PYTHON)

    def testBytesOfEveryBinding(self):
        class Array:
            def __init__(self, value):
                self.value = value

            def data(self):
                return self.value

        for value in (b"a\xff", bytearray(b"a\xff"), Array(b"a\xff"), Array(memoryview(b"a\xff")), Array("a\xff")):
            self.assertEqual(asBytes(value), b"a\xff")


class EndTest(EngineTestCase):
    def testCancelGivesCancelledAndLeavesNothing(self):
        engine = self.started()
        engine.runFolder()
        errors, stopped = [], []
        engine.addObserver(lambda: engine.isStopping or stopped.append((self.left(), self.files())))
        engine.request("self_test", {}, lambda answer: None, errors.append)
        stopped.clear()
        engine.cancel()
        self.assertEqual([type(error) for error in errors], [Cancelled])
        processUntil(lambda: stopped, 3)
        self.assertEqual(stopped[0], ([], []))
        self.assertStopped(engine)

    def testCancelWhileStarting(self):
        engine = self.engine()
        errors = []
        engine.start(None, errors.append)
        engine.cancel()
        self.assertEqual([type(error) for error in errors], [Cancelled])
        self.assertStopped(engine)

    def testStartsAgainAfterCancel(self):
        engine = self.started()
        first = engine.info["pid"]
        engine.cancel()
        infos = []
        engine.start(infos.append)  # the old one may not be gone yet
        processUntil(lambda: infos)
        self.assertNotEqual(infos[0]["pid"], first)

    def testKillWhileItEnds(self):
        engine = self.started()
        engine.cancel()
        engine.kill()
        self.assertEqual((self.left(), self.files(), engine.isStopping), ([], [], False))

    def testCancelEndsWhatDoesNotAnswer(self):
        engine = self.started(python=playing(self.workFolder, ANSWERS_ONCE + SILENT))
        engine.cancel()
        self.assertTrue(engine.isStopping)
        self.assertStopped(engine)

    def testApplicationQuitKillsIt(self):
        engine = self.started()
        slicer.app.aboutToQuit.emit() if not support.inSlicer() else engine.kill()
        self.assertEqual((self.left(), self.files()), ([], []))

    def testSceneCloseEndsIt(self):
        engine = self.started()
        slicer.mrmlScene.Clear(0)
        self.assertStopped(engine)

    def testCleanupLetsGoOfTheScene(self):
        engine = self.started()
        engine.cleanup()
        self.assertEqual(self.left(), [])
        engine.start()  # a stray call later
        slicer.mrmlScene.Clear(0)
        self.assertEqual(engine.state, "starting")  # nobody listens to the scene any more
        engine.kill()


class IdleTest(EngineTestCase):
    """A worker that nobody uses holds memory for nothing."""

    def testEndsAfterAWhileUnlessItIsNeeded(self):
        engine = self.started(idleTimeout=0.4)
        engine.isNeeded = lambda: True
        answers = []
        engine.request("self_test", {}, answers.append, answers.append)
        processUntil(lambda: answers)
        end = time.monotonic() + 1.5
        processUntil(lambda: time.monotonic() > end)
        engine.endIfIdle()
        self.assertEqual(engine.state, "ready")
        engine.isNeeded = lambda: False
        processUntil(lambda: engine.state == "off", 10)
        self.assertStopped(engine)

    def testStaysWhileARequestWaits(self):
        engine = self.started(python=playing(self.workFolder, ANSWERS_ONCE + SILENT), idleTimeout=0.4)
        engine.request("self_test", {}, None, lambda error: None)
        end = time.monotonic() + 1.5
        processUntil(lambda: time.monotonic() > end)
        engine.endIfIdle()
        self.assertEqual(engine.state, "running")


class FailToStartTest(EngineTestCase):
    def testNoSuchPython(self):
        error = self.startError(python="/no/such/python")
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "/no/such/python", "MedGen/WorkerPython")

    def testPythonWithoutPackages(self):
        error = self.startError(python=withoutPackages())
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "torch", withoutPackages(), "Install")

    def testPythonWithoutTorch(self):
        # Everything but torch: an import of it fails as it does where it is not installed.
        blocker = self.workFolder / "sitecustomize.py"
        blocker.write_text("import sys\nsys.modules['torch'] = None\n", encoding="utf-8")
        error = self.startError(
            python=script(self.workFolder, f'PYTHONPATH="{self.workFolder}:$PYTHONPATH" exec "{PYTHON}" "$@"')
        )
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "torch")

    def testEndsAtOnce(self):
        error = self.startError(python=script(self.workFolder, "echo the reason >&2", "exit 7"))
        self.assertSentence(error, "7")
        self.assertIn("the reason", error.detail)

    def testGarbage(self):
        error = self.startError(python=playing(self.workFolder, "print('Hello from a wrong program')\n" + SILENT))
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "an invalid message")
        self.assertIn("Hello", error.detail)

    def testBinaryGarbage(self):
        source = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 8 + b'\\n')\nsys.stdout.flush()\n" + SILENT
        self.assertIsInstance(self.startError(python=playing(self.workFolder, source)), WorkerError)

    def testNeverAnswers(self):
        error = self.startError(python=playing(self.workFolder, SILENT), startTimeout=0.5)
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "did not answer", "0.5 s")

    def testTemporaryFolderThatCannotBeWritten(self):
        blocked = self.workFolder / "a file"  # also holds for root, who may write everywhere else
        blocked.write_text("", encoding="utf-8")
        error = self.startError(temporaryRoot=str(blocked))
        self.assertIsInstance(error, InputError)
        self.assertSentence(error, "temporary folder", "a file")


class FailLaterTest(EngineTestCase):
    def error(self, engine, act, seconds: float = 10.0):
        errors = []
        engine.request("self_test", {}, lambda answer: errors.append(answer), errors.append)
        act()
        processUntil(lambda: errors, seconds)
        self.assertStopped(engine)
        return errors[0]

    def testKilled(self):
        engine = self.started()
        error = self.error(engine, lambda: os.kill(engine.info["pid"], signal.SIGKILL))
        self.assertIsInstance(error, WorkerError)
        self.assertSentence(error, "ended unexpectedly", "nothing was added")

    def testGarbageAfterTheStart(self):
        engine = self.started(python=playing(self.workFolder, ANSWERS_ONCE + "print('{not json')\n" + SILENT))
        self.assertIn("{not json", self.error(engine, lambda: None).detail)

    def testFallsSilent(self):
        engine = self.started(python=playing(self.workFolder, ANSWERS_ONCE + SILENT), silenceTimeout=0.5)
        self.assertSentence(self.error(engine, lambda: None), "not answered", "0.5 s")

    def testStopped(self):
        # A process that hangs as a whole sends no sign of life either.
        import psutil

        engine = self.started(silenceTimeout=2.5)
        error = self.error(engine, lambda: psutil.Process(engine.info["pid"]).suspend())
        self.assertSentence(error, "not answered", "2.5 s")

    def testBlockedEventLoopIsNoSilence(self):
        # As while Slicer loads a large study, or after a laptop has slept.
        slow = ANSWERS_ONCE.replace("request =", "time.sleep(2)\nrequest =")
        once = ANSWERS_ONCE.rpartition("sys.stdin.readline()")[0]
        engine = self.started(python=playing(self.workFolder, once + slow + SILENT), silenceTimeout=1.5)
        answers, errors = [], []
        engine.request("self_test", {}, answers.append, errors.append)
        time.sleep(3)
        processUntil(lambda: answers or errors, 10)
        self.assertEqual((len(answers), errors), (1, []))

    def testLogKeepsTheLastLines(self):
        source = "import sys\nfor number in range(2000): print('line', number, file=sys.stderr)\n"
        engine = self.engine(python=playing(self.workFolder, source))
        errors = []
        engine.start(None, errors.append)
        processUntil(lambda: errors)
        lines = engine.log.splitlines()
        self.assertLessEqual(len(lines), 500)
        self.assertIn("line 1999", lines)
        self.assertIn("line 1999", errors[0].detail)


if __name__ == "__main__":
    unittest.main()
