"""The section Models: published models are listed, shown with their license, installed, stopped.

The hub is a server on this machine (Testing/support/hubserver.py) and the model a small one of the published kinds with
random weights (Testing/support/hubfiles.py); worker, conversion and package are real.
"""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import slicer

import support
from support.panelcase import PanelCase

# isort: split
from MedGenLib import user_folders
from MedGenLib.io import user_config
from MedGenLib.packages.license import CONFIG_KEY
from MedGenSlicer.panel.dialogs import agreement

SECONDS = 180
NAME = "nv-generate-ct"
HELPERS = support.ROOT / "Testing" / "support"
PUBLISHED = 4
"""Models of NVIDIA that can be installed."""


def environment(**more):
    """In which Python finds the library and the helpers."""
    paths = os.pathsep.join([str(support.ROOT), str(HELPERS), *more.pop("paths", ())])
    return {**os.environ, "PYTHONPATH": paths, "no_proxy": "127.0.0.1,localhost", **more}


class ModelsCase(PanelCase):
    def setUp(self):
        super().setUp()
        self.openPage("modelsPage")
        self.settle()

    def names(self):
        table = self.ui.modelsTable
        return [table.item(row, 0).toolTip().partition(":")[0] for row in range(table.rowCount)]

    def isInstalled(self):
        """Whether the table shows the model as one that is there."""
        tip = self.ui.modelsTable.item(self.names().index(NAME), 0).toolTip()
        self.assertEqual("not installed" not in tip, NAME in [model.name for model in self.logic.models()])
        return "not installed" not in tip

    def select(self, name):
        self.ui.modelsTable.selectRow(self.names().index(name))


class ListTest(ModelsCase):
    def test_publishedModelsStandBelowTheInstalledOnes(self):
        count = len(self.logic.models())
        self.assertEqual(len(self.names()), count + PUBLISHED)
        self.assertEqual(self.names()[count], NAME)
        table = self.ui.modelsTable
        self.assertEqual(table.item(count, 1).text(), "NVIDIA-Open-Model")
        self.assertEqual(table.item(count, 2).text(), "(1094 MB)")
        self.assertIn("commercial use allowed", table.item(count, 1).toolTip())
        self.assertIn("no commercial use", table.item(count + 2, 1).toolTip())
        self.assertIn("not installed", table.item(count, 0).toolTip())

    def test_onlyWhatIsNotInstalledCanBeInstalled(self):
        self.select("ct-tissue")
        self.assertFalse(self.ui.installModelButton.enabled)
        self.select(NAME)
        self.assertTrue(self.ui.installModelButton.enabled)
        self.assertFalse(self.ui.removeModelButton.enabled)
        self.screenshot("models")


