"""Installing what MedGen needs: a real pip into a folder of its own, real wheels, real failures."""

import os
import re
import subprocess
import sys
import sysconfig
import time
import types
import unittest
import venv
import zipfile
from pathlib import Path
from unittest import mock

import support
from support import SlicerTestCase, processUntil, worstGap
from support.processes import WorkerTestCase, script, withoutPackages

support.useModuleFolder()

from importlib import metadata

from MedGenSlicer.engine import dependencies as module
from MedGenSlicer.engine import installers
from MedGenSlicer.engine.dependencies import PROTECTED, Dependencies, Outcome
from MedGenSlicer.engine.explanations import explain
from MedGenSlicer.engine.torch_process import callSupported

USES = {
    "an engine on another computer": ["websockets"],
    "cohorts": ["pyyaml"],
    "de-identified DICOM files": ["dicom-anonymizer"],
    "models of MONAI": ["einops", "monai"],
    "published models": ["huggingface_hub"],
    "reports": ["matplotlib"],
}


def wheel(folder: Path, name: str, version: str = "1.0", requires=()) -> Path:
    """A tiny package that pip installs like any other."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {r}\n" for r in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name.replace('-', '_')}.py", f"version = '{version}'\n")
        archive.writestr(f"{info}/METADATA", "".join(lines))
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class PipTestCase(SlicerTestCase):
    """`target` stands for Slicer's site-packages; pip is the real one, started as Slicer starts it."""

    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.target, self.wheels = self.folder / "site-packages", self.folder / "wheels"
        for folder in (self.target, self.wheels):
            folder.mkdir()
        self.requirements = self.folder / "requirements.txt"
        self.requirements.write_text("# what is needed\nmedgen-one>=1.0\nmedgen-two\nnumpy>=1.26\n", encoding="utf-8")
        self.handed = []
        support.rememberSetting(self, module.INSTALLED_SETTING)

    def installed(self, name: str):
        """Version in the target; torch and the protected ones are "there"."""
        if name == "torch":
            return "2.13.0"
        if name in PROTECTED:
            return {"numpy": "2.4.6"}.get(name, "1.0")
        for found in metadata.distributions(path=[str(self.target)]):
            if module.plainName(found.metadata["Name"]) == name:
                return found.version
        return None

    def pip(self, arguments, onLog, onDone, environment=None):
        self.handed.append(list(arguments))
        command = [
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "install",
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--timeout",
            "2",
            "--target",
            str(self.target),
            *arguments,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}
        )
        for line in (done.stdout + done.stderr).splitlines():
            onLog(line)
        onDone(done.returncode)

    def dependencies(self, **keywords) -> Dependencies:
        keywords = {
            "requirementsFile": self.requirements,
            "pipInstall": self.pip,
            "pipUninstall": lambda names, onLog, onDone: self.fail("nothing is removed here"),
            "torchLogic": lambda: None,
            "installedVersion": self.installed,
            "folder": str(self.target),
            **keywords,
        }
        return Dependencies(**keywords)

    def install(self, dependencies, **keywords) -> Outcome:
        outcomes, self.log = [], []
        dependencies.install(self.log.append, outcomes.append, **keywords)
        processUntil(lambda: outcomes)
        self.assertEqual(len(outcomes), 1)
        self.assertFalse(dependencies.isInstalling)
        sentence = outcomes[0].sentence
        self.assertTrue(sentence.endswith("."), sentence)
        self.assertNotIn("Traceback", sentence)
        return outcomes[0]

    def assertFails(self, *words, dependencies=None, **keywords) -> Outcome:
        outcome = self.install(dependencies or self.dependencies(), **keywords)
        self.assertFalse(outcome.success)
        for word in words:
            self.assertIn(word, outcome.sentence)
        return outcome


