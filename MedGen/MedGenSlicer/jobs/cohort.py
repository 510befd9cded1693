"""Many cases: `medgen cohort run` in a process of its own, with the worker's Python."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenSlicer.engine.background import Background, ignore
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.engine.installers import PythonProcess
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import volumes as results

if TYPE_CHECKING:
    from MedGenLib.cohort.making import CaseRecipe
    from MedGenLib.imaging.volume import Volume

MANIFEST = "manifest.json"


@dataclass
class CaseState:
    """What a case is doing: waiting, running, done, kept (it was done before), failed, or quarantined (it ended two
    workers), with the sentence why it failed."""

    status: str = "waiting"
    sentence: str = ""
    seconds: float | None = None


class CohortRun(Run):
    """A run of all cases of a folder; it adds nothing to the scene. However it ends, cases that are done stay done.

    Attributes
    ----------
    report: path of report.html, "" before the end.
    cases: name -> `CaseState`.
    changed: names of the cases that changed with the last progress.
    """

    _stopWorker = staticmethod(ignore)

    def __init__(
        self,
        engine: Engine,
        folder: str,
        recipe: CaseRecipe,
        parameters: Mapping[str, Any],
        outputFolder: str | None = None,
    ) -> None:
        super().__init__(engine)
        self.folder, self._recipe, self._options = Path(folder).absolute(), recipe, dict(parameters)
        self.outputFolder = str(Path(outputFolder or besideOf(folder, recipe.verb)).absolute())
        self.report = ""
        self.cases: dict[str, CaseState] = {}
        self.changed: list[str] = []
        self._log: deque[str] = deque(maxlen=50)
        self._left: float | None = None
        self._process: PythonProcess | None = None
        self._stop: MedGenError | None = None

    @property
    def summary(self) -> str:
        """How far it is, in words."""
        count = Counter(case.status for case in self.cases.values())
        return _("{done} of {total} done, {failed} failed").format(
            done=count["done"] + count["kept"], total=len(self.cases), failed=count["failed"] + count["quarantined"]
        )

    def cancel(self) -> None:
        """Stop, in a moment."""
        self._stopWith(Cancelled(_("The cases were stopped; what is done is kept, and the next run goes on there.")))

    def kill(self) -> None:
        """Stop before returning, as Slicer ends or the module is reloaded."""
        self.cancel()
        if self._process is not None:
            self._process.kill()

    def result(self) -> CohortRun:
        """Wait for the end; raises the run's error. What failed is in `cases`."""
        super().result()
        return self

    def _begin(self) -> None:
        slicer.app.aboutToQuit.connect(self.kill)
        self._tell({**self.progress, "stage": _("reading the files")})
        Background(self._prepare, self._launch, self._fail)

    def _prepare(self) -> list[str]:
        """In a thread: write the manifest; the names of the cases."""
        from MedGenLib.cohort.making import make_manifest
        from MedGenLib.cohort.output import open_output
        from MedGenLib.io.atomic import write_json

        out = Path(self.outputFolder)
        if out.resolve().is_relative_to(self.folder.resolve()):
            sentence = _("The results would lie among the files in {folder}; choose another output folder.")
            raise InputError(sentence.format(folder=self.folder))
        data = make_manifest(self.folder, self._recipe, out)
        data["parameters"] |= self._options
        open_output(out, data["cohort"])
        write_json(out / MANIFEST, data)
        return [entry["id"] for entry in data["cases"]]

    def _launch(self, names: list[str]) -> None:
        self.cases = {name: CaseState() for name in names}
        if self._stop is not None:
            self._finish()
            return
        self.state = "running"
        python, out = self.engine.workerPython(), self.outputFolder
        command = ["-m", "MedGenLib", "cohort", "run", str(Path(out) / MANIFEST), "-o", out, "--json"]
        own = python, self.engine.workerEnvironment(python)
        self._process = PythonProcess(command, self._read, self._ended, python=own).start()
        self._show(names)

    def _read(self, line: str) -> None:
        try:
            event = dict(json.loads(line))
        except (ValueError, TypeError):
            self._log.append(line)
            return
        if "files" in event:
            self.report = str(Path(self.outputFolder) / "report.html")
        elif "kept" in event:
            self.cases |= {name: CaseState("kept") for name in event["kept"]}
            self._show(event["kept"])
        else:
            name, self._left = event.pop("case"), event.pop("seconds_left", self._left)
            self.cases[name] = CaseState(**event)
            self._show([name])

    def _show(self, names: list[str]) -> None:
        self.changed = names
        self._tell({**self.progress, "stage": self.summary, "seconds_left": self._left})

    def _ended(self, code: int) -> None:
        self._process = None
        if self._stop is not None:
            self._finish()
        elif self.report:
            self._end("done")
        else:
            said = [line.removeprefix("medgen: ") for line in self._log if line.startswith("medgen: ")]
            ended = _("The cases stopped unexpectedly (exit code {code}); run again to go on.").format(code=code)
            error = InputError(said[-1]) if code in (1, 2) and said else WorkerError(ended)
            error.detail = "\n".join(self._log)
            self._fail(error)

    def _stopWith(self, error: MedGenError) -> None:
        if self.isDone or self._stop is not None:
            return
        self._stop, self.state = error, "stopping"
        self._tell({**self.progress, "stage": _("stopping"), "seconds_left": None})
        if self._process is not None:
            self._process.cancel()

    def _finish(self) -> None:
        """Remove what the process left of cases that it had not finished, then end."""
        from MedGenLib.cohort.records import remove_unfinished

        remove_unfinished(Path(self.outputFolder), self.cases)
        self._fail(self._stop)

    def _end(self, state: str, error: MedGenError | None = None, stopWorker: bool = False) -> None:
        slicer.app.aboutToQuit.disconnect(self.kill)
        self.changed = [name for name, case in self.cases.items() if case.status == "running"]
        self.cases |= {name: CaseState() for name in self.changed}
        super()._end(state, error, stopWorker)

    def _onSceneClosing(self, caller=None, event=None) -> None:
        self._stopWith(InputError(_("The scene was closed, so the cases were stopped; what is done is kept.")))


