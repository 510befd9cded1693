"""Many cases: `medgen cohort run` in a process of its own, with the worker's Python.

The library lists the cases, computes and records them; here is what each is doing. Cases that are done stay done,
however the process ends, and the next run into the same folder goes on there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, InputError, MedGenError, WorkerError
from MedGenSlicer.engine.background import Background
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
LOG_LINES = 50


@dataclass
class CaseState:
    """What a case is doing.

    Attributes
    ----------
    status: "waiting", "running", "done", "kept" (it was done before), "failed", or "quarantined": it ended two workers.
    sentence: why it failed.
    seconds: how long it took; None before its end.
    """

    status: str = "waiting"
    sentence: str = ""
    seconds: float | None = None


class CohortRun(Run):
    """A run of all cases of a folder; it adds nothing to the scene.

    Parameters
    ----------
    folder: of volumes, or of folders with a DICOM series each.
    recipe: verb, further inputs, samples and seed.
    parameters: of the verb, by their Python names.
    outputFolder: of the results; None takes one beside the folder.

    Attributes
    ----------
    folder: path of the cases. outputFolder: path of the results. report: path of report.html, "" before the end.
    cases: name -> `CaseState`.
    changed: names of the cases that changed with the last progress.
    """

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
        self.outputFolder = str(Path(outputFolder).absolute()) if outputFolder else besideOf(folder, recipe.verb)
        self.report = ""
        self.cases: dict[str, CaseState] = {}
        self.changed: list[str] = []
        self._log: list[str] = []
        self._left: float | None = None
        self._process: PythonProcess | None = None
        self._stop: MedGenError | None = None
        self._isKilled = False

    def start(
        self, onProgress: Callable[[dict], None] | None = None, onDone: Callable[[Run], None] | None = None
    ) -> CohortRun:
        self.state, self._onProgress, self._onDone = "preparing", onProgress, onDone
        scene = slicer.mrmlScene
        self._observers = [scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing)]
        slicer.app.aboutToQuit.connect(self.kill)
        self._tell({"stage": _("reading the folder"), "step": 0, "total": 0, "seconds_left": None})
        Background(self._prepare, self._launch, self._fail)
        return self

    def cancel(self) -> None:
        """Stop; finished cases are kept."""
        self._stopWith(Cancelled(_("The cases were stopped; what is done is kept, and the next run goes on there.")))

    def kill(self) -> None:
        """Stop before returning; for when Slicer ends or the module is reloaded."""
        self._isKilled = True
        self.cancel()
        if self._process is not None:
            self._process.kill()

    def result(self) -> CohortRun:
        """Wait for the end; raises the run's error. What failed is in `cases`."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self

    @property
    def counts(self) -> tuple[int, int]:
        """Cases that are done, and cases that failed."""
        states = [case.status for case in self.cases.values()]
        return sum(s in ("done", "kept") for s in states), sum(s in ("failed", "quarantined") for s in states)

    def _prepare(self) -> list[str]:
        """In a thread: list the cases, write the manifest; their names."""
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
        python = self.engine.workerPython()
        manifest = str(Path(self.outputFolder) / MANIFEST)
        arguments = ["-m", "MedGenLib", "cohort", "run", manifest, "-o", self.outputFolder, "--json"]
        known = python, self.engine.workerEnvironment(python)
        self._process = PythonProcess(arguments, self._read, self._ended, python=known).start()
        self._show(names)

    def _read(self, line: str) -> None:
        try:
            event = dict(json.loads(line))
        except (ValueError, TypeError):
            self._log = [*self._log, line][-LOG_LINES:]
            return
        if "files" in event:
            self.report = next((file for file in event["files"] if file.endswith(".html")), "")
            return
        self._left = event.pop("seconds_left", None) or self._left
        names = event.pop("kept", None)
        if names is None:
            names = [event.pop("case")]
            self.cases[names[0]] = CaseState(**event)
        else:
            self.cases |= {name: CaseState("kept") for name in names}
        self._show(names)

    def _show(self, names: list[str]) -> None:
        self.changed = names
        step = sum(case.status not in ("waiting", "running") for case in self.cases.values())
        self._tell({"stage": _("cases"), "step": step, "total": len(self.cases), "seconds_left": self._left})

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
        if self._process is not None and not self._isKilled:
            self._process.cancel()

    def _finish(self) -> None:
        """Remove what the process left of cases that it had not finished, then end."""
        from MedGenLib.cohort.records import remove_unfinished

        def remove() -> None:
            remove_unfinished(Path(self.outputFolder), self.cases)

        state = "cancelled" if isinstance(self._stop, Cancelled) else "failed"
        if self._isKilled:
            remove()
            self._end(state, self._stop)
        else:
            Background(remove, lambda unused: self._end(state, self._stop), self._fail)

    def _end(self, state: str, error: MedGenError | None = None, stopWorker: bool = False) -> None:
        slicer.app.aboutToQuit.disconnect(self.kill)
        for case in self.cases.values():
            if case.status == "running":
                case.status = "waiting"
        self.changed = list(self.cases)
        super()._end(state, error, stopWorker)

    def _stopWorker(self) -> None:
        """The worker of the panel has no part in this."""

    def _onSceneClosing(self, caller=None, event=None) -> None:
        sentence = _("The scene was closed, so the cases were stopped; what is done is kept.")
        self._stopWith(InputError(sentence))