class PlanTest(PipTestCase):
    def testMissing(self):
        dependencies = self.dependencies()
        self.assertEqual([str(need) for need in dependencies.missing()], ["medgen-one>=1.0", "medgen-two"])
        self.assertEqual([need.name for need in dependencies.requirements()], ["torch", "medgen-one", "medgen-two"])

    def testTooOldIsMissing(self):
        with mock.patch.object(self, "installed", {"medgen-one": "0.9", "medgen-two": "3", "torch": "2.0.1"}.get):
            names = [need.name for need in self.dependencies().missing()]
        self.assertEqual(names, ["torch", "medgen-one"])

    def testSentence(self):
        plan = self.dependencies(installedVersion=lambda name: None).plan()
        self.assertEqual(plan.packages[0].name, "torch")
        self.assertGreater(plan.downloadMiB, 150)
        for words in ("torch", "medgen-one", "to download", "on disk", "free"):
            self.assertIn(words, plan.sentence)
        self.assertTrue(plan.fits)

    def testNothingMissing(self):
        plan = self.dependencies(installedVersion=lambda name: "99").plan()
        self.assertEqual((plan.packages, plan.downloadMiB), ([], 0))
        self.assertIn("Everything", plan.sentence)

    def testDiskTooSmall(self):
        dependencies = self.dependencies(installedVersion=lambda name: None)
        with mock.patch.object(module, "freeMiB", lambda folder: 100.0):
            outcome = self.install(dependencies)
        self.assertFalse(outcome.success)
        self.assertIn("does not fit", outcome.sentence)
        self.assertEqual(self.handed, [])

    def testOwnRequirements(self):
        # The file of the extension itself; the tests' Python has everything.
        dependencies = Dependencies()
        names = [need.name for need in dependencies.requirements()]
        self.assertEqual(names, ["torch", "jsonschema", "psutil", "safetensors", "scikit-image"])
        found = {use: [need.name for need in dependencies.requirements(use)] for use in USES}
        self.assertEqual(found, USES)

    def testWhatAnotherUseNeeds(self):
        self.requirements.write_text("medgen-one\nmedgen-two>=2  # for reports\n", encoding="utf-8")
        dependencies = self.dependencies(installedVersion=lambda name: None)
        self.assertEqual([need.name for need in dependencies.missing()], ["torch", "medgen-one"])
        self.assertEqual([str(need) for need in dependencies.missing("reports")], ["medgen-two>=2"])
        self.assertRegex(dependencies.plan("reports").sentence, "^For reports, medgen-two will be installed")


class InstallTest(PipTestCase):
    def setUp(self):
        super().setUp()
        wheel(self.wheels, "medgen-one", "1.5", ["medgen-three"])
        wheel(self.wheels, "medgen-two", "2.0")
        wheel(self.wheels, "medgen-three", "0.1")

    def testFromAFolderOfWheels(self):
        outcome = self.install(self.dependencies(), wheelFolder=self.wheels)
        self.assertTrue(outcome.success, outcome)
        self.assertEqual([self.installed(f"medgen-{n}") for n in ("one", "two", "three")], ["1.5", "2.0", "0.1"])
        self.assertIn("--no-index", self.handed[0])
        self.assertTrue(any("Successfully installed" in line for line in self.log))
        self.assertEqual(self.dependencies().missing(), [])

    def testProtectedPackagesAreNeverHandedOver(self):
        self.requirements.write_text("medgen-one\n" + "\n".join(f"{name}>=0" for name in PROTECTED), encoding="utf-8")
        self.install(self.dependencies(), wheelFolder=self.wheels)
        names = {module.plainName(re.split(r"[<>=]", word)[0]) for word in self.handed[0]}
        self.assertFalse(names & {module.plainName(name) for name in PROTECTED}, self.handed)

    def testProtectedPackagesAreHeldAtTheirVersion(self):
        # A package that wants another numpy: pip must refuse, not replace Slicer's.
        wheel(self.wheels, "medgen-two", "3.0", ["numpy==9.9"])
        wheel(self.wheels, "numpy", "9.9")
        wheel(self.wheels, "numpy", "2.4.6")
        self.requirements.write_text("medgen-two>=3.0\n", encoding="utf-8")
        self.assertFails("conflict", wheelFolder=self.wheels)
        self.assertEqual(list(self.target.glob("numpy*")), [])

    @support.slow
    def testConstraintsFileIsRemoved(self):
        self.install(self.dependencies(), wheelFolder=self.wheels)
        path = self.handed[0][self.handed[0].index("-c") + 1]
        self.assertFalse(os.path.exists(path))

    def testOnlyWhatTheUseNeeds(self):
        self.requirements.write_text("medgen-one\nmedgen-two  # for reports\n", encoding="utf-8")
        outcome = self.install(self.dependencies(), wheelFolder=self.wheels, use="reports")
        self.assertTrue(outcome.success, outcome)
        self.assertEqual([self.installed(f"medgen-{n}") for n in ("one", "two")], [None, "2.0"])

    def testSecondInstallationHasNothingToDo(self):
        self.install(self.dependencies(), wheelFolder=self.wheels)
        self.handed.clear()
        self.assertTrue(self.install(self.dependencies()).success)
        self.assertEqual(self.handed, [])

    def testTwoAtOnce(self):
        pending = []
        dependencies = self.dependencies(pipInstall=lambda arguments, onLog, onDone: pending.append(onDone))
        first, second = [], []
        dependencies.install(None, first.append)
        dependencies.install(None, second.append)
        self.assertEqual((first, second[0].success), ([], False))
        self.assertIn("already", second[0].sentence)
        pending[0](1)
        self.assertFalse(first[0].success)


