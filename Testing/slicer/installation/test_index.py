"""The checks of the Extensions Index pass, and each of them notices what it is for."""

import json
import shutil
import subprocess
import sys
import unittest

import support

if support.inSlicer():
    raise unittest.SkipTest("the checkout is what is submitted, not the application")

sys.path.insert(0, str(support.ROOT / "Testing"))

import check_index

FILES = ("CMakeLists.txt", "MedGen.json", "CITATION.cff", "pyproject.toml", "README.md", "LICENSE")


class PassTest(unittest.TestCase):
    def test_everyCheck(self):
        project = check_index.Project(support.ROOT)
        for check in check_index.CHECKS:
            with self.subTest(check.__name__):
                self.assertEqual(list(check(project)), [])


class NoticeTest(support.SlicerTestCase):
    """A copy of the project, spoiled in one place."""

    def setUp(self):
        super().setUp()
        root = self.temporaryFolder()
        for name in FILES:
            shutil.copy(support.ROOT / name, root)
        for name in ("MedGen", "MedGenLib", "Resources/Icons", "Resources/Pictures", "docs/get-started"):
            shutil.copytree(support.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(support.ROOT / "Resources" / "extension.json", root / "Resources")
        self.project = check_index.Project(root)

    def faults(self, check) -> str:
        return "; ".join(check(self.project))

    def change(self, name, old, new):
        path = self.project.root / name
        text = path.read_text(encoding="utf-8")
        self.assertIn(old, text)
        path.write_text(text.replace(old, new), encoding="utf-8")

    def fill(self, **changes):
        path = self.project.root / "Resources" / "extension.json"
        path.write_text(json.dumps({**self.project.filled, **changes}), encoding="utf-8")

    def test_copies(self):
        home = "https://github.com/somebody/SlicerMedGen"
        self.fill(homepage=home, contributors=["Ann Other (Clinic)", "Al Ready"], branch="release")
        for name in ("CMakeLists.txt", "MedGen.json", "CITATION.cff", "pyproject.toml", "docs/get-started/index.md"):
            self.assertIn(name, self.faults(check_index.check_copies))
        for name, text in self.project.copies().items():
            (self.project.root / name).write_text(text, encoding="utf-8")
        self.assertEqual(self.faults(check_index.check_copies), "")
        self.assertEqual(self.project.metadata("HOMEPAGE"), home)
        self.assertEqual(self.project.metadata("CONTRIBUTORS"), "Ann Other (Clinic), Al Ready")
        self.assertIn("somebody/SlicerMedGen/release/Resources/Icons", self.project.metadata("ICONURL"))
        self.assertEqual(self.project.entry["scm_url"], home + ".git")
        self.assertIn('name: "Al Ready"', self.project.text("CITATION.cff"))

    def test_entry(self):
        path = self.project.root / "MedGen.json"
        entry = self.project.entry
        for change, fault in (
            ({"tier": 4}, "tier"),
            ({"extra": 1}, "unknown key extra"),
            ({"category": None}, "category is not a str"),
            ({"build_dependencies": "PyTorch"}, "build_dependencies"),
            ({"$schema": ""}, "$schema"),
        ):
            path.write_text(json.dumps({**entry, **change}), encoding="utf-8")
            self.assertIn(fault, self.faults(check_index.check_entry))
        path.write_bytes(json.dumps(entry, indent=1).replace("\n", "\r\n").encode())
        self.assertIn("CR line ends", self.faults(check_index.check_entry))

    def test_names(self):
        self.change("MedGen.json", "https://github.com/medgen-project/SlicerMedGen", "ssh://somewhere/MedGen")
        self.change("MedGen.json", "Image Synthesis", "Synthesis")
        self.change("CMakeLists.txt", "project(MedGen)", "project(SlicerMedGen)")
        self.change("CMakeLists.txt", 'EXTENSION_DEPENDS "PyTorch"', 'EXTENSION_DEPENDS "NA"')
        found = self.faults(check_index.check_names)
        for fault in ("scm_url", "start with Slicer", "CMake project", "category", "EXTENSION_DEPENDS"):
            self.assertIn(fault, found)

    def test_pictures(self):
        (self.project.root / "Resources" / "Icons" / "MedGen.png").write_text("no picture")
        self.fill(screenshots=["Resources/Pictures/gone.png"])
        self.assertIn("MedGen.png is no PNG", self.faults(check_index.check_pictures))
        self.assertIn("gone.png is no PNG", self.faults(check_index.check_pictures))
        (self.project.root / "Resources" / "Pictures" / "large.png").write_bytes(bytes(200_000))
        self.assertIn("large.png is larger", self.faults(check_index.check_pictures))

    def test_licenseAndHomepage(self):
        (self.project.root / "LICENSE").unlink()
        (self.project.root / "README.md").write_text("# MedGen\n")
        self.assertIn("no license file", self.faults(check_index.check_license))
        self.assertIn("name the license", self.faults(check_index.check_license))
        found = self.faults(check_index.check_homepage)
        for what in ("picture", "module", "cite", "tutorial", "sample data", "diagnosis"):
            self.assertIn(what, found)

    def test_size(self):
        def git(*arguments):
            subprocess.run(["git", "-C", str(self.project.root), *arguments], check=True, capture_output=True)

        git("init")
        large = self.project.root / "large.bin"
        large.touch()
        with large.open("r+b") as stream:
            stream.truncate(check_index.LARGEST_CLONE)
        git("add", "large.bin", "README.md")
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "large")
        self.assertIn("above 100 MiB", self.faults(check_index.check_size))

    def test_imports(self):
        self.change("MedGenLib/errors.py", "from __future__", "import torch\nfrom __future__")
        self.assertIn("errors.py imports torch at file scope", self.faults(check_index.check_imports))

    def test_codeAtFileScope(self):
        self.change("MedGen/MedGenSlicer/models.py", "def find(", "print(1)\n\n\ndef find(")
        self.assertIn("models.py", self.faults(check_index.check_file_scope))

    def test_pipOfTorch(self):
        path = self.project.root / "MedGen" / "MedGenSlicer" / "models.py"
        path.write_text("def install():\n    slicer.util.pip_install('torch>=2.6')\n", encoding="utf-8")
        self.assertIn("models.py:2 installs torch", self.faults(check_index.check_torch))


if __name__ == "__main__":
    unittest.main()