class CaseRun(Run):
    """Loads the image of a case that is done.

    Parameters
    ----------
    outputFolder: of a `CohortRun`. name: of the case.

    Attributes
    ----------
    passed: whether its checks passed.
    """

    def __init__(self, engine: Engine, outputFolder: str, name: str) -> None:
        super().__init__(engine)
        self._outputFolder, self._name = Path(outputFolder), name
        self.passed: bool | None = None

    def start(
        self, onProgress: Callable[[dict], None] | None = None, onDone: Callable[[Run], None] | None = None
    ) -> CaseRun:
        self.state, self._onProgress, self._onDone = "importing", onProgress, onDone
        scene = slicer.mrmlScene
        self._observers = [scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing)]
        self._tell({"stage": _("reading the result"), "step": 0, "total": 0, "seconds_left": None})
        self._inBackground(self._load, self._import)
        return self

    def _load(self) -> tuple:
        from MedGenLib.cohort.case import IMAGE, REPORT
        from MedGenLib.cohort.records import Record, case_folder
        from MedGenLib.io import recorded
        from MedGenLib.io.files import read_volume

        folder = case_folder(self._outputFolder, self._name)
        record = Record.read(folder)
        if record is None or IMAGE not in record.outputs:
            raise InputError(_("The case '{name}' has no image; choose one that is done.").format(name=self._name))
        facts = recorded.read(folder / IMAGE)  # formats such as NIfTI state neither modality nor unit
        volume = _rightHanded(replace(read_volume(folder / IMAGE), modality=facts.modality, unit=facts.unit))
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return record, report, InputSnapshot.ofGrid(volume), results.prepareImage(volume)

    def _add(self, received: tuple) -> list:
        record, report, snapshot, image = received
        self.passed, self.sentences = record.passed, list(record.checks)
        snapshot.name = self._name
        made = NodeProvenance.ofReport(
            report,
            modality=image.modality,
            unit=image.unit,
            checks=self.sentences,
            passed=self.passed,
            input=", ".join(Path(item["path"]).name for item in record.inputs.values()),
        )
        return [results.addResult(snapshot, image, made)]

    def _stopWorker(self) -> None:
        """The worker of the panel has no part in this."""


def _rightHanded(volume: Volume) -> Volume:
    """The same image on the grid on which Slicer loads the file of its input: it turns the last axis of a left-handed
    one."""
    if np.linalg.det(volume.affine[:3, :3]) > 0:
        return volume
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = volume.shape[2] - 1
    return replace(volume, array=volume.array[:, :, ::-1], affine=volume.affine @ turn)


def besideOf(folder: str, verb: str) -> str:
    """Where the results of a folder go by default."""
    path = Path(folder).absolute()
    return str(path.with_name(f"{path.name}-{verb}")) if path.name else ""
