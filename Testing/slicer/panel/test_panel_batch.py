"""The page Batch: a folder to a table of cases, by the real command in a real process."""

import json
import unittest
from pathlib import Path

import numpy as np
import slicer

import support
from support.panelcase import PanelCase
from support.processes import children

support.useModuleFolder()
SECONDS = 180
NAME, STATUS, TIME, WHY = range(4)
OBLIQUE = np.array([[0.8, -0.6, 0, 12], [0.6, 0.8, 0, -30], [0, 0, 1, 7], [0, 0, 0, 1]]) @ np.diag([2, 2, 3, 1])


def writeMasks(folder: Path, *names: str) -> Path:
    """Small oblique masks of fat around soft tissue, each with other voxels."""
    from MedGenLib.imaging.volume import LabelMap
    from MedGenLib.io.files import write_volume

    folder.mkdir()
    for number, name in enumerate(names):
        labels = np.ones((16, 16, 12), np.uint8)
        labels[4:12, 4 : 9 + number] = 2
        write_volume(LabelMap(labels, OBLIQUE), folder / name)
    return folder


def contents(folder: Path) -> dict:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


class BatchTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.parameters.task = "generate"
        self.parameters.preset = "draft"
        self.parameters.device = "cpu"
        self.settle()
        self.before = {child.pid for child in children()}
        self.openPage("batchPage")
        self.form = self.panel.sections["batch"].ui
        self.masks = writeMasks(self.temporaryFolder() / "masks", "a.nii.gz", "b.nrrd")
        self.form.batchOutputEdit.currentPath = ""
        self.form.batchFolderEdit.currentPath = str(self.masks)

    def tearDown(self):
        if self.cohort is not None:
            self.cohort.cancel()
            self.waitForEnd()
        self.form.batchFolderEdit.currentPath = ""
        super().tearDown()

    @property
    def cohort(self):
        return self.panel.sections["batch"].run

    @property
    def output(self) -> Path:
        return Path(self.form.batchOutputEdit.currentPath)

    def press(self):
        self.assertTrue(self.form.batchButton.enabled)
        self.form.batchButton.click()

    def left(self) -> list:
        """Processes that this test started and that still run."""
        return [child for child in children() if child.pid not in self.before]

    def waitForEnd(self):
        support.processUntil(lambda: self.cohort.isDone, SECONDS)

    def cell(self, row: int, column: int) -> str:
        return self.form.batchTable.item(row, column).text()

    def column(self, column: int) -> list[str]:
        return [self.cell(row, column) for row in range(self.form.batchTable.rowCount)]

    def picture(self):
        """A screenshot without paths and measured times of this computer."""
        output, table = self.form.batchOutputEdit, self.form.batchTable
        paths = [(edit, edit.currentPath) for edit in (self.form.batchFolderEdit, output)]
        self.form.batchFolderEdit.currentPath = "/data/masks"
        output.currentPath = "/data/masks-generate"
        for row in range(2):
            table.item(row, TIME).setText("4.2")
        self.screenshot("batch")
        for edit, path in paths:
            edit.currentPath = path

    def test_aFolderBecomesImages(self):
        """Run, a bad file among the others, again, open, report."""
        (self.masks / "bad.mha").write_bytes(b"no image")
        before = contents(self.masks)
        self.assertEqual(self.output, self.masks.with_name("masks-generate"))
        self.press()
        self.assertEqual(self.form.batchButton.text, "Cancel")
        self.waitForEnd()
        self.assertEqual(self.column(NAME), ["a", "b", "bad"])
        self.assertEqual(self.column(STATUS), ["done", "done", "failed"])
        self.assertEqual(self.column(WHY)[:2], ["", ""])
        sentence = self.cohort.cases["bad"].sentence
        self.assertTrue(self.cell(2, WHY).startswith("bad.mha "), self.cell(2, WHY))
        self.assertEqual(self.form.batchTable.item(2, WHY).toolTip(), sentence)
        self.assertIn(self.cell(2, WHY), sentence)
        self.assertGreater(float(self.cell(0, TIME)), 0)
        self.assertIn("2 of 3 done, 1 failed", self.form.batchLabel.text)
        self.assertEqual(contents(self.masks), before)
        made = (self.output / "cases" / "a" / "image.nii.gz").stat().st_mtime_ns

        self.form.batchTable.selectRow(2)
        self.assertFalse(self.form.batchOpenButton.enabled)
        self.form.batchTable.selectRow(1)
        self.form.batchOpenButton.click()
        volumes = lambda: slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")  # noqa: E731
        support.processUntil(lambda: volumes(), SECONDS)
        (node,) = volumes()
        np.testing.assert_allclose(support.matrixOf(node), OBLIQUE, atol=1e-5)
        self.assertEqual(node.GetImageData().GetDimensions(), (16, 16, 12))
        facts = [node.GetAttribute(f"MedGen.{name}") for name in ("Input", "Preset", "Modality", "Unit", "Task")]
        self.assertEqual(facts, ["b.nrrd", "draft", "CT", "HU", "generate"])
        self.assertEqual(
            slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetBackgroundLayer().GetVolumeNode(), node
        )
        self.picture()
        self.form.batchReportButton.click()
        self.assertEqual(self.answers.opened, [str(self.output / "report.html")])

        self.press()
        self.waitForEnd()
        self.assertEqual(self.column(STATUS), ["done before", "done before", "failed"])
        self.assertEqual((self.output / "cases" / "a" / "image.nii.gz").stat().st_mtime_ns, made)

    def test_aStopKeepsWhatIsDone(self):
        """Cancel, a closed scene and the end of Slicer leave no process and no half of a case."""
        writeMasks(self.masks / "more", *[f"{number:02}.nii.gz" for number in range(16)])
        self.form.batchFolderEdit.currentPath = str(self.masks / "more")
        isBegun = lambda: "running" in [case.status for case in self.cohort.cases.values()]  # noqa: E731
        for end, isDue in (
            (lambda: slicer.mrmlScene.Clear(0), isBegun),
            (lambda: self.cohort.kill(), isBegun),
            (self.form.batchButton.click, lambda: self.cohort.counts[0] > 0),
        ):
            self.parameters.device, self.parameters.preset = "cpu", "best"
            self.press()
            support.processUntil(isDue, SECONDS)
            end()
            self.waitForEnd()
            self.assertIn("what is done is kept", self.form.batchLabel.text)
            support.processUntil(lambda: not self.left(), SECONDS)
            done = [name for name, case in self.cohort.cases.items() if case.status == "done"]
            self.assertEqual(sorted(path.name for path in (self.output / "cases").iterdir()), done)
            self.assertEqual(self.column(STATUS), ["done" if name in done else "waiting" for name in self.column(NAME)])
        self.assertIn(len(done), range(1, 16))

    def test_whatCannotRunIsSaid(self):
        other = self.temporaryFolder()
        (other / "cohort.json").write_text(json.dumps({"cohort": "another"}))
        for place, words in ((other, "the cohort 'another'"), (self.masks / "in", "among the files")):
            self.form.batchOutputEdit.currentPath = str(place)
            self.press()
            self.waitForEnd()
            self.assertIn(words, self.form.batchLabel.text)
            self.assertEqual(self.form.batchButton.text, "Run")
        self.assertFalse((self.masks / "in").exists())
        self.form.batchFolderEdit.currentPath = ""
        self.assertFalse(self.form.batchButton.enabled)


if __name__ == "__main__":
    unittest.main()