class CaseRun(Run):
    """Loads the image of a case that is done."""

    _stopWorker = staticmethod(ignore)

    def __init__(self, engine: Engine, outputFolder: str, name: str) -> None:
        super().__init__(engine)
        self._outputFolder, self._name = Path(outputFolder), name

    def _begin(self) -> None:
        self._inBackground(self._load, self._import)

    def _load(self) -> tuple:
        from MedGenLib.cohort.case import IMAGE, REPORT
        from MedGenLib.cohort.records import Record, case_folder
        from MedGenLib.io import recorded
        from MedGenLib.io.files import read_volume

        folder = case_folder(self._outputFolder, self._name)
        record = Record.read(folder)
        if record is None or IMAGE not in record.outputs:
            raise InputError(_("The case '{name}' has no image; choose one that is done.").format(name=self._name))
        facts = recorded.read(folder / IMAGE)  # NIfTI states neither modality nor unit
        volume = _rightHanded(replace(read_volume(folder / IMAGE), modality=facts.modality, unit=facts.unit))
        made = NodeProvenance.ofReport(
            json.loads((folder / REPORT).read_text(encoding="utf-8")),
            modality=volume.modality or "",
            unit=volume.unit,
            checks=record.checks,
            passed=record.passed,
            input=", ".join(Path(item["path"]).name for item in record.inputs.values()),
        )
        snapshot = InputSnapshot.ofGrid(volume)
        snapshot.name = self._name
        return snapshot, results.prepareImage(volume), made

    def _add(self, received: tuple) -> list:
        return [results.addResult(*received)]


def _rightHanded(volume: Volume) -> Volume:
    """The same image on the grid on which Slicer loads its input: it turns the last axis of a left-handed one."""
    if np.linalg.det(volume.affine[:3, :3]) > 0:
        return volume
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = volume.shape[2] - 1
    return replace(volume, array=volume.array[:, :, ::-1], affine=volume.affine @ turn)


def besideOf(folder: str, verb: str) -> str:
    """Where the results of a folder go by default."""
    path = Path(folder).absolute()
    return f"{path.parent / path.name}-{verb}"
