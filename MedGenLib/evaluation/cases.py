"""Evaluation of many images: two folders whose files are matched by name.

The name of a case is the file name without its suffix. A case that cannot be evaluated is recorded as a failure with
its sentence, and the others continue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedGenLib.errors import Cancelled, InputError, MedGenError
from MedGenLib.evaluation.folders import is_volume, volumes_in
from MedGenLib.evaluation.pair import Evaluation
from MedGenLib.progress import ProgressCallback, Stage

SHOWN = 3
"""Number of worst cases whose voxels are kept for pictures."""


@dataclass(frozen=True)
class Failure:
    """A case that could not be evaluated, and why."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Case:
    """The files of one case: role ("image", "reference", "mask", ...) -> path."""

    name: str
    paths: Mapping[str, Path]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The evaluated cases of two folders.

    Attributes
    ----------
    cases: worst first; only the first ones with voxels.
    failures: cases that could not be evaluated.
    unmatched: sentences on files that belong to no case.
    """

    cases: tuple[Evaluation, ...]
    failures: tuple[Failure, ...] = ()
    unmatched: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "cases": [case.to_dict() for case in self.cases],
            "failures": [{"name": f.name, "sentence": f.sentence} for f in self.failures],
            "unmatched": list(self.unmatched),
        }


def holds_cases(path: Path) -> bool:
    """Whether a path is a folder of volumes rather than one volume.

    It is if it contains volumes or only subfolders; a folder of other files is one DICOM series.
    """
    if not path.is_dir():
        return False
    inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return any(map(is_volume, inside)) or (bool(inside) and all(e.is_dir() for e in inside))


def match(image: Path, others: Mapping[str, Path | None]) -> tuple[list[Case], list[Failure], list[str]]:
    """The cases of a folder; failures of images that lack a part; sentences on parts without image.

    Parameters
    ----------
    image: folder of volumes.
    others: role -> folder of volumes matched by name, or one file for all cases, or None.

    Raises
    ------
    InputError: a folder is missing, has no volume or two with the same name; the reference is one file; or no image has
        all its parts.
    """
    images = volumes_in(image)
    reference = others.get("reference")
    if reference is not None and not holds_cases(reference):
        raise InputError(
            f"{image} is a folder of volumes, but the reference {reference} is not; give a folder "
            "whose files have the same names."
        )
    folders = {role: volumes_in(path) for role, path in others.items() if path and path.is_dir()}
    shared = {role: path for role, path in others.items() if path and not path.is_dir()}
    cases, failures = [], []
    for name, path in images.items():
        lacking = [role for role, files in folders.items() if name not in files]
        if lacking:
            role = lacking[0]
            failures.append(Failure(name, f"There is no {role} named '{name}' in {others[role]}."))
            continue
        own = {role: files[name] for role, files in folders.items()}
        cases.append(Case(name, {"image": path, **shared, **own}))
    if not cases:
        raise InputError(
            f"No volume of {image} has a counterpart of the same name (without the suffix): {failures[0].sentence}"
        )
    unmatched = [
        f"The {role} '{name}' has no image of that name."
        for role, files in folders.items()
        for name in files
        if name not in images
    ]
    return cases, failures, unmatched


def evaluate_cases(
    cases: Sequence[Case], judge: Callable[[Case], Evaluation], progress: ProgressCallback | None = None
) -> tuple[tuple[Evaluation, ...], list[Failure]]:
    """Evaluate every case; returns the evaluations, worst first, and the failures.

    Only the `SHOWN` worst keep their voxels, so memory does not grow with the cohort.
    """
    stage = Stage("evaluating", len(cases), progress)
    done: list[Evaluation] = []
    failures = []
    for case in cases:
        try:
            done.append(judge(case))
        except Cancelled:
            raise
        except MedGenError as error:
            failures.append(Failure(case.name, str(error)))
        done.sort(key=lambda evaluation: evaluation.badness, reverse=True)
        done[SHOWN:] = [evaluation.without_voxels() for evaluation in done[SHOWN:]]
        stage.advance()
    return tuple(done), failures
