"""One case: computed in a hidden folder, which takes its place with the record of what was done."""

from __future__ import annotations

import secrets
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib import __version__
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE, LOG, Record, case_folder, file_hash
from MedGenLib.cohort.verbs import STATED, VERBS
from MedGenLib.errors import Cancelled, MedGenError
from MedGenLib.io.atomic import replace_folder
from MedGenLib.io.provenance import Source, content_hash
from MedGenLib.progress import Progress, ProgressCallback
from MedGenLib.run_files import ROLES, read_input, recorded_options, with_forms, write_with_facts

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.result import Result

IMAGE, LESION, THUMBNAIL, REPORT = "image.nii.gz", "lesion.nii.gz", "thumbnail.png", "report.json"
METRICS, TABLE = "metrics.json", "metrics.csv"
STORED = ("insert-lesion",)
"""Verbs that read scans in the number format of their files."""

Guard = Callable[[Callable[[str], Any], str, str, str], Any]
"""Runs an attempt with a memory plan, and with the small one if memory is short: attempt, plan, device, kind of
input."""


def run_case(case: CohortCase, out: Path, progress: ProgressCallback | None, guard: Guard) -> Record:
    """Run a case and write its folder below `out`; a failure is a record, too.

    Raises
    ------
    Cancelled: from `progress`.
    """
    folder = case_folder(out, case.id)
    hidden = folder.with_name(f".{secrets.token_hex(4)}.part.{case.id}")
    start, log = time.perf_counter(), _Log(progress)
    record = Record.of(case)
    try:
        hidden.mkdir(parents=True)
        try:
            record.read_inputs(case)
            _Run(case, hidden, record, log, guard).work()
            record.status = DONE
        except Cancelled:
            raise
        except Exception as error:
            _clear(hidden)
            record.outputs, record.passed = {}, None
            record.sentence = _sentence(error, log, folder.parent)
        record.seconds = round(time.perf_counter() - start, 3)
        complete(record, hidden, folder, log.lines)
    except OSError as error:  # the disk is full: nothing of the case can be written
        record.status, record.outputs = "failed", {}
        record.sentence = record.sentence or _of_system(error, folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return record


def complete(record: Record, hidden: Path, folder: Path, lines: list[str]) -> None:
    """Write log and record into the hidden folder and let it take the place of the case's."""
    with suppress(ImportError):  # psutil may be missing
        from MedGenLib.devices import peak_memory_mib

        record.memory_mib = round(peak_memory_mib(), 1)
    record.finished, record.medgen = datetime.now(UTC).isoformat(timespec="seconds"), __version__
    (hidden / LOG).write_text("\n".join([*lines, f"{record.status} {record.sentence}".strip(), ""]), encoding="utf-8")
    record.write(hidden)
    replace_folder(hidden, folder)


class _Log:
    """A progress callback that keeps a line of each stage."""

    def __init__(self, progress: ProgressCallback | None) -> None:
        self.lines: list[str] = []
        self._progress, self._start = progress, time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        if progress.step == progress.total:
            self.add(f"{progress.stage}: {progress.total} of {progress.total}")
        if self._progress is not None:
            self._progress(progress)

    def add(self, text: str) -> None:
        self.lines.append(f"{time.perf_counter() - self._start:9.3f} s  {text}")


class _Run:
    """The work of one case."""

    def __init__(self, case: CohortCase, folder: Path, record: Record, log: _Log, guard: Guard) -> None:
        self.case, self.folder, self.record, self.log, self.guard = case, folder, record, log, guard
        self.verb = VERBS[case.verb]
        self.images: dict[str, Volume | LabelMap] = {}

    def work(self) -> None:
        case, log = self.case, self.log
        log.add(f"{case.verb} {' '.join(f'{name}={value}' for name, value in case.parameters.items())}")
        options = self.verb.checked(case.parameters, case.inputs, case.seed)
        for name, path in case.inputs.items():
            image = read_input(self.verb.command, name, Path(path), case.parameters, case.verb in STORED)
            self.images[name] = image
            for note in image.notes:
                log.add(f"{name}: {note}")
        options |= self.images
        if case.verb == "evaluate":
            self._evaluate(options)
        else:
            self._make(options)
        for path in sorted(self.folder.iterdir()):
            item = self.record.outputs.setdefault(path.name, {})
            item |= {"size": path.stat().st_size, "sha256": file_hash(path)}

    def _make(self, options: dict[str, Any]) -> None:
        made = self.guard(
            lambda memory: self._function()(**{**options, "memory": memory}, progress=self.log),
            options["memory"],
            options["device"],
            self.verb.first,
        )
        result: Result = getattr(made, "result", made)
        sources = [Source.of(ROLES[name], image, self.case.inputs[name]) for name, image in self.images.items()]
        facts = replace(
            result.provenance(sources),
            options=recorded_options(self.verb.command, options, {n: self.case.parameters.get(n) for n in STATED}),
        )
        write_with_facts(with_forms(result.volume, self.images.values()), self.folder / IMAGE, facts)
        self.record.outputs[IMAGE] = {"content_sha256": facts.output_sha256}
        if result is not made:
            from MedGenLib.io.files import write_volume

            write_volume(made.lesion, self.folder / LESION)
            self.record.outputs[LESION] = {"content_sha256": content_hash(made.lesion)}
        result.report.write(self.folder / REPORT)
        self._thumbnail(result.volume)
        self.record.passed, self.record.checks = result.report.passed, list(result.report.sentences)
        for sentence in result.report.sentences:
            self.log.add(sentence)

    def _function(self) -> Callable[..., Any]:
        """The function of the library; imports torch."""
        from MedGenLib import generate, translate
        from MedGenLib.editing.lesions import insert_lesion

        return {"generate": generate, "translate": translate, "insert-lesion": insert_lesion}[self.case.verb]

    def _evaluate(self, options: dict[str, Any]) -> None:
        from MedGenLib.evaluation.cases import Cohort
        from MedGenLib.evaluation.pair import CaseOrigin, evaluate
        from MedGenLib.evaluation.report import csv_rows
        from MedGenLib.evaluation.tables import csv_text, json_text

        own = {name: value for name, value in options.items() if name not in ("report", "overwrite")}
        origin = CaseOrigin(self.case.id, {name: Path(path).name for name, path in self.case.inputs.items()})
        found = evaluate(**own, origin=origin, progress=self.log)
        (self.folder / METRICS).write_text(json_text(found.to_dict()), encoding="utf-8")
        (self.folder / TABLE).write_text(csv_text(csv_rows(Cohort((found,)))), encoding="utf-8")
        self._thumbnail(self.images["image"])

    def _thumbnail(self, image: Volume) -> None:
        from MedGenLib.visual.thumbnails import write_thumbnail

        with suppress(MedGenError):  # an image without a plane to show
            write_thumbnail(image, self.folder / THUMBNAIL)


def _sentence(error: Exception, log: _Log, folder: Path) -> str:
    """What to tell of an error; the rest goes into the log."""
    if isinstance(error, MedGenError):
        if error.detail:
            log.add(error.detail)
        return str(error)
    log.add("".join(traceback.format_exception(error)))
    if isinstance(error, OSError) and error.strerror:
        return _of_system(error, folder)
    return f"An unexpected error stopped the case ({type(error).__name__}: {' '.join(str(error).split())[:200]})."


def _of_system(error: OSError, folder: Path) -> str:
    """An open file that cannot be written has no name in its error; it is of the folder of the cases."""
    from MedGenLib.io.files import os_sentence

    return os_sentence(Path(error.filename or folder), error, "read or written")


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
