"""The tests themselves in a new Slicer, which has none of the packages that MedGen installs: they load, and those that
need a package skip with the reason."""

import json
import os
import subprocess
import sys
import unittest

import support

ABSENT = (
    "torch",
    "psutil",
    "jsonschema",
    "safetensors",
    "skimage",
    "scipy",
    "monai",
    "einops",
    "matplotlib",
    "huggingface_hub",
    "dicomanonymizer",
    "highdicom",
    "platformdirs",
    "jinja2",
    "tqdm",
    "pytest",
    "hypothesis",
)
"""Modules that a new Slicer lacks; the names of their distributions may differ."""

PROGRAM = f"""
import importlib.metadata, json, sys, unittest
from pathlib import Path

absent = {ABSENT!r}
plain = {{name.replace("_", "").lower() for name in absent}} | {{"scikitimage", "dicomanonymizer"}}
found = importlib.metadata.version

def version(name):
    if name.replace("_", "").replace("-", "").lower() in plain:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.version = version
import support
sys.modules.update(dict.fromkeys(absent))
loader, suite = unittest.TestLoader(), unittest.TestSuite()
for script in sorted(Path.cwd().glob("*/test_*.py")):
    if script.parent.name not in ("bridge", "screenshots") and script.stem not in ("test_extension", "test_fresh"):
        sys.path.insert(0, str(script.parent))
        suite.addTests(loader.loadTestsFromName(script.stem))
support.bridge.loadModule(support.modulePath())
suite.addTests(loader.loadTestsFromName("MedGen"))  # as slicer.testing.runUnitTest does
chosen = unittest.TestSuite(
    group for group in suite if sys.argv[1] == "all" or any(word in str(group) for word in sys.argv[1:])
)
result = unittest.TextTestRunner(stream=sys.stderr).run(chosen)
print("REPORT" + json.dumps({{
    "faults": loader.errors + [f"{{case}}: {{text}}" for case, text in result.failures + result.errors],
    "reasons": sorted({{reason for case, reason in result.skipped}}),
    "count": result.testsRun,
}}), flush=True)
import os
os._exit(0)
"""


@unittest.skipIf(support.inSlicer(), "starts another process that boots the bridge")
class FreshTest(unittest.TestCase):
    def report(self, *words: str) -> dict:
        """Of the tests in a process without the packages: all, or those of classes with these words in their names."""
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=support.FOLDER,
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        lines = [line for line in process.stdout.splitlines() if line.startswith("REPORT")]
        self.assertTrue(lines, process.stderr[-3000:])
        return json.loads(lines[0][len("REPORT") :])

    def test_filesLoadAndWhatNeedsTheWorkerSkips(self):
        report = self.report("GenerateTest", "LifeTest", "SelfTest", "EmptyPanelTest", "LiveCase", "PlanTest")
        self.assertEqual(report["faults"], [])
        self.assertTrue(any("the worker needs torch" in reason for reason in report["reasons"]), report)
        self.assertGreater(report["count"], 0)

    def test_moduleTestSkips(self):
        # What Slicer's CTest runs for MedGen.py itself.
        report = self.report("MedGenTest")
        self.assertEqual((report["faults"], report["count"]), ([], 1))
        self.assertRegex(report["reasons"][0], "^not installed yet: torch")