class RemovalTest(PipTestCase):
    """What was installed can be removed again, and nothing else."""

    def setUp(self):
        super().setUp()
        for name in ("medgen-one", "medgen-two"):
            wheel(self.wheels, name, "1.5")
        venv.create(self.folder / "slicer", with_pip=False)  # pip removes nothing outside of an environment
        paths = sysconfig.get_paths("venv", {"base": str(self.folder / "slicer")})
        self.python, self.target = Path(paths["scripts"]) / "python", Path(paths["purelib"])

    def uninstall(self, names, onLog, onDone):
        self.handed.append(list(names))
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "uninstall", "--yes", *names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        for line in (done.stdout + done.stderr).splitlines():
            onLog(line)
        onDone(done.returncode)

    def remove(self, dependencies) -> Outcome:
        outcomes = []
        dependencies.remove(None, outcomes.append)
        processUntil(lambda: outcomes)
        self.assertFalse(dependencies.isInstalling)
        return outcomes[0]

    def testRemovesWhatWasInstalled(self):
        self.pip(["--no-index", "--find-links", str(self.wheels), "medgen-two"], lambda line: None, lambda code: None)
        dependencies = self.dependencies(pipUninstall=self.uninstall)
        self.assertEqual(dependencies.removable(), [])
        self.assertTrue(self.install(dependencies, wheelFolder=self.wheels).success)
        self.assertEqual(dependencies.removable(), ["medgen-one"])  # the other one was there before
        outcome = self.remove(dependencies)
        self.assertEqual((outcome.success, outcome.sentence), (True, "Removed from Slicer: medgen-one."))
        self.assertEqual([self.installed(f"medgen-{n}") for n in ("one", "two")], [None, "1.5"])
        self.assertEqual(dependencies.removable(), [])

    def testFailureIsSaidAndCanBeTriedAgain(self):
        dependencies = self.dependencies(pipUninstall=lambda names, onLog, onDone: onDone(1))
        self.install(dependencies, wheelFolder=self.wheels)
        outcome = self.remove(dependencies)
        self.assertFalse(outcome.success)
        self.assertIn("restart Slicer", outcome.sentence)
        self.assertEqual(dependencies.removable(), ["medgen-one", "medgen-two"])


