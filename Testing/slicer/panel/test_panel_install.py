"""The readiness strip: what is missing, installing it, what can go wrong. No package is really installed."""

import unittest

import slicer

import support
from support.panelcase import PanelCase

# isort: split
from MedGenLib.requirements import installed_version
from MedGenSlicer.engine.dependencies import INSTALLED_SETTING, Dependencies
from MedGenSlicer.engine.installers import PythonProcess


class Computer:
    """A Python without some packages, and installers that work or fail as wanted."""

    def __init__(self, *missing, torch=True, exitCode=0):
        self.missing, self.hasTorchExtension, self.exitCode = set(missing), torch, exitCode
        self.pipCalls, self.torchCalls = [], 0

    def installedVersion(self, name):
        return None if name in self.missing else installed_version(name)

    def pip(self, arguments, onLog, onDone):
        self.pipCalls.append(arguments)
        onLog("Collecting something")
        if self.exitCode == 0:
            self.missing.clear()
        else:
            onLog("ERROR: Could not find a version: HTTPSConnectionPool: Max retries exceeded, name resolution failed")
        onDone(self.exitCode)

    def pipUninstall(self, names, onLog, onDone):
        self.missing.update(names)
        onDone(0)

    def torchLogic(self):
        return self if self.hasTorchExtension else None

    def installTorch(self, askConfirmation=True, torchVersionRequirement=""):
        self.torchCalls += 1
        self.missing.discard("torch")
        return "torch"


