"""The extension: every file reaches the package and works from there.

CMake configures the project against the stand-in for a Slicer build in ``cmake/``.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import support

if support.inSlicer():
    raise unittest.SkipTest("the application is what the extension is built with")

ROOT = support.ROOT
STAND_IN = Path(__file__).with_name("cmake")
MODULES = Path("lib", "Slicer-5.12", "qt-scripted-modules")


def program(name: str) -> str:
    """``cmake`` or ``ninja`` of this environment."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise AssertionError(f"{name} is not installed: pip install '.[dev]'")
    return found


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout + done.stderr)
    return done.stdout


def configure(source: Path, build: Path) -> str:
    return run(
        program("cmake"),
        "-S",
        source,
        "-B",
        build,
        "-G",
        "Ninja",
        f"-DSlicer_DIR={STAND_IN}",
        f"-DCMAKE_MAKE_PROGRAM={program('ninja')}",
        f"-DMEDGEN_PYTHON={sys.executable}",
    )


def install(build: Path, prefix: Path) -> Path:
    """Build and install; returns the folder of the scripted modules."""
    run(program("cmake"), "--build", build)
    run(program("cmake"), "--install", build, "--prefix", prefix)
    return prefix / MODULES


def sources() -> dict[Path, Path]:
    """Where each file of the project has to be installed, relative to the folder of the modules."""
    folders = {ROOT / "MedGen": Path(), ROOT / "MedGenLib": Path("MedGenLib"), ROOT / "Resources": Path("Resources")}
    found = {
        goal / path.relative_to(folder): path
        for folder, goal in folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    }
    tools = ("__pycache__", "CMakeLists.txt", "ruff.toml")
    return {
        goal: path
        for goal, path in found.items()
        if not any(part.startswith(".") or part in tools for part in goal.parts)
        and goal.parts[:2] != ("Resources", "Pictures")  # of the documentation
    }


class RequirementsTest(unittest.TestCase):
    def test_requirements_without_what_slicer_brings(self):
        from MedGenLib.requirements import requirements

        wanted = [needed for needed in requirements() if not needed.brought_by]
        self.assertEqual(
            {needed.name for needed in wanted if not needed.used_for},
            {"jsonschema", "psutil", "safetensors", "scikit-image"},
        )
        self.assertEqual(
            {needed.name for needed in wanted if needed.used_for},
            {"dicom-anonymizer", "einops", "huggingface_hub", "matplotlib", "monai", "pyyaml", "websockets"},
        )


@unittest.skipUnless(shutil.which("cc") or os.environ.get("CC"), "CMake wants a C compiler for project()")
class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="medgen-extension-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        configure(ROOT, cls.folder / "build")
        cls.modules = install(cls.folder / "build", cls.folder / "install")

    def test_every_file_is_installed_and_nothing_else(self):
        expected = sources()
        self.assertGreater(len(expected), 120)
        found = (self.folder / "install").rglob("*")
        installed = {path.relative_to(self.modules) for path in found if path.is_file()}
        self.assertEqual(set(expected) - installed, set(), "missing from the package")
        self.assertEqual(installed - set(expected), set(), "should not be in the package")
        different = [
            str(goal)
            for goal, source in expected.items()
            if not filecmp.cmp(source, self.modules / goal, shallow=False)
        ]
        self.assertEqual(different, [])
        self.assertEqual(
            {path.suffix for path in expected} & {".safetensors", ".ui", ".png", ".json", ".gz"},
            {".safetensors", ".ui", ".png", ".json", ".gz"},
        )

    def ctest(self, *arguments) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = (Path(program("cmake")).with_name("ctest"), "--test-dir", self.folder / "build", *arguments)
        return run(*command, env=environment)

    def test_tests_are_registered(self):
        output = self.ctest("-N")
        names = set(re.findall(r": (py_\w+)", output))
        files = {path.stem for path in support.FOLDER.glob("*/test_*.py")} - {
            "test_bridge",
            "test_extension",
            "test_index",
        }
        self.assertEqual(names, {f"py_{name}" for name in files | {"MedGen"}})

    @support.slow
    def test_a_test_of_each_folder_is_found_alone(self):
        folders = sorted({path.parent for path in support.FOLDER.glob("*/test_*.py")} - {support.FOLDER / "bridge"})
        names = [min(path.stem for path in folder.glob("test_*.py")) for folder in folders]
        output = self.ctest("--output-on-failure", "-R", f"^py_({'|'.join(names)})$")
        self.assertRegex(output, f"100% tests passed.* out of {len(names)}")

    def test_new_file_is_picked_up(self):
        copy = self.folder / "copy"
        for name in ("MedGen", "MedGenLib", "Testing/slicer", "Resources/UI"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "CMakeLists.txt", copy)
        configure(copy, self.folder / "copied")
        fresh = ("MedGenSlicer/fresh.py", "MedGenLib/fresh.py", "MedGenLib/fresh.json", "Resources/fresh.txt")
        for name in fresh:
            (copy / name.replace("MedGenSlicer", "MedGen/MedGenSlicer")).write_text("{}\n")
        modules = install(self.folder / "copied", self.folder / "again")
        for name in fresh:
            self.assertTrue((modules / name).is_file(), name)

    def test_missing_file_stops_the_build(self):
        source = self.folder / "broken"
        source.mkdir()
        (source / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.28)\nproject(Broken NONE)\nfind_package(Slicer REQUIRED)\n"
            "include(${Slicer_USE_FILE})\nslicerMacroBuildScriptedModule(NAME Broken SCRIPTS Broken.py)\n"
        )
        with self.assertRaises(subprocess.CalledProcessError) as caught:
            configure(source, self.folder / "broken-build")
        self.assertIn("Broken.py", caught.exception.output)

    def test_module_works_from_the_installed_tree(self):
        environment = dict(os.environ)
        environment.pop("MEDGEN_TEST_HOME", None)
        environment.update(
            PYTHONPATH=str(support.FOLDER),
            MEDGEN_MODULE=str(self.modules / "MedGen.py"),
            MEDGEN_INSTALLED=str(self.modules),
        )
        program = Path(__file__).with_name("installed.py")
        output = run(sys.executable, program, env=environment, cwd=self.folder, timeout=300)
        self.assertIn("done: Hippocampus", output)


if __name__ == "__main__":
    unittest.main()
