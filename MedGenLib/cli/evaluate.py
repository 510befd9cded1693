"""`medgen evaluate`: an image, or a folder of them, against references and labels.

Additional exit codes: 1 if some cases of a cohort could not be evaluated, 2 if none could.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.errors import InputError
from MedGenLib.evaluation import report
from MedGenLib.evaluation.cases import Case, Cohort, evaluate_cases, holds_cases, match
from MedGenLib.evaluation.folders import report_folder, require_apart
from MedGenLib.evaluation.html import number
from MedGenLib.evaluation.pair import CaseOrigin, Evaluation, require_purpose
from MedGenLib.evaluation.pair import evaluate as evaluate_pair
from MedGenLib.imaging.modality import hu_problem
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import list_series, read_label_map, read_volume
from MedGenLib.io.output_names import split_suffix
from MedGenLib.io.provenance import Provenance
from MedGenLib.io.recorded import read
from MedGenLib.progress import Progress

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.segmentation.segmenters import Segmenter

_ROLES = ("reference", "mask", "labels", "uncertainty")
DONE, SOME_FAILED, ALL_FAILED = 0, 1, 2


@command(
    "evaluate",
    "measure how good a synthetic image is",
    "Against a real image of the same patient, against the mask it was made from, or both. Two folders are compared "
    "file by file, matched by name. See also `medgen evaluate distribution --help` and `medgen evaluate utility "
    "--help`.",
)
def evaluate(arguments: Namespace, console: Console) -> int:
    """Measure, print, and optionally write the report."""
    others = {role: getattr(arguments, role) for role in _ROLES}
    require_purpose(
        *(others[role] for role in ("reference", "mask", "labels")), arguments.segmenter, others["uncertainty"]
    )
    paths = [arguments.image, *filter(None, others.values())]
    for path in paths:
        if not path.exists():
            raise InputError(f"There is no file or folder {path}; check the path.")
    cohort = holds_cases(arguments.image)
    if arguments.report is not None:
        require_apart(arguments.report, paths)
    with ExitStack() as stack:
        outputs = None
        if arguments.report is not None:  # the path is checked before the work
            names = report.file_names(not cohort, arguments.reference is not None)
            keep = [path for path in paths if path.is_file()]
            outputs = stack.enter_context(report_folder(arguments.report, names, arguments.overwrite, keep))
        if cohort:
            return _cohort(arguments, others, outputs, console)
        return _single(arguments, others, outputs, console)


def _single(arguments: Namespace, others: dict[str, Path | None], outputs: Outputs | None, console: Console) -> int:
    for role, path in others.items():
        if path is not None and holds_cases(path):
            raise InputError(
                f"{arguments.image} is one volume, but the {role} {path} is a folder of volumes; "
                "give two volumes or two folders."
            )
    name = arguments.image.name
    name = name if arguments.image.is_dir() else split_suffix(arguments.image)[0]
    paths = {"image": arguments.image, **{role: path for role, path in others.items() if path}}
    segmenter = _segmenter(arguments)
    evaluation = _judge(Case(name, paths), arguments, segmenter, console)
    _write(evaluation, outputs, arguments.report)
    _tell(evaluation, console)
    _tell_files(outputs, console)
    return DONE


def _cohort(arguments: Namespace, others: dict[str, Path | None], outputs: Outputs | None, console: Console) -> int:
    cases, lacking, unmatched = match(arguments.image, others)
    console.announce([*unmatched, *(failure.sentence for failure in lacking)])
    segmenter = _segmenter(arguments)

    def judge(case: Case) -> Evaluation:
        return _judge(case, arguments, segmenter, _OfCase(case.name, console))

    done, failed = evaluate_cases(cases, judge, console)
    failures = sorted(lacking + failed, key=lambda failure: failure.name)
    cohort = Cohort(done, tuple(failures), tuple(unmatched))
    _write(cohort, outputs, arguments.report)
    _tell_cohort(cohort, console)
    _tell_files(outputs, console)
    if not done:
        return ALL_FAILED
    return SOME_FAILED if cohort.failures else DONE


def _segmenter(arguments: Namespace) -> Segmenter | None:
    """Created once, so that a wrong name is found before any work."""
    if arguments.segmenter is None:
        return None
    from MedGenLib.segmentation.segmenters import segmenter

    return segmenter(arguments.segmenter, arguments.device)


@dataclass(frozen=True)
class _OfCase:
    """Callback of one case of a cohort, whose own progress is not shown."""

    name: str
    console: Console

    def __call__(self, progress: Progress) -> None: ...

    def announce(self, sentences: list[str]) -> None:
        self.console.announce([f"{self.name}: {sentence}" for sentence in sentences])


def _judge(case: Case, arguments: Namespace, segmenter: Segmenter | None, progress: Console | _OfCase) -> Evaluation:
    """Evaluate one case; what was found when its images were read is announced first."""
    made = _provenance(case.paths["image"])
    images = {role: _read(role, path, made, arguments) for role, path in case.paths.items()}
    progress.announce([note for image in images.values() for note in image.notes])
    origin = CaseOrigin(case.name, {role: path.name for role, path in case.paths.items()}, made)
    return evaluate_pair(**images, segmenter=segmenter, resample=arguments.resample, origin=origin, progress=progress)


def _read(role: str, path: Path, made: Provenance | None, arguments: Namespace) -> Volume | LabelMap:
    """`modality` applies to files that do not state theirs."""
    if role in ("mask", "labels"):
        return read_label_map(path)
    if path.is_dir() and (count := len(list_series(path))) > 1:
        raise InputError(f"{path} holds {count} DICOM series; give a folder with one of them.")
    if role == "uncertainty":
        return read_volume(path)
    known = made.modality if made and role == "image" else None
    stated = None if path.is_dir() else known or arguments.modality
    image, offset = read_volume(path, modality=stated), arguments.hu_offset
    if offset is None or image.modality not in (None, "CT") or hu_problem(image) is None:
        return image
    return read_volume(path, modality=stated, hu_offset=offset)


def _provenance(path: Path) -> Provenance | None:
    """How the image was made; a damaged record is ignored."""
    with suppress(InputError):
        return None if path.is_dir() else read(path)
    return None


def _write(evaluated: Evaluation | Cohort, outputs: Outputs | None, folder: Path) -> None:
    if outputs is not None:
        report.write(evaluated, outputs, folder)
        outputs.commit()


def _tell(evaluation: Evaluation, console: Console) -> None:
    whole = [row for row in evaluation.figures if not row.label]
    if whole:
        rows = [(row.name, number(row.value), row.unit) for row in whole]
        console.say(table(("measure", "value", "unit"), rows))
    for row in whole:
        if row.value is None:
            console.say(row.sentence)
    labels = [row for row in evaluation.rows if row.label]
    if labels:
        console.say(f"\n{_label_table(labels)}")
    if evaluation.anatomy:
        console.say("")
    for label in evaluation.anatomy:
        console.say(label.sentence)
    if note := " ".join(sentence for sentence in evaluation.notes if not console.has_announced(sentence)):
        console.note(note)


def _label_table(rows: list) -> str:
    """One line per label, one column per measure."""
    heads = list(dict.fromkeys((row.name, f"{row.name} ({row.unit})" if row.unit else row.name) for row in rows))
    values = {(row.label, row.name): number(row.value) for row in rows}
    lines = [(label, *(values[label, name] for name, _ in heads)) for label in dict.fromkeys(row.label for row in rows)]
    return table(("label", *(head for _, head in heads)), lines)


def _tell_cohort(cohort: Cohort, console: Console) -> None:
    rows = [
        (
            row.label,
            row.name,
            row.unit,
            str(found.count),
            number(found.mean),
            number(found.sd),
            number(found.median),
            number(found.low),
            number(found.high),
        )
        for row, found in report.short_list(report.summaries(cohort))
    ]
    if rows:
        heads = ("label", "measure", "unit", "cases", "mean", "SD", "median", "CI from", "to")
        console.say(table(heads, rows))
    for failure in cohort.failures:
        console.error(f"failed: {failure.name}: {failure.sentence}")
    total = len(cohort.cases) + len(cohort.failures)
    console.say(f"{len(cohort.cases)} of {total} images evaluated.")


def _tell_files(outputs: Outputs | None, console: Console) -> None:
    console.wrote(*(outputs.paths if outputs else ()))
