"""Real worker processes for the tests, and real faults in them."""

import os
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import slicer

import support
from support import SlicerTestCase, leaveModule, processUntil
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.logic import MedGenLogic

MODEL = "mr-hippocampus"
_REAL = Path(slicer.app.slicerHome) / "bin" / "python-real"
PYTHON = str(_REAL) if support.inSlicer() and _REAL.exists() else sys.executable
"""An interpreter that is no launcher, as that of Slicer is."""
SILENT = "import time\ntime.sleep(600)\n"
ANSWERS_ONCE = """
import json, sys, time
request = json.loads(sys.stdin.readline())
print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"pid": 0, "devices": []}}), flush=True)
sys.stdin.readline()
"""


def children() -> list:
    """Every process below this one that still runs, as psutil's Process."""
    import psutil  # Slicer has it only with the worker's packages

    found = psutil.Process().children(recursive=True)
    return [child for child in found if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def script(folder, *lines: str) -> str:
    """An executable that is started in place of the worker's Python."""
    path = Path(folder) / f"python-{len(list(Path(folder).iterdir()))}"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def forceNumberFormat(bfloat16: bool) -> None:
    """Make workers of this home compute in this format, whatever their processor is."""
    program = """
import sys, torch
from MedGenLib.io.atomic import write_json
from MedGenLib.pipelines import loading
from MedGenLib.user_folders import cache_dir
cache_dir().mkdir(parents=True, exist_ok=True)
write_json(cache_dir() / loading.PROBES, {loading.probe_key(torch.device("cpu")): sys.argv[1] == "1"})
"""
    subprocess.run([PYTHON, "-c", program, str(int(bfloat16))], check=True, cwd=support.ROOT)


def playing(folder, source: str) -> str:
    """A "Python" that runs this program instead of the worker."""
    program = Path(folder) / "program.py"
    program.write_text(source, encoding="utf-8")
    return script(folder, f'exec "{PYTHON}" -u "{program}" "$@"')


class WorkerTestCase(SlicerTestCase):
    """An engine whose temporary files can be counted; afterwards no process and no file of it is left."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.requireWorker()

    def setUp(self):
        super().setUp()
        if sys.platform == "win32":
            self.skipTest("these faults are made with POSIX means")
        leaveModule()
        self.workFolder = self.temporaryFolder()
        self.temporary = self.workFolder / "temporary"
        self.temporary.mkdir()
        self.before = {child.pid for child in children()}
        self.engines = []

    def tearDown(self):
        for engine in self.engines:
            engine.cleanup()
        processUntil(lambda: not self.left(), 5, "a process is left behind")
        self.assertEqual(self.files(), [])
        super().tearDown()

    def engine(self, **keywords) -> Engine:
        keywords.setdefault("temporaryRoot", str(self.temporary))
        engine = Engine(**keywords)
        self.engines.append(engine)
        return engine

    def logic(self, **keywords) -> MedGenLogic:
        return MedGenLogic(self.engine(**keywords))

    def left(self) -> list:
        """Processes that were started by this test and run."""
        return [child for child in children() if child.pid not in self.before]

    def runFolders(self) -> list[str]:
        """The folders of runs that are not removed yet."""
        return [str(path) for path in self.temporary.glob("medgen-*/run-*")]

    def files(self) -> list[str]:
        """What lies in the temporary folder."""
        return [
            os.path.join(place, name)
            for place, folders, names in os.walk(self.temporary)
            for name in (*folders, *names)
        ]

    def assertStopped(self, engine, seconds: float = 5.0):
        """The worker is gone with its children and its files."""
        processUntil(
            lambda: not engine.isStopping and not self.left() and not self.files(),
            seconds,
            f"left behind: {self.left()} {self.files()}",
        )
        self.assertEqual(engine.state, "off")

    def assertSceneIs(self, before: dict):
        self.assertEqual(differences(before, snapshotOfScene()), [])

    def assertSentence(self, error, *words: str):
        """One plain sentence, or a few, that name these words."""
        text = str(error)
        for word in words:
            self.assertIn(word, text)
        self.assertTrue(text.endswith("."), text)
        self.assertNotIn("\n", text)
        self.assertNotIn("Traceback", text)


class WarmWorkerTestCase(WorkerTestCase):
    """Tests of runs: those of a file share a worker. An engine with settings of its own has its own."""

    keepsWorkers = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if cls.__module__ not in _warm:
            for engine in _warm.values():
                engine.cleanup()
            _warm.clear()
            _warm[cls.__module__] = Engine(temporaryRoot=_warmFolder.name)
        cls.warm = _warm[cls.__module__]

    def tearDown(self):
        processUntil(lambda: not self.warm.isStopping and not self.runFolders(), 10, "files of a run are left behind")
        super().tearDown()

    def engine(self, **keywords) -> Engine:
        return super().engine(**keywords) if keywords else self.warm

    def left(self) -> list:
        warm = self.warm.info.get("pid")
        return [child for child in super().left() if child.pid != warm]

    def files(self) -> list[str]:
        shared = [] if self.warm.info else Path(_warmFolder.name).rglob("*")
        return super().files() + [str(path) for path in shared]

    def runFolders(self) -> list[str]:
        return super().runFolders() + [str(path) for path in Path(_warmFolder.name).glob("medgen-*/run-*")]


_warm: dict[str, Engine] = {}
_warmFolder = tempfile.TemporaryDirectory(prefix="medgen-test-warm-")


def withoutPackages() -> str:
    """A real Python that has nothing installed; made once per process."""
    if support.inSlicer():
        raise unittest.SkipTest("an environment is made from an interpreter, and Slicer's is a launcher")
    if not _bare:
        import venv

        folder = tempfile.mkdtemp(prefix="medgen-test-bare-")
        venv.create(folder, with_pip=False, symlinks=True)
        _bare.append(str(Path(folder) / "bin" / "python"))
        import atexit
        import shutil

        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _bare[0]


_bare: list[str] = []