class FailureTest(PipTestCase):
    """Sentences made from what the real pip writes."""

    def testFolderWithoutWheels(self):
        self.assertFails("holds no wheels", wheelFolder=self.wheels)
        self.assertFails("holds no wheels", wheelFolder=self.folder / "nowhere")
        self.assertEqual(self.handed, [])

    def testWheelIsMissing(self):
        wheel(self.wheels, "medgen-one", "1.5")
        self.assertFails("lacks a wheel of 'medgen-two'", wheelFolder=self.wheels)

    def testNoNetwork(self):
        # Nobody listens on this port, as without a network.
        def pip(arguments, onLog, onDone):
            self.pip(["--index-url", "http://127.0.0.1:9/simple", *arguments], onLog, onDone)

        self.assertFails("cannot be reached", "HTTPS_PROXY", dependencies=self.dependencies(pipInstall=pip))

    def testNoSuchHost(self):
        def pip(arguments, onLog, onDone):
            self.pip(["--index-url", "https://no-such-host.invalid/simple", *arguments], onLog, onDone)

        self.assertFails("cannot be reached", dependencies=self.dependencies(pipInstall=pip))

    def testNoPermission(self):
        for name in ("one", "two"):
            wheel(self.wheels, f"medgen-{name}", "1.5")
        self.target.rmdir()
        self.target.symlink_to("/sys")  # not even root may write there
        with mock.patch.object(module, "freeMiB", lambda folder: 1000.0):  # of /sys there is none
            self.assertFails("cannot be written", "site-packages", wheelFolder=self.wheels)

    def testDiskFull(self):
        if sys.platform == "win32":
            self.skipTest("the limit is POSIX's")
        import resource

        for name in ("one", "two"):
            path = wheel(self.wheels, f"medgen-{name}", "1.5")
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(f"medgen_{name}_data.bin", os.urandom(200_000))

        def pip(arguments, onLog, onDone):
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # no file can grow, as on a full disk
            try:
                self.pip(arguments, onLog, onDone)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)

        self.assertFails("is full", wheelFolder=self.wheels, dependencies=self.dependencies(pipInstall=pip))

    def testInstallerRaises(self):
        def pip(arguments, onLog, onDone):
            raise subprocess.CalledProcessError(1, "pip", output="ERROR: [Errno 13] Permission denied: '/opt/Slicer'")

        self.assertFails("cannot be written", dependencies=self.dependencies(pipInstall=pip))

    def testSuccessThatInstalledNothing(self):
        outcome = self.assertFails(
            "restart Slicer", dependencies=self.dependencies(pipInstall=lambda arguments, onLog, onDone: onDone(0))
        )
        self.assertTrue(outcome.needsRestart)

    def testUnknownFailureStillIsASentence(self):
        self.assertIn("see the log", explain("something else", "/site-packages"))

    def testRealMessages(self):
        for message, words in (
            ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "certificate"),
            ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407 Proxy'))", "proxy"),
            (
                "PermissionError: [WinError 32] The process cannot access the file because it is being used by "
                "another process",
                "restart Slicer",
            ),
            ("PermissionError: [WinError 5] Access is denied: 'C:\\\\Program Files'", "cannot be written"),
            ("Read timed out. (read timeout=15)", "cannot be reached"),
        ):
            self.assertIn(words, explain(message, "/site-packages"))


class TorchTest(PipTestCase):
    """PyTorch comes from its extension, whose installTorch has changed between releases."""

    def setUp(self):
        super().setUp()
        self.requirements.write_text("", encoding="utf-8")
        self.version = None

    def installed(self, name: str):
        return self.version if name == "torch" else super().installed(name)

    def testWithoutTheExtension(self):
        outcome = self.assertFails("Extensions Manager", "PyTorch")
        self.assertTrue(outcome.needsExtension)
        self.assertEqual(self.handed, [])

    def testSignatures(self):
        test = self

        class Newest:
            def installTorch(
                self,
                askConfirmation=False,
                forceComputationBackend=None,
                torchVersionRequirement=None,
                torchvisionVersionRequirement=None,
            ):
                test.version = "2.13.0"
                test.seen = (askConfirmation, torchVersionRequirement)
                return object()

        class Older:
            def installTorch(self, askConfirmation=False):
                test.version = "2.13.0"
                test.seen = (askConfirmation,)
                return object()

        class Renamed:
            def installTorch(self, confirm=True, **others):
                test.version = "2.13.0"
                test.seen = others
                return object()

        class Bare:
            def installTorch(self):
                test.version = "2.13.0"
                test.seen = ()

        for logic, seen in (
            (Newest, (False, ">=2.6")),
            (Older, (False,)),
            (Bare, ()),
            (Renamed, {"askConfirmation": False, "torchVersionRequirement": ">=2.6"}),
        ):
            with self.subTest(logic.__name__):
                self.version = None
                outcome = self.install(self.dependencies(torchLogic=logic))
                self.assertTrue(outcome.success, outcome)
                self.assertEqual(self.seen, seen)
        self.assertEqual(self.handed, [])  # never by pip

    def testAborted(self):
        logic = types.SimpleNamespace(installTorch=lambda askConfirmation=False: None)
        self.assertFails("was not installed", dependencies=self.dependencies(torchLogic=lambda: logic))

    def testFailureInTheExtension(self):
        def installTorch(askConfirmation=False):
            print("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device")
            raise subprocess.CalledProcessError(1, ["light_the_torch"])

        logic = types.SimpleNamespace(installTorch=installTorch)
        outcome = self.assertFails("is full", dependencies=self.dependencies(torchLogic=lambda: logic))
        self.assertIn("Errno 28", outcome.detail)

    def testOfflineReachesTheExtensionsPip(self):
        wheel(self.wheels, "torch", "2.13.0")
        seen = {}

        def installTorch():
            seen.update({name: os.environ.get(name) for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS")})
            self.version = "2.13.0"

        logic = types.SimpleNamespace(installTorch=installTorch)
        self.assertTrue(self.install(self.dependencies(torchLogic=lambda: logic), wheelFolder=self.wheels).success)
        self.assertEqual(seen, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)})
        self.assertNotIn("PIP_NO_INDEX", os.environ)

    def testInstallingTheExtension(self):
        calls = []

        class Manager:
            interactive = True
            answer = True

            def updateExtensionsMetadataFromServer(self, force, wait):
                calls.append(("update", force, wait))

            def installExtensionFromServer(self, name, restart):
                calls.append((name, restart, self.interactive))
                if self.answer is None:
                    raise RuntimeError("the server is away")
                return self.answer

        manager = Manager()
        with mock.patch.object(installers, "extensionsManager", lambda: manager):
            outcome = self.dependencies().installExtension()
            self.assertTrue(outcome.success and outcome.needsRestart)
            self.assertEqual(calls, [("update", True, True), ("PyTorch", False, False)])
            self.assertIs(manager.interactive, True)  # it asks its questions again
            manager.answer = False
            self.assertIn("network", self.dependencies().installExtension().sentence)
            manager.answer = None
            with self.assertRaises(RuntimeError):
                self.dependencies().installExtension()
            self.assertIs(manager.interactive, True)


