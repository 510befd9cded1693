"""The questions of the panel, in testing mode and as a user is asked them."""

import unittest
from unittest import mock

import qt

import support

if support.inSlicer():
    raise unittest.SkipTest("dialogs would wait for a user")

support.useModuleFolder()

import bridge
from MedGenSlicer.panel.dialogs import Dialogs

QUESTIONS = {
    "confirm": ("Overwrite?", "Overwrite volume"),
    "text": ("Add a model", "Web address:"),
    "folder": ("Folder of wheels",),
    "file": ("Model package", "Zip files (*.zip)"),
    "newFile": ("Save metrics", "table.csv", "CSV (*.csv)"),
    "agree": ("License", "Terms"),
}


class DialogsTest(support.SlicerTestCase):
    def asked(self, answers: dict) -> dict:
        """What each question returns where dialogs are answered like this."""
        bridge.dialogs.clear()
        with mock.patch.dict(bridge.answers, answers, clear=True):
            return {name: getattr(Dialogs(), name)(*arguments) for name, arguments in QUESTIONS.items()}

    def test_testingModeAnswersSafelyAndShowsNothing(self):
        self.assertEqual(
            self.asked({}), {"confirm": False, "text": "", "folder": "", "file": "", "newFile": "", "agree": False}
        )
        self.assertEqual(bridge.dialogs, [])

    def test_aUserIsAsked(self):
        answers = {
            "QMessageBox": qt.QMessageBox.Ok,
            "ctkMessageBox": qt.QMessageBox.Ok,
            "QInputDialog.getText": "typed",
            "QFileDialog.getExistingDirectory": "/folder",
            "QFileDialog.getOpenFileName": "/file.zip",
            "QFileDialog.getSaveFileName": "/table.csv",
            "QDialog": qt.QDialog.Accepted,
        }
        with bridge.withoutTestingMode():
            found = self.asked(answers)
        self.assertEqual(
            found,
            {
                "confirm": True,
                "text": "typed",
                "folder": "/folder",
                "file": "/file.zip",
                "newFile": "/table.csv",
                "agree": True,
            },
        )
        self.assertEqual(len(bridge.dialogs), len(QUESTIONS))

    def test_aCancelIsANo(self):
        answers = {
            "QMessageBox": qt.QMessageBox.Cancel,
            "ctkMessageBox": qt.QMessageBox.Cancel,
            "QInputDialog.getText": "",
            "QFileDialog.getExistingDirectory": "",
            "QFileDialog.getOpenFileName": "",
            "QFileDialog.getSaveFileName": "",
            "QDialog": qt.QDialog.Rejected,
        }
        with bridge.withoutTestingMode():
            found = self.asked(answers)
        self.assertEqual(found, {"confirm": False, "text": "", "folder": "", "file": "", "newFile": "", "agree": False})

    def test_theLicenseIsNotKept(self):
        seen = []

        def answer(dialog):
            seen.append(dialog)
            return qt.QDialog.Accepted

        with bridge.withoutTestingMode(), mock.patch.dict(bridge.answers, {"QDialog": answer}):
            Dialogs().agree("License", "Terms")
        gone = []
        seen[0].connect("destroyed()", lambda: gone.append(True))
        qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
        self.assertEqual(gone, [True])


if __name__ == "__main__":
    unittest.main()
