"""Opening the module loads nothing heavy: seen in a process of its own. Its time is in the benchmarks."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

import support

HEAVY = ("torch", "monai", "jsonschema", "platformdirs", "psutil", "skimage", "SimpleITK", "safetensors")
LARGEST_FILE = 2**20

PROGRAM = """
import json, os, sys
import support
import slicer
opened, started, watching = [], [], [False]
def hook(event, arguments):
    if not watching[0]:
        return
    if event == "open" and isinstance(arguments[0], str) and os.path.isfile(arguments[0]):
        opened.append((arguments[0], os.path.getsize(arguments[0])))
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "socket.connect"):
        started.append(event)
sys.addaudithook(hook)
watching[0] = True
widget = support.moduleWidget()
watching[0] = False
print("REPORT" + json.dumps({
    "modules": sorted(sys.modules), "opened": opened, "started": started,
    "worker": widget.logic.engine.state, "errors": [str(error) for error in support.slotErrors()],
    "unexpected": widget.panel.context.unexpected,
    "about": {"contributors": slicer.modules.medgen.contributors, "help": slicer.modules.medgen.helpText,
        "acknowledgement": slicer.modules.medgen.acknowledgementText}}), flush=True)
os._exit(0)
"""


START = """
import json, os, sys
import support
before = set(sys.modules)
support.bridge.loadModule(support.modulePath())
print("REPORT" + json.dumps(sorted(set(sys.modules) - before)), flush=True)
os._exit(0)
"""


@unittest.skipIf(support.inSlicer(), "starts another process that boots the bridge")
class StartTest(unittest.TestCase):
    """Slicer loads MedGen.py at each of its starts, whether the module is opened or not."""

    def test_importsNextToNothing(self):
        process = subprocess.run(
            [sys.executable, "-c", START], cwd=support.FOLDER, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(process.returncode, 0, process.stderr)
        modules = json.loads(process.stdout.partition("REPORT")[2])
        self.assertEqual(
            [name for name in modules if name.split(".")[0] not in sys.stdlib_module_names],
            ["MedGen", "MedGenSlicer", "MedGenSlicer.paths"],
        )


@unittest.skipIf(support.inSlicer(), "starts another process that boots the bridge")
class OpenTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=support.FOLDER, capture_output=True, text=True, timeout=120
        )
        lines = [line for line in process.stdout.splitlines() if line.startswith("REPORT")]
        assert lines, process.stderr
        cls.report = json.loads(lines[0][len("REPORT") :])

    def test_importsNothingHeavy(self):
        self.assertEqual(sorted(set(HEAVY) & set(self.report["modules"])), [])

    def test_startsNoProcessAndReachesNoNetwork(self):
        self.assertEqual(self.report["started"], [])
        self.assertEqual(self.report["worker"], "off")

    def test_readsNoLargeFile(self):
        self.assertGreater(len(self.report["opened"]), 0)
        self.assertEqual([path for path, size in self.report["opened"] if size > LARGEST_FILE], [])

    def test_readsOneFormOnly(self):
        """That of the reader study comes when its section is opened."""
        forms = [Path(path).name for path, _size in self.report["opened"] if path.endswith(".ui")]
        self.assertEqual(set(forms), {"MedGen.ui"})
        self.assertNotIn("MedGenSlicer.results.study_views", self.report["modules"])

    def test_raisesNothing(self):
        self.assertEqual(self.report["errors"] + self.report["unexpected"], [])

    def test_slicersHelpNamesAuthorsAndDocumentation(self):
        about = json.loads((support.ROOT / "Resources" / "extension.json").read_text(encoding="utf-8"))
        shown = self.report["about"]
        self.assertEqual(shown["contributors"], about["contributors"])
        self.assertIn(f'<a href="{about["homepage"]}#documentation">', shown["help"])
        self.assertIn(about["citation"], shown["acknowledgement"])


if __name__ == "__main__":
    unittest.main()