#: As the extension of Slicer: imports of the application, Qt for its panel, pip and PyTorch for its logic.
PYTORCH_UTILS = """
import subprocess
import sys
from pathlib import Path

import qt
import slicer.util

FOLDER = Path(__file__).parent


class PyTorchUtilsWidget:
    button = qt.QPushButton


class PyTorchUtilsLogic:
    def installTorch(self, askConfirmation=True, forceComputationBackend=None, torchVersionRequirement=None):
        assert not askConfirmation and slicer.util.toBool("1")
        arguments = ["install", "--target", str(FOLDER / "site-packages"), "torch" + torchVersionRequirement]
        if (FOLDER / "slow").exists():
            arguments = ["-c", "import time; print('Downloading torch', flush=True); time.sleep(100)"]
        process = subprocess.Popen([sys.executable, *(["-m", "pip"] if "--target" in arguments else []), *arguments])
        (FOLDER / "pid").write_text(str(process.pid))
        if (FOLDER / "full").exists():
            print("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device")
            process.kill()
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, arguments)
        sys.path.insert(0, str(FOLDER / "site-packages"))
        import torch

        print("imported torch", torch.version)
        return torch
"""


class TorchProcessTest(PipTestCase):
    """The extension's installTorch in a process: the window goes on, and PyTorch is not loaded into it."""

    def setUp(self):
        super().setUp()
        self.requirements.write_text("", encoding="utf-8")
        (self.folder / "PyTorchUtils.py").write_text(PYTORCH_UTILS, encoding="utf-8")
        wheel(self.wheels, "torch", "2.13.0")
        for change in (
            mock.patch.object(sys, "path", [str(self.folder), *sys.path]),
            mock.patch.dict(sys.modules, {name: loaded for name, loaded in sys.modules.items() if name != "torch"}),
        ):
            change.start()
            self.addCleanup(change.stop)

    def installed(self, name: str):
        found = [found.version for found in metadata.distributions(path=[str(self.target)]) if found.name == name]
        return next(iter(found), None) if name == "torch" else super().installed(name)

    def extension(self) -> Dependencies:
        return self.dependencies(torchLogic=installers.pyTorchLogic)

    def testTheWindowGoesOn(self):
        before = set(sys.modules)
        with worstGap() as gap:
            start = time.monotonic()
            outcome = self.install(self.extension(), wheelFolder=self.wheels)
            seconds = time.monotonic() - start
        self.assertTrue(outcome.success, (outcome, self.log))
        self.assertEqual(self.installed("torch"), "2.13.0")
        self.assertIn("imported torch 2.13.0", self.log)
        self.assertFalse(any("holds up" in line for line in self.log), self.log)
        self.assertLess(gap.milliseconds, 500 * seconds)  # of a second or more
        self.assertNotIn("torch", set(sys.modules) - before)

    def testFailureIsExplained(self):
        (self.folder / "full").touch()
        outcome = self.assertFails("is full", dependencies=self.extension(), wheelFolder=self.wheels)
        self.assertIn("Errno 28", outcome.detail)

    def testCancel(self):
        (self.folder / "slow").touch()
        dependencies, outcomes, log = self.extension(), [], []
        dependencies.install(log.append, outcomes.append)
        processUntil(lambda: any("Downloading torch" in line for line in log))
        pid = int((self.folder / "pid").read_text())
        dependencies.cancel()
        processUntil(lambda: outcomes, 20)
        self.assertIn("was cancelled", outcomes[0].sentence)
        self.assertFalse(outcomes[0].success or dependencies.isInstalling)
        processUntil(lambda: not os.path.exists(f"/proc/{pid}") or "(zombie)" in status(pid), 10)
        self.assertIsNone(self.installed("torch"))
        (self.folder / "slow").unlink()
        self.assertTrue(self.install(dependencies, wheelFolder=self.wheels).success)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


