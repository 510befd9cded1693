"""What the tests of the panel share: the real panel on an empty scene, with somebody who answers its questions."""

import os
from pathlib import Path

import numpy as np
import slicer

import support

support.useModuleFolder()

from MedGenSlicer.panel.dialogs import Dialogs

WIDTH = 420
"""Of the module panel in a default Slicer, in pixels."""


class Answers(Dialogs):
    """Answers every question of the panel and remembers it."""

    def __init__(self):
        self.answer = True
        self.path = ""
        self.asked, self.copied, self.shown, self.opened = [], [], [], []

    def confirm(self, question, title):
        self.asked.append(question)
        return self.answer

    def agree(self, title, text):
        self.asked.append(text)
        return self.answer

    def text(self, title, question):
        self.asked.append(question)
        return self.path

    def choose(self, title, question, answers):
        self.asked.append(question)
        return answers.index(self.path) if self.path in answers else -1

    def folder(self, title):
        self.asked.append(title)
        return self.path

    def file(self, title, pattern):
        self.asked.append(title)
        return self.path

    def newFile(self, title, name, pattern):
        self.asked.append(name)
        return self.path

    def show(self, text, title, detail=""):
        self.shown.append((text, detail))

    def copy(self, text):
        self.copied.append(text)

    def open(self, folder):
        self.opened.append(folder)


class PanelCase(support.SlicerTestCase):
    """An empty scene, the module open, no license accepted, no fault that was shown instead of raised."""

    @classmethod
    def setUpClass(cls):
        support.requireWorker()
        cls.widget = support.moduleWidget()

    def setUp(self):
        super().setUp()
        configuration = Path(os.environ["MEDGEN_HOME"]) / "config.json"
        configuration.unlink(missing_ok=True)
        self.widget.enter()
        self.panel, self.ui, self.logic = self.widget.panel, self.widget.ui, self.widget.logic
        self.answers = self.panel.context.dialogs = Answers()
        self.panel.context.unexpected.clear()
        self.panel.sections["run"].showStatus("")
        self.settle()

    def tearDown(self):
        if self.logic.isRunning:
            self.logic.cancel()
        self.settle()
        self.assertEqual(self.panel.context.unexpected, [])
        self.panel.sections["failure"].hide()
        super().tearDown()

    @property
    def parameters(self):
        return self.panel.context.parameters

    def settle(self):
        """Until the panel has looked at everything that changed."""
        support.processUntil(lambda: not self.panel.isBusy, 10)

    def screenshot(self, name):
        """Draw the whole panel as it is in a module panel of usual width."""
        host = slicer.modules.medgen.widgetRepresentation()
        host.resize(WIDTH, 100)
        host.show()  # only a visible widget counts which of its sections are open
        for _ in range(5):
            slicer.app.processEvents()
        return support.screenshot(host, name, WIDTH)

    def choose(self, combo, data):
        """Select the item with that data, as a user would."""
        index = combo.findData(data)
        self.assertGreaterEqual(index, 0, f"{combo.objectName} has no {data}")
        combo.setCurrentIndex(index)
        self.settle()

    def openPage(self, name):
        """Open a page of a folded section, until the test ends."""
        section = (
            self.ui.editSection
            if name in ("editPage", "lesionPage", "enhancePage", "breathePage")
            else self.ui.moreSection
        )
        self.panel.context.pages.open(getattr(self.ui, name))
        self.addCleanup(setattr, section, "collapsed", True)

    def acceptLicense(self):
        self.assertTrue(self.isShown(self.ui.licenseCheckBox))
        self.ui.licenseCheckBox.click()
        self.settle()

    def isShown(self, widget):
        """Whether a widget is visible once its panel is."""
        host = slicer.modules.medgen.widgetRepresentation()
        return widget.isVisibleTo(host)


def ctVolume(size=32):
    """A scalar volume with the values of a CT: tissues of a mask, with noise, in HU."""
    mask = support.ctMaskNode(size)
    labels = slicer.util.arrayFromVolume(mask)
    values = np.array([-1000, -95, 40, 400, -830])[labels]
    values = values + np.random.default_rng(0).normal(0, 15, values.shape)
    node = slicer.util.addVolumeFromArray(values.astype(np.int16), support.matrixOf(mask), "Abdomen CT")
    table = mask.GetDisplayNode().GetColorNode()
    slicer.mrmlScene.RemoveNode(mask)
    slicer.mrmlScene.RemoveNode(table)
    return node
