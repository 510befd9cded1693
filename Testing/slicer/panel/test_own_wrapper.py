"""The panel's tests on Slicer's own parameterNodeWrapper and base classes, in place of the bridge's."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

import support

SOURCES = [Path(folder) for folder in os.environ.get("SLICER_SOURCES", "").split(os.pathsep) if folder]
"""Checkouts of Slicer, such as one of each supported version."""

FILES = ("test_panel.py", "test_panel_scene.py", "test_panel_edit.py")


@unittest.skipIf(support.inSlicer(), "in Slicer all tests run on them")
@unittest.skipUnless(SOURCES, "SLICER_SOURCES names no folder with the sources of Slicer")
class OwnWrapperTest(unittest.TestCase):
    def test_panel(self):
        for source in SOURCES:
            with self.subTest(source.name):
                self.assertTrue((source / "Base" / "Python" / "slicer").is_dir(), source)
                program = "import support, unittest; unittest.main(module=None, verbosity=2)"
                command = [sys.executable, "-c", program, *(str(Path("panel", name)) for name in FILES)]
                process = subprocess.run(
                    command,
                    cwd=support.FOLDER,
                    env={**os.environ, "SLICER_SOURCE": str(source)},
                    capture_output=True,
                    text=True,
                    timeout=1800,
                )
                self.assertEqual(process.returncode, 0, process.stderr[-4000:])


if __name__ == "__main__":
    unittest.main()
