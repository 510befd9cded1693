"""The section Reader study: prepare, read with pauses, score; nothing tells, everything comes back."""

import importlib
import itertools
import random
import threading
import types
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer

import support
from support.panelcase import PanelCase

support.useModuleFolder()

from support.nodes import volumeNode
from support.views import views

SECONDS = 180
SEED = 4


def module(name: str):
    """The module that the panel uses now: *Reload*, which another test presses, brings fresh ones."""
    return importlib.import_module(name)


def writeVolumes(folder: Path, count: int, seed: int) -> Path:
    """`count` volumes of the sample's head with noise of their own."""
    from MedGenLib.imaging.volume import Volume
    from MedGenLib.io.files import read_volume, write_volume

    folder.mkdir()
    head = read_volume(support.SAMPLES / "head_t1.nii.gz")
    array = head.array[::3, ::3, ::3].astype(np.float32)
    affine = head.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    random = np.random.default_rng(seed)
    for number in range(count):
        noisy = array + random.normal(0, array.std() / 8, array.shape)
        write_volume(Volume(noisy.clip(0).astype(np.float32), affine, "T1w"), folder / f"patient-{number}.nii.gz")
    return folder


class StudyCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.openPage("studyPage")
        self.form = self.panel.sections["study"].ui
        self.folder = self.temporaryFolder()
        for edit in (
            self.form.realFolderEdit,
            self.form.syntheticFolderEdit,
            self.form.studyTargetEdit,
            self.form.readStudyEdit,
            self.form.scoreStudyEdit,
            self.form.scoreKeyEdit,
        ):
            edit.currentPath = ""
        self.form.readerEdit.text = ""
        self.form.studyTabWidget.setCurrentIndex(0)
        self.makeNothingRandom()

    def makeNothingRandom(self):
        """Choice, order and times of a study are always the same, and so are the screenshots."""
        section, reading = module("MedGenSlicer.panel.section"), module("MedGenSlicer.panel.sections.study_read")
        ask = section.askWorker

        def askWithSeed(context, method, params, *others):
            seed = {"seed": SEED} if method == "reader_study/make" else {}
            ask(context, method, {**params, **seed}, *others)

        clock = types.SimpleNamespace(monotonic=itertools.count(0, 3.5).__next__)
        order = types.SimpleNamespace(Random=lambda text: random.Random(text.split()[-1]))  # of the reader alone
        for place, name, value in (
            (section, "askWorker", askWithSeed),
            (reading, "time", clock),
            (module("MedGenLib.reader_study.reading"), "random", order),
        ):
            patch = mock.patch.object(place, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def tearDown(self):
        self.panel.sections["study"].pause()
        super().tearDown()

    def make(self, items: str = "slices") -> Path:
        """Prepare a study of 2 + 2 volumes by clicks; its folder."""
        self.form.realFolderEdit.currentPath = str(writeVolumes(self.folder / "real", 2, seed=1))
        self.form.syntheticFolderEdit.currentPath = str(writeVolumes(self.folder / "synthetic", 2, seed=2))
        self.form.studyTargetEdit.currentPath = str(self.folder)
        self.choose(self.form.itemsComboBox, items)
        self.form.perVolumeSpinBox.setValue(2)
        self.assertTrue(self.form.makeStudyButton.enabled)
        self.form.makeStudyButton.click()
        self.assertFalse(self.form.makeStudyButton.enabled)
        support.processUntil(lambda: self.form.makeStudyButton.enabled, SECONDS)
        self.assertIn("ready to read", self.form.makeStudyLabel.text)
        return Path(self.form.readStudyEdit.currentPath)

    def startReading(self, reader: str = "R1"):
        self.form.studyTabWidget.setCurrentIndex(1)
        self.form.readerEdit.text = reader
        self.assertTrue(self.form.startReadingButton.enabled)
        self.form.startReadingButton.click()
        self.waitForImage()
        self.assertTrue(self.panel.sections["study"].read.isReading, self.form.readingLabel.text)

    def waitForImage(self):
        """Until the next image is shown, or the reading is over."""
        support.processUntil(lambda: not self.panel.sections["study"].read.isWaiting, SECONDS)

    def answer(self, synthetic: bool, confidence: int):
        (self.form.syntheticButton if synthetic else self.form.realButton).click()
        getattr(self.form, f"confidence{confidence}Button").click()
        self.waitForImage()

    def screenshotWith(self, name: str, edit):
        """A screenshot that shows no path of this computer."""
        path, edit.currentPath = edit.currentPath, "/data/reader_study"
        self.screenshot(name)
        edit.currentPath = path

    def shown(self):
        """The node that is read."""
        return next(
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node.GetAttribute("MedGen.Reading") == "1"
        )


class FormTest(StudyCase):
    def test_anErasedPathIsMissed(self):
        self.form.readerEdit.text = "R1"
        for edit, button in (
            (self.form.readStudyEdit, self.form.startReadingButton),
            (self.form.scoreStudyEdit, self.form.scoreButton),
        ):
            edit.currentPath = str(self.folder)
            self.assertTrue(button.enabled)
            edit.currentPath = ""
            self.assertFalse(button.enabled)

    def test_eachButtonWaitsForItsChoices(self):
        for button in (self.form.makeStudyButton, self.form.startReadingButton, self.form.scoreButton):
            self.assertFalse(button.enabled, button.objectName)
        self.form.readStudyEdit.currentPath = str(self.folder)
        self.assertFalse(self.form.startReadingButton.enabled)
        self.form.readerEdit.text = "R1"
        self.assertTrue(self.form.startReadingButton.enabled)
        self.choose(self.form.itemsComboBox, "volumes")
        self.assertFalse(self.form.perVolumeSpinBox.enabled)
        self.choose(self.form.itemsComboBox, "slices")

    def test_everyTabFits(self):
        for tab in range(3):
            self.form.studyTabWidget.setCurrentIndex(tab)
            self.assertLessEqual(slicer.modules.medgen.widgetRepresentation().minimumSizeHint.width(), 420)

    def test_whatIsNoStudyIsSaid(self):
        self.form.studyTabWidget.setCurrentIndex(1)
        self.form.readStudyEdit.currentPath = str(self.folder)
        self.form.readerEdit.text = "R1"
        self.form.startReadingButton.click()
        self.waitForImage()
        self.assertFalse(self.panel.sections["study"].read.isReading)
        self.assertTrue(self.isShown(self.form.startReadingButton))
        self.assertIn(str(self.folder), self.form.readingLabel.text)

    def test_emptyFolderIsSaid(self):
        for edit in (self.form.realFolderEdit, self.form.syntheticFolderEdit, self.form.studyTargetEdit):
            edit.currentPath = str(self.folder)
        self.form.makeStudyButton.click()
        support.processUntil(lambda: self.form.makeStudyButton.enabled, SECONDS)
        self.assertTrue(self.form.makeStudyLabel.text.endswith("."), self.form.makeStudyLabel.text)
        self.assertEqual(list(self.folder.iterdir()), [])


class ReadTest(StudyCase):
    def test_wholeStudy(self):
        """Prepare, read all, score."""
        scan = volumeNode(name="Patient")
        study = self.make()
        self.settle()
        before, layout = views(), slicer.app.layoutManager().layout
        self.startReading()
        total = self.form.readingBar.maximum
        self.assertEqual(total, 8)
        self.assertFalse(self.isShown(self.form.startReadingButton))
        self.assertFalse(self.form.confidence3Button.enabled)
        self.form.syntheticButton.click()
        self.assertTrue(self.form.confidence3Button.enabled)
        self.form.realButton.click()
        self.assertFalse(self.form.syntheticButton.checked)
        self.screenshotWith("reader-study", self.form.readStudyEdit)
        for number in range(1, total + 1):
            self.assertEqual(self.shown().GetName(), f"Image {number} of {total}")
            self.assertEqual(self.form.readingBar.value, number - 1)
            self.assertEqual(self.form.realButton.checked or self.form.syntheticButton.checked, number == 1)
            self.answer(number % 2 == 0, 1 + number % 5)
        self.assertFalse(self.panel.sections["study"].read.isReading)
        self.assertIn("All 8 images are read", self.form.readingLabel.text)
        self.assertEqual((views(), slicer.app.layoutManager().layout), (before, layout))
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [scan])

        self.form.studyTabWidget.setCurrentIndex(2)
        self.assertEqual(Path(self.form.scoreStudyEdit.currentPath), study)
        self.answers.path = str(self.folder)
        self.form.scoreButton.click()
        support.processUntil(lambda: self.form.scoreButton.enabled, SECONDS)
        table = self.form.scoreTable
        self.assertTrue(self.isShown(table), self.form.scoreLabel.text)
        figures = {table.item(row, 0).text().lower() for row in range(table.rowCount)}
        self.assertTrue(any("accuracy" in figure for figure in figures), figures)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLTableNode")), 1)
        self.assertTrue(Path(self.answers.opened[-1]).is_file())
        self.screenshotWith("reader-study-score", self.form.scoreStudyEdit)

    def test_nothingTells(self):
        study = self.make()
        self.startReading()
        node = self.shown()
        texts = [
            node.GetName(),
            node.GetDescription() or "",
            self.form.readingLabel.text,
            *map(node.GetAttribute, node.GetAttributeNames()),
            *(path.name for path in study.rglob("*")),
        ]
        for word in ("patient", "real", "synthetic", "key"):
            self.assertEqual([text for text in texts if word in text.lower()], [])
        self.assertFalse(node.GetStorageNode())

    def test_pauseAndGoOn(self):
        self.make()
        before = views()
        self.startReading()
        self.answer(True, 5)
        self.answer(False, 1)
        second = slicer.util.arrayFromVolume(self.shown()).copy()
        self.form.pauseButton.click()
        self.assertEqual(views(), before)
        self.assertIn("kept", self.form.readingLabel.text)
        self.startReading()
        self.assertEqual(self.form.readingBar.value, 2)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(self.shown()), second)
        self.form.pauseButton.click()
        self.startReading("R2")
        self.assertEqual(self.form.readingBar.value, 0)

    @support.slow
    def test_leavingTheModulePauses(self):
        self.make()
        before = views()
        self.startReading()
        self.widget.exit()
        self.addCleanup(self.widget.enter)
        self.assertFalse(self.panel.sections["study"].read.isReading)
        self.assertEqual(views(), before)

    def test_imagesAreReadInAThread(self):
        """Slicer does not wait for a slow disk, and what is clicked meanwhile is no answer."""
        self.make()
        threads = []
        item, main = module("MedGenLib.reader_study.reading").Item, threading.current_thread()
        check = item.check

        def slowly(image):
            threads.append(threading.current_thread())
            return check(image)

        with mock.patch.object(item, "check", slowly):
            self.startReading()
            self.answer(True, 5)
            self.form.realButton.click()
            self.form.confidence2Button.click()
            self.assertTrue(self.panel.sections["study"].read.isWaiting)
            self.form.syntheticButton.click()  # twice, before the next image is there
            self.assertFalse(self.form.syntheticButton.checked)
            self.assertFalse(self.form.confidence2Button.enabled)
            self.waitForImage()
        self.assertEqual(self.form.readingBar.value, 2)
        self.assertGreater(len(threads), 8)
        self.assertNotIn(main, threads)

    @support.slow
    def test_pausedBeforeTheImageIsThere(self):
        self.make()
        self.settle()
        before, nodes = views(), slicer.mrmlScene.GetNumberOfNodes()
        self.form.studyTabWidget.setCurrentIndex(1)
        self.form.readerEdit.text = "R1"
        self.form.startReadingButton.click()
        self.panel.sections["study"].pause()
        for _ in range(20):
            slicer.app.processEvents()
            support.idle(0.005)
        self.assertFalse(self.panel.sections["study"].read.isReading)
        self.assertEqual((views(), slicer.mrmlScene.GetNumberOfNodes()), (before, nodes))
        self.startReading()

    def test_anImageThatWasChangedIsSaid(self):
        study = self.make()
        before = views()
        self.startReading()
        next_ = self.panel.sections["study"].read._reading.items[1].path
        next_.write_bytes(next_.read_bytes()[:-4] + b"\0\0\0\0")
        self.answer(True, 3)
        self.assertFalse(self.panel.sections["study"].read.isReading)
        self.assertIn("was changed", self.form.readingLabel.text)
        self.assertIn(str(study), self.form.readingLabel.text)
        self.assertEqual(views(), before)

    @support.slow
    def test_closingTheScenePauses(self):
        self.make()
        self.startReading()
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertFalse(self.panel.sections["study"].read.isReading)

    @support.slow
    def test_volumes(self):
        self.make("volumes")
        self.startReading()
        self.assertEqual(self.form.readingBar.maximum, 4)
        self.assertGreater(min(slicer.util.arrayFromVolume(self.shown()).shape), 1)
        self.answer(True, 2)
        self.assertEqual(self.form.readingBar.value, 1)


if __name__ == "__main__":
    unittest.main()
