"""The first minute with MedGen as a script: each click of docs/tutorials/first-minute.md, in order.

The extension TutorialMaker makes slides of it (the comments are its commands); `panel/test_first_minute.py` runs it.
"""

import time

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class FirstMinuteTest(ScriptedLoadableModuleTest):
    """A synthetic CT from the sample mask, then one from a scan of your own.

    Attributes
    ----------
    clicks: what was pressed since the journey began, in the words of the button.
    """

    def setUp(self):
        self.clicks = []
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_firstMinute()

    def test_firstMinute(self):
        # TUTORIALMAKER BEGIN
        # TUTORIALMAKER INFO TITLE A synthetic CT in three clicks
        # TUTORIALMAKER INFO AUTHOR The MedGen authors
        # TUTORIALMAKER INFO DATE 01/11/2026
        # TUTORIALMAKER INFO DESC From sample data to a visible synthetic CT, and from your own MR of the head to a CT.
        # TUTORIALMAKER INFO DEPENDENCIES MedGen

        # 1: open the module
        self.click("MedGen", self.openModule)
        panel = slicer.util.getModuleWidget("MedGen").panel
        ui = panel.ui
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("MedGen asks for a mask and offers an example")

        # 2: the example
        self.click("Try on sample data", ui.sampleButton.click)
        self.waitUntil(lambda: ui.generateButton.enabled)
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("The example is selected; each segment has its tissue")

        # 3: run
        self.click("Generate", ui.generateButton.click)
        self.waitForResult()
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("The synthetic CT, with the mask as outlines")
        self.ended("sample")

        # The same with a scan of your own
        self.setUp()
        self.click("Load", self.loadOwnScan)
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("An MR of the head is loaded")
        self.click("MedGen", self.openModule)
        self.waitUntil(lambda: not panel.isBusy)
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("The scan is selected; the license is asked for once")
        self.click("I accept", ui.licenseCheckBox.click)
        self.waitUntil(lambda: ui.translateButton.enabled)
        self.click("Translate", ui.translateButton.click)
        self.waitForResult()
        # TUTORIALMAKER SCREENSHOT
        self.delayDisplay("The synthetic CT in place of the MR; Blend leads back to it")
        self.ended("own scan")
        # TUTORIALMAKER END

    def click(self, words, action):
        """Press a button and remember what it says."""
        self.clicks.append(words)
        action()
        slicer.app.processEvents()

    def openModule(self):
        slicer.util.selectModule("MedGen")

    def loadOwnScan(self):
        """The sample takes the place of your own scan, which the module DICOM loads."""
        from MedGenSlicer import samples

        samples.loadSample("MedGenHead")

    def waitUntil(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, slicer.util.getModuleWidget("MedGen").ui.checkLabel.text)
            slicer.app.processEvents()
            time.sleep(0.01)

    def waitForResult(self):
        logic = slicer.util.getModuleLogic("MedGen")
        self.waitUntil(lambda: logic.currentRun is not None and logic.currentRun.isDone, 600)
        self.assertIsNone(logic.currentRun.error)
        slicer.app.processEvents()

    def ended(self, journey):
        """For tests: a journey has come to its end."""
