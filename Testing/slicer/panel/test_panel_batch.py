"""The page Batch: a folder to a table of cases, by the real command in a real process."""

import json
import os
from pathlib import Path

import numpy as np
import slicer

import support
from support.panelcase import PanelCase
from support.processes import children

support.useModuleFolder()

SECONDS = 180
NAME, STATUS, TIME, WHY = range(4)
LEFT_HANDED = np.array([[-1.6, -1.2, 0, 12], [-1.2, 1.6, 0, -30], [0, 0, 3, 7], [0, 0, 0, 1]])


def writeMasks(folder: Path, *names: str) -> Path:
    """Small oblique masks of fat around soft tissue, each with other voxels."""
    from MedGenLib.imaging.volume import LabelMap
    from MedGenLib.io.files import write_volume

    folder.mkdir()
    for number, name in enumerate(names):
        labels = np.ones((16, 16, 12), np.uint8)
        labels[4:12, 4 : 9 + number % 4, number % 3 :] = 2
        write_volume(LabelMap(labels, LEFT_HANDED), folder / name)
    return folder


def contents(folder: Path) -> list:
    return [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())]


class BatchTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.choosesQuick()
        self.before = {child.pid for child in children()}
        self.openPage("batchPage")
        self.form = self.panel.sections["batch"].form.ui
        self.masks = self.temporaryFolder() / "masks"

    def tearDown(self):
        if self.cohort is not None:
            self.cohort.cancel()
            self.waitForEnd()
        self.form.batchFolderEdit.currentPath = self.form.batchOutputEdit.currentPath = ""
        super().tearDown()

    @property
    def cohort(self):
        return self.logic.currentCohort

    @property
    def output(self) -> Path:
        return Path(self.form.batchOutputEdit.currentPath)

    def choosesQuick(self):
        self.parameters.task, self.parameters.preset, self.parameters.device = "generate", "draft", "cpu"
        self.settle()

    def give(self, *names: str):
        self.form.batchFolderEdit.currentPath = str(writeMasks(self.masks, *names))
        self.assertEqual(self.output, self.masks.with_name("masks-generate"))

    def press(self):
        self.assertTrue(self.form.batchButton.enabled)
        self.form.batchButton.click()
        self.assertEqual(self.form.batchButton.text, "Cancel")

    def waitForEnd(self):
        support.processUntil(lambda: self.cohort.isDone, SECONDS)

    def named(self, status: str) -> list[str]:
        return [name for name, case in self.cohort.cases.items() if case.status == status]

    def column(self, column: int) -> list[str]:
        return [self.form.batchTable.item(row, column).text() for row in range(self.form.batchTable.rowCount)]

    def picture(self):
        """A screenshot without paths and measured times of this computer."""
        paths = self.masks, self.output
        self.form.batchFolderEdit.currentPath = "/data/masks"
        self.form.batchOutputEdit.currentPath = "/data/masks-generate"
        for row in range(2):
            self.form.batchTable.item(row, TIME).setText("4.2")
        self.screenshot("batch")  # the whole panel; a visible one draws its section, too
        support.screenshot(self.ui.moreSection, "batch", self.ui.moreSection.width)
        self.form.batchFolderEdit.currentPath, self.form.batchOutputEdit.currentPath = map(str, paths)

    def test_aFolderBecomesImages(self):
        """Run, a bad file among the others, open, report; Run again does nothing."""
        self.give("a.nii.gz", "b.nrrd")
        (self.masks / "bad.mha").write_bytes(b"no image")
        before = contents(self.masks)
        self.press()
        self.waitForEnd()
        self.assertEqual(self.column(NAME), ["a", "b", "bad"])
        self.assertEqual(self.column(STATUS), ["done", "done", "failed"])
        self.assertGreater(float(self.column(TIME)[0]), 0)
        sentence = self.cohort.cases["bad"].sentence
        self.assertEqual(self.column(WHY), ["", "", sentence[sentence.index("bad.mha") :]])
        self.assertEqual(self.form.batchTable.item(2, WHY).toolTip(), sentence)
        self.assertEqual(self.form.batchLabel.text, "2 of 3 done, 1 failed.")
        self.assertEqual(contents(self.masks), before)

        self.form.batchTable.selectRow(2)
        self.assertEqual(self.form.batchLabel.text, sentence)
        self.assertFalse(self.form.batchOpenButton.enabled)
        self.form.batchTable.selectRow(1)
        self.form.batchOpenButton.click()
        support.processUntil(lambda: "In the scene" in self.form.batchLabel.text, SECONDS)
        (node,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        shown = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetBackgroundLayer().GetVolumeNode()
        self.assertEqual(shown, node)
        facts = [node.GetAttribute(f"MedGen.{name}") for name in ("Input", "Preset", "Modality", "Unit", "Task")]
        self.assertEqual(facts, ["b.nrrd", "draft", "CT", "HU", "generate"])
        self.picture()
        mask = slicer.util.loadVolume(str(self.masks / "b.nrrd"), {"labelmap": True})
        np.testing.assert_allclose(support.matrixOf(node), support.matrixOf(mask), atol=1e-5)
        same = slicer.util.loadVolume(str(self.output / "cases" / "b" / "image.nii.gz"))
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVolume, (node, same)))
        self.form.batchReportButton.click()
        self.assertEqual(self.answers.opened, [str(self.output / "report.html")])

        made = contents(self.output / "cases" / "a")
        self.press()
        self.waitForEnd()
        self.assertEqual(self.column(STATUS), ["done before", "done before", "failed"])
        self.assertEqual(contents(self.output / "cases" / "a"), made)

    def test_aStopKeepsWhatIsDone(self):
        """A closed scene, the end of Slicer and Cancel leave no process and no half of a case."""
        self.give(*[f"{number:02}.nii.gz" for number in range(16)])
        if hasattr(os, "sched_setaffinity"):  # one worker, whatever the computer: the cases do not end together
            self.addCleanup(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for end, isDue in (
            (lambda: slicer.mrmlScene.Clear(0), lambda: self.named("running")),
            (lambda: self.cohort.kill(), lambda: self.named("running")),
            (self.form.batchButton.click, lambda: self.named("done")),
        ):
            self.choosesQuick()
            self.press()
            support.processUntil(isDue, SECONDS)
            end()
            self.waitForEnd()
            self.assertIn("what is done is kept", self.form.batchLabel.text)
            support.processUntil(lambda: {child.pid for child in children()} <= self.before, SECONDS)
            done = self.named("done")
            self.assertEqual(sorted(path.name for path in (self.output / "cases").iterdir()), done)
            self.assertEqual(self.column(STATUS), ["done" if name in done else "waiting" for name in self.column(NAME)])
        self.assertIn(len(done), range(1, 16))

    def test_theSettingsOfThePanelCount(self):
        """Also what segments become whose names say nothing, by their numbers; what cannot run is said."""
        self.give("a.nii.gz")
        self.parameters.generateInput = support.ctMaskNode(24, ("Segment_1", "liver", "bone", "Segment_4"))
        self.parameters.samples, self.parameters.seed, self.parameters.seedLocked = 3, 5, True
        self.settle()
        self.choose(self.ui.labelTable.cellWidget(0, 1), "bone")
        self.press()
        support.processUntil(lambda: self.cohort.cases, SECONDS)
        self.cohort.cancel()
        self.waitForEnd()
        manifest = json.loads((self.output / "manifest.json").read_text(encoding="utf-8"))
        self.assertEqual([case["id"] for case in manifest["cases"]], ["a_1", "a_2", "a_3"])
        mapping = manifest["parameters"]["mapping"]
        self.assertEqual([mapping.get(name) for name in ("1", "2", "liver")], ["bone", None, "soft tissue"])

        other = self.temporaryFolder()
        (other / "cohort.json").write_text(json.dumps({"cohort": "another"}))
        for place, words in ((other, "the cohort 'another'"), (self.masks / "in", "among the files")):
            self.form.batchOutputEdit.currentPath = str(place)
            self.press()
            self.waitForEnd()
            self.assertIn(words, self.form.batchLabel.text)
        self.assertFalse((self.masks / "in").exists())
        self.choose(self.form.batchTaskComboBox, "translate")
        self.form.batchButton.click()
        self.assertIn("accept it in the panel", self.form.batchLabel.text)
        self.assertEqual(self.form.batchButton.text, "Run")