class InstallTest(PanelCase):
    def use(self, computer):
        """Give the panel that computer's packages."""
        before = self.logic.dependencies
        self.addCleanup(self.restore, before)
        support.rememberSetting(self, INSTALLED_SETTING)
        self.logic.engine.kill()
        self.logic.dependencies = Dependencies(
            self.logic.engine,
            installedVersion=computer.installedVersion,
            pipInstall=computer.pip,
            pipUninstall=computer.pipUninstall,
            torchLogic=computer.torchLogic,
        )
        self.panel.sections["readiness"].state = ""
        self.panel.sections["readiness"].refresh()
        self.panel.scheduleCheck()
        self.settle()

    def restore(self, dependencies):
        self.logic.dependencies = dependencies
        self.panel.sections["readiness"].state = ""
        self.panel.sections["readiness"].refresh()

    def test_missingPackagesAreOneButton(self):
        support.headVolume(48)
        self.settle()
        self.use(Computer("torch", "jsonschema", "scikit-image"))
        self.assertTrue(self.isShown(self.ui.installButton))
        self.assertFalse(self.ui.translateButton.enabled)
        self.assertIn("Install", self.ui.translateButton.toolTip)
        self.assertEqual(self.logic.engine.state, "off")
        self.screenshot("install-needed")

    def test_isAskedOnceWithTheSizes(self):
        computer = Computer("torch", "jsonschema")
        self.use(computer)
        self.answers.answer = False
        self.ui.installButton.click()
        for words in ("torch", "jsonschema", "download", "free"):
            self.assertIn(words, self.answers.asked[0])
        self.assertEqual((computer.torchCalls, computer.pipCalls), (0, []))
        self.assertEqual(self.panel.sections["readiness"].state, "missing")

    def test_installsAndProvesItself(self):
        computer = Computer("torch", "jsonschema")
        self.use(computer)
        self.ui.installButton.click()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", 120)
        self.assertEqual(computer.torchCalls, 1)
        self.assertFalse({"torch", "numpy", "SimpleITK", "pydicom", "requests"} & set(computer.pipCalls[0]))
        self.assertIn("Ready: ", self.ui.readinessLabel.text)
        self.assertFalse(self.isShown(self.ui.installButton))

    def test_noNetworkIsASentence(self):
        self.use(Computer("jsonschema", exitCode=1))
        self.ui.installButton.click()
        self.assertIn("network", self.ui.readinessLabel.text.lower())
        self.assertNotIn("Traceback", self.ui.readinessLabel.text)
        self.assertIn("Max retries", self.ui.readinessLabel.toolTip)
        self.assertTrue(self.isShown(self.ui.installButton))

    def test_missingExtensionIsOffered(self):
        self.use(Computer("torch", torch=False))
        self.ui.installButton.click()
        self.assertEqual(self.panel.sections["readiness"].state, "extension")
        self.assertIn("PyTorch", self.ui.readinessLabel.text)
        self.answers.answer = False
        self.ui.installButton.click()
        self.assertIn("extension", self.answers.asked[-1])

    def test_moreIsAskedForWhenItIsFirstUsed(self):
        computer = Computer("dicom-anonymizer", "matplotlib")
        self.use(computer)
        self.assertNotEqual(self.panel.sections["readiness"].state, "missing")
        done = []
        self.answers.answer = False
        self.panel.context.withPackages("reports", lambda: done.append("refused"))
        self.assertRegex(self.answers.asked[-1], "^For reports, matplotlib will be installed")
        self.assertEqual((done, computer.pipCalls), ([], []))
        self.answers.answer = True
        self.panel.context.withPackages("reports", lambda: done.append("agreed"))
        support.processUntil(lambda: done, 120)
        self.assertEqual(done, ["agreed"])
        self.assertEqual([words[0] for words in computer.pipCalls], ["matplotlib>=3.8"])
        self.panel.context.withPackages("reports", lambda: done.append("there"))
        self.assertEqual(done, ["agreed", "there"])

    def test_installationCanBeCancelled(self):
        computer = Computer("jsonschema")
        self.use(computer)
        words = ["-c", "import time; print('Downloading', flush=True); time.sleep(100)"]
        self.logic.dependencies.pipInstall = lambda arguments, onLog, onDone: PythonProcess(
            words, onLog, onDone
        ).start()
        self.ui.installButton.click()
        support.processUntil(lambda: "Downloading" in self.ui.readinessLabel.text, 30)
        self.assertEqual(self.ui.installButton.text, "Cancel")
        self.ui.installButton.click()
        support.processUntil(lambda: self.panel.sections["readiness"].state != "installing", 30)
        self.assertIn("was cancelled", self.ui.readinessLabel.text)
        self.assertEqual(self.ui.installButton.text, "Try again")
        self.logic.dependencies.pipInstall = computer.pip
        self.ui.installButton.click()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", 120)

    def test_failureOfMoreLeavesThePanelAsItWas(self):
        self.use(Computer("matplotlib", exitCode=1))
        done = []
        self.panel.context.withPackages("reports", lambda: done.append("wrong"))
        self.assertIn("network", self.answers.shown[-1][0])
        self.assertEqual(done, [])
        self.assertNotEqual(self.panel.sections["readiness"].state, "missing")

    def test_removal(self):
        computer = Computer("jsonschema")
        self.use(computer)
        self.action("remove").trigger()
        self.assertIn("no packages", self.answers.shown[-1][0])
        self.ui.installButton.click()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", 120)
        self.action("remove").trigger()
        self.assertIn("jsonschema will be removed", self.answers.asked[-1])
        self.assertEqual(self.answers.shown[-1][0], "Removed from Slicer: jsonschema.")
        self.assertEqual(self.panel.sections["readiness"].state, "missing")

    def test_folderOfWheels(self):
        computer = Computer("jsonschema")
        self.use(computer)
        folder = self.temporaryFolder()
        (folder / "jsonschema-4.20-py3-none-any.whl").write_bytes(b"")
        self.answers.path = str(folder)
        self.action("folder").trigger()
        self.assertIn("--no-index", computer.pipCalls[0])
        self.assertIn(str(folder), computer.pipCalls[0])

    def test_helpAndDiagnostics(self):
        self.action("help").trigger()
        self.assertIn("proxy", self.answers.shown[-1][0])
        self.action("diagnostics").trigger()
        self.assertIn("Python", self.answers.copied[-1])

    def test_wrongPythonIsSaidAndCanBeTriedAgain(self):
        self.logic.engine.kill()
        self.logic.engine.python = "/no/such/python"
        self.addCleanup(setattr, self.logic.engine, "python", None)
        self.panel.sections["readiness"].state = ""
        self.panel.sections["readiness"].refresh()
        self.panel.sections["readiness"].startWorker()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "failed", 30)
        self.assertIn("/no/such/python", self.ui.readinessLabel.text)
        self.assertEqual(self.ui.installButton.text, "Try again")
        self.logic.engine.python = None
        self.ui.installButton.click()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", 120)

    def action(self, word):
        return next(action for action in self.ui.readinessMenuButton.menu().actions() if word in action.text.lower())


class ScreenshotTest(PanelCase):
    """The states that no run is needed for; test_panel_runs.py draws the others."""

    def test_empty(self):
        self.logic.engine.kill()
        self.panel.sections["readiness"]._device = ""
        self.panel.sections["readiness"].refresh()
        self.screenshot("empty")

    def test_readyToTranslate(self):
        support.headVolume(None)
        self.settle()
        support.processUntil(lambda: self.panel.sections["readiness"].state == "ready", 120)
        self.settle()
        self.screenshot("ready-translate")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0].GetName(), "Head T1")


if __name__ == "__main__":
    unittest.main()