class SlicerPipTest(PipTestCase):
    """What installs in Slicer: pip in a process of its own."""

    def testPipLeavesTheWindowAlone(self):
        wheel(self.wheels, "medgen-two", "2.0")
        found = ["--target", str(self.target), "--no-index", "--find-links", str(self.wheels)]
        log, codes = [], []
        with worstGap() as gap:
            start = time.monotonic()
            installers.pipInstall(["medgen-two", "--upgrade", *found], log.append, codes.append)
            self.assertEqual(codes, [])
            processUntil(lambda: codes)
            seconds = time.monotonic() - start
        self.assertEqual(codes, [0])
        self.assertTrue(any("Successfully installed medgen-two" in line for line in log), log)
        self.assertEqual(self.installed("medgen-two"), "2.0")
        self.assertLess(gap.milliseconds, 500 * seconds)  # of a second or more

    def testPipThatFails(self):
        log, codes = [], []
        installers.pipInstall(["--no-index", "no-such-thing"], log.append, codes.append)
        processUntil(lambda: codes)
        self.assertEqual(codes, [1])
        self.assertIn("'no-such-thing'", explain("\n".join(log), "/site-packages"))

    def testPythonThatIsNotThere(self):
        log, codes = [], []
        with mock.patch.object(installers, "slicerPython", lambda: "/no/such/python"):
            installers.pipInstall(["medgen-two"], log.append, codes.append)
            processUntil(lambda: codes)
        self.assertEqual(codes, [1])
        self.assertIn("install Slicer again", explain("\n".join(log), "/site-packages"))

    def testSupportedKeywords(self):
        self.assertEqual(callSupported(lambda a, b=0: (a, b), 1, b=2, c=3), (1, 2))
        self.assertEqual(callSupported(lambda **others: others, c=3), {"c": 3})


class SelfTest(WorkerTestCase):
    """The proof in the worker, and the report."""

    def testNothingIsMissing(self):
        self.assertEqual(Dependencies().missing(), [])

    def testFirstImageNeedsNoMore(self):
        others = ["monai", "einops", "huggingface_hub", "matplotlib", "dicomanonymizer", "highdicom", "platformdirs"]
        blocker = self.workFolder / "sitecustomize.py"
        blocker.write_text(f"import sys\nsys.modules.update(dict.fromkeys({others}))\n", encoding="utf-8")
        python = script(self.workFolder, f'PYTHONPATH="{self.workFolder}:$PYTHONPATH" exec "{sys.executable}" "$@"')
        node = self.logic(python=python).generate(
            support.hippocampusSegmentation(), model="mr-hippocampus", preset="draft", seed=1
        )
        self.assertIsNotNone(node.GetImageData())

    def outcome(self, dependencies) -> Outcome:
        outcomes = []
        dependencies.selfTest(outcomes.append)
        processUntil(lambda: outcomes)
        return outcomes[0]

    def testPasses(self):
        outcome = self.outcome(Dependencies(self.engine()))
        self.assertTrue(outcome.success, outcome)
        self.assertTrue(outcome.sentence)

    def testFailsWithASentence(self):
        outcome = self.outcome(Dependencies(self.engine(python=withoutPackages())))
        self.assertFalse(outcome.success)
        self.assertIn("torch", outcome.sentence)

    def testDiagnostics(self):
        engine = self.engine()
        engine.start()
        processUntil(lambda: engine.state == "ready")
        text = Dependencies(engine).diagnostics()
        for words in ("Slicer 5.", "Python 3.", "torch>=2.6", "numpy: ", "worker: ready", "extension PyTorch"):
            self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
