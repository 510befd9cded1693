"""Models on another computer: `medgen serve` in a process of its own, chosen in the readiness strip."""

import sys
import unittest
from importlib.util import find_spec

import numpy as np
import slicer

import support
from support.nodes import syntheticCT
from support.painter import Painter
from support.panelcase import Answers, PanelCase

# isort: split
from MedGenLib.worker.remote.access import create_token
from MedGenLib.worker.remote.certificate import recall
from MedGenSlicer.engine.dependencies import Dependencies
from MedGenSlicer.engine.engine import ADDRESS_SETTING

sys.path.append(str(support.ROOT / "Testing" / "support"))

SECONDS = 180


class Replies(Answers):
    """Chooses a computer, and gives an address and a token."""

    def __init__(self, computer, address="", token=""):
        super().__init__()
        self.path, self.address, self.token = computer, address, token

    def text(self, title, question):
        return self.token if "token" in question else self.address


@unittest.skipUnless(find_spec("websockets") and find_spec("cryptography"), "needs medgen[serve]")
class OtherComputerTest(PanelCase):
    def setUp(self):
        super().setUp()
        support.rememberSetting(self, ADDRESS_SETTING)
        self.addCleanup(self.logic.engine.kill)

    def select(self, *replies):
        self.panel.context.dialogs = self.answers = Replies(*replies)
        menu = self.ui.readinessMenuButton.menu()
        next(action for action in menu.actions() if "another computer" in action.text).trigger()
        self.settle()

    def waitReady(self):
        readiness = self.panel.sections["readiness"]
        support.processUntil(lambda: readiness.state in ("ready", "failed"), SECONDS)
        self.assertEqual(readiness.state, "ready", self.ui.readinessLabel.text)

    def generated(self):
        run = self.logic.generate(self.mask, model="mr-hippocampus", seed=3, preset="draft", wait=False)
        support.processUntil(lambda: run.isDone, SECONDS)
        return run

    def test_aRunAndLiveEditingOnTheOtherComputer(self):
        from engines import served

        token = create_token("radiology")
        with served(self.temporaryFolder(), "--secure", token=token) as engine:
            self.select("Another computer", engine.address, token)
            self.waitReady()
            self.assertIn(f", at {engine.address}", self.ui.readinessLabel.text)
            self.assertEqual(recall(engine.address)["token"], token)
            self.mask = support.hippocampusSegmentation()
            there = self.generated()
            self.assertIsNone(there.error)
            self.assertEqual(engine.metric('medgen_runs_total{method="generate",outcome="done"}'), 1)
            self.edit()
            self.assertGreaterEqual(engine.metric('medgen_runs_total{method="edit",outcome="done"}'), 1)
            self.cancelled(engine)
        lost = self.generated()
        self.assertIn("No engine answers at", str(lost.error))
        self.select("This computer")
        self.waitReady()
        self.assertNotIn("wss://", self.ui.readinessLabel.text)
        here = self.generated()
        self.assertIsNone(here.error)
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVolume, (there.node, here.node)))

    def edit(self):
        volume, segmentation = syntheticCT()
        edit = self.logic.liveEdit(volume, segmentation)
        support.processUntil(lambda: edit.state != "opening", SECONDS)
        before = slicer.util.arrayFromVolume(volume).copy()
        Painter(segmentation, volume).paint("bone", [n // 2 for n in volume.GetImageData().GetDimensions()], 3)
        edit.wait(SECONDS)
        self.assertEqual(len(edit.seconds), 1, edit.sentence)
        self.assertTrue((slicer.util.arrayFromVolume(volume) != before).any())
        edit.stop()

    def cancelled(self, engine):
        """Slicer ends its side at once; the other computer stops the run, and has no file of it left."""
        run = self.logic.generate(self.mask, model="mr-hippocampus", steps=1000, wait=False)
        support.processUntil(lambda: engine.metric("medgen_running") == 1, SECONDS)
        run.cancel()
        support.processUntil(lambda: engine.metric("medgen_running") == 0 and engine.files == [], SECONDS)
        self.assertEqual(run.state, "cancelled")

    def test_onlyWhatTheConnectionNeedsIsInstalled(self):
        before = self.logic.dependencies
        self.addCleanup(setattr, self.logic, "dependencies", before)
        self.logic.engine.kill()
        self.logic.dependencies = Dependencies(self.logic.engine, installedVersion=lambda name: None)
        self.select("Another computer", "wss://workstation", "")
        self.assertEqual(self.panel.sections["readiness"].state, "missing")
        self.answers.answer = False
        self.ui.installButton.click()
        self.assertIn("websockets will be installed", self.answers.asked[-1])
        self.logic.engine.address = ""
        self.panel.sections["readiness"].refresh()

    def test_anAddressThatIsNoneIsRefused(self):
        self.select("Another computer", "ftp://workstation", "")
        self.assertIn("is no address of an engine", self.answers.shown[0][0])
        self.assertEqual(self.logic.engine.address, "")


if __name__ == "__main__":
    unittest.main()