class InstallTest(ModelsCase):
    """The panel's hub is a server on this machine, and its published model is a small one."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hub = Path(tempfile.mkdtemp(prefix="medgen-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.hub, ignore_errors=True)
        python = cls.widget.logic.engine.workerPython()
        subprocess.run([python, HELPERS / "hubfiles.py", cls.hub], check=True, env=environment(), timeout=SECONDS)
        (cls.hub / "nvidia" / "NV-Generate-CT" / "LICENSE").write_text("Terms of NVIDIA", encoding="utf-8")
        startup = cls.hub / "startup"
        startup.mkdir()
        (startup / "sitecustomize.py").write_text("import hubfiles\nhubfiles.shrink()\n", encoding="utf-8")
        server = subprocess.Popen(
            [python, HELPERS / "hubserver.py", cls.hub],
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        cls.addClassCleanup(server.communicate)
        cls.address = server.stdout.readline().strip()

    def setUp(self):
        super().setUp()
        self.addCleanup(self.restore, self.logic.engine.variables)
        self.useHub(self.address)

    def useHub(self, address):
        self.logic.engine.kill()
        everything = environment(paths=[str(self.hub / "startup")], HF_ENDPOINT=address)
        names = ("PYTHONPATH", "no_proxy", "HF_ENDPOINT")
        self.logic.engine.variables = {name: everything[name] for name in names}

    def restore(self, variables):
        self.logic.engine.kill()
        self.logic.engine.variables = variables
        shutil.rmtree(user_folders.models_dir() / NAME, ignore_errors=True)
        self.panel.context.models.reload()
        self.panel.sections["models"].fill()
        self.ui.modelsLabel.text = ""

    def install(self, source=0):
        self.select(NAME)
        self.ui.installModelButton.menu().actions()[source].trigger()

    def waitForAnswer(self):
        support.processUntil(lambda: not self.isShown(self.ui.stopModelButton), SECONDS)
        self.settle()

    def waitForText(self, words):
        support.processUntil(lambda: words in self.ui.modelsLabel.text, SECONDS, self.ui.modelsLabel.text)

    def test_theLicenseIsShownAndTheModelInstalled(self):
        self.answers.answer = False
        self.install()
        self.assertTrue(self.isShown(self.ui.stopModelButton))
        self.assertFalse(self.isShown(self.ui.installModelButton))
        self.waitForText("license was not accepted")
        self.assertIn("Terms of NVIDIA", self.answers.asked[-1])
        self.assertFalse(self.isInstalled())
        self.answers.answer = True
        self.install()
        self.waitForText("was installed")
        self.waitForAnswer()
        self.assertTrue(self.isInstalled())
        self.assertTrue((user_folders.models_dir() / NAME / "models" / "flow.safetensors").is_file())
        self.assertIn(NAME, user_config.read_config()[CONFIG_KEY])
        self.select(NAME)
        self.assertFalse(self.ui.installModelButton.enabled)
        self.ui.removeModelButton.click()
        self.waitForText("was removed")
        asked = len(self.answers.asked)
        self.install()  # accepted before: no question
        self.waitForText("was installed")
        self.assertEqual(len(self.answers.asked), asked)

    def test_stopKeepsNothingHalf(self):
        (self.hub / "wait").touch()
        self.addCleanup((self.hub / "wait").unlink, missing_ok=True)
        self.install()
        self.waitForText("Downloading ")
        self.ui.stopModelButton.click()
        self.waitForText("cancelled")
        self.waitForAnswer()
        self.assertTrue(self.isShown(self.ui.installModelButton))
        self.assertEqual(self.logic.engine.state, "off")
        self.assertFalse(self.isInstalled())
        (self.hub / "wait").unlink()
        self.install()
        self.waitForText("was installed")

    def test_noServerThenAFolderThenAMirror(self):
        self.useHub("http://127.0.0.1:9")
        self.install()
        self.waitForText("http://127.0.0.1:9 cannot be reached")
        self.waitForAnswer()
        self.assertTrue(self.isShown(self.ui.installModelButton))
        self.answers.path = str(self.hub / "nvidia" / "NV-Generate-CT" / "models")
        self.install(source=1)
        self.waitForText("was installed")
        self.assertIn("nvidia-open-model-license", self.answers.asked[-1])
        self.select(NAME)
        self.ui.removeModelButton.click()
        self.waitForText("was removed")
        self.answers.path = self.address
        self.install(source=2)
        self.waitForText("was installed")

    def test_cancelledQuestionsDoNothing(self):
        self.answers.path = ""
        for source in (1, 2):
            self.install(source)
            self.assertFalse(self.isShown(self.ui.stopModelButton))
        self.assertEqual(self.logic.engine.state, "off")


class DialogTest(unittest.TestCase):
    def test_nobodyAgreesByPressingEnter(self):
        dialog = agreement("License of a model", "Terms\n" * 200)
        dialog.show()
        slicer.app.processEvents()
        default = [
            button.text for button in slicer.util.findChildren(dialog, className="QPushButton") if button.isDefault()
        ]
        self.assertEqual([text.replace("&", "") for text in default], ["Cancel"])
        dialog.close()


if __name__ == "__main__":
    unittest.main()
