"""Inspection of every case of a data set: what keeps it from being used, and the figures that a plan needs."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import hu_problem, modality_doubt, modality_family, modality_of
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_frames, read_label_map, read_volume
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.trainer.datasets import DataSet, LabeledImage, Problem

Facts = TypeVar("Facts")

READERS = 2
"""Cases read at once: each takes the memory of two volumes."""
AIR_HU = -500.0
DARK = 0.05
"""Share of the 99th percentile below which an MR voxel counts as empty."""


@dataclass(frozen=True)
class LabelFacts:
    """Voxels of one label in one case: their number, mean and standard deviation."""

    count: int
    mean: float
    sd: float


@dataclass(frozen=True)
class CaseFacts:
    """Figures of one case; spacing (mm) and shape along the RAS axes.

    Attributes
    ----------
    modality: as stated or guessed, None if unknown.
    mean, sd: of all voxels; low, high: their 0.5th and 99.5th percentile.
    beyond: voxels outside of the labels that show something, relative to the labeled ones.
    digest: hash of the voxels.
    frames: of a series, whose other figures are those of the first frame.
    """

    name: str
    subject: str
    modality: str | None
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    labels: Mapping[int, LabelFacts]
    mean: float
    sd: float
    low: float
    high: float
    beyond: float
    digest: str
    frames: int = 1

    @property
    def labeled(self) -> tuple[float, float]:
        """Mean and standard deviation of all labeled voxels."""
        count, mean, sd = (np.array([getattr(f, key) for f in self.labels.values()]) for key in ("count", "mean", "sd"))
        middle = np.average(mean, weights=count)
        return float(middle), float(np.sqrt(np.average(sd**2 + (mean - middle) ** 2, weights=count)))

    @property
    def extent(self) -> tuple[float, ...]:
        """Size in mm along the RAS axes."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))


@dataclass(frozen=True)
class Inspection:
    """The usable cases of a data set with their figures, and the problems of the others."""

    modality: str
    facts: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...]

    @property
    def subjects(self) -> list[str]:
        return sorted({case.subject for case in self.facts})

    @property
    def numbers(self) -> list[int]:
        """All labels of the cases."""
        return sorted({number for case in self.facts for number in case.labels})


def inspected(
    dataset: DataSet, look: Callable[[Any], Facts | str], progress: ProgressCallback | None
) -> tuple[list[Facts], list[Problem]]:
    """The figures of the usable cases, read in several threads, and the problems with those of the data set first."""
    stage = Stage("inspecting", len(dataset.cases), progress)
    facts, problems = [], list(dataset.problems)
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        for case, found in zip(dataset.cases, pool.map(look, dataset.cases), strict=True):
            if isinstance(found, str):
                problems.append(Problem(case.name, found))
            else:
                facts.append(found)
            stage.advance()
    return facts, problems


def inspect(dataset: DataSet, modality: str | None = None, progress: ProgressCallback | None = None) -> Inspection:
    """Read every case of a data set.

    Parameters
    ----------
    modality: "CT" or an MR contrast, if the data set does not state it rightly.

    Raises
    ------
    InputError: the modality of the images is unknown, or no case can be used.
    """
    stated = modality or dataset.modality
    facts, problems = inspected(dataset, lambda case: _inspect(case, dataset, stated), progress)
    common = stated or _common_modality(facts, dataset)
    facts, more = _alike(facts, common)
    facts, copies = without_copies(facts)
    facts, uneven = _as_long(facts)
    problems += [*more, *copies, *uneven]
    if not facts:
        first = problems[0]
        raise InputError(f"No case of {dataset.path} can be used; the first one, {first.case}: {first.sentence}")
    return Inspection(common, tuple(facts), tuple(problems))


def _inspect(case: LabeledImage, dataset: DataSet, modality: str | None) -> CaseFacts | str:
    """The figures of a case, or the sentence why it cannot be used."""
    try:
        frames = read_frames(case.image, modality) if dataset.series else [read_volume(case.image, modality=modality)]
        image = frames[0]
        # Without labels, the whole image counts as one.
        everywhere = LabelMap(np.ones(image.shape, np.uint8), image.affine)
        labels = read_label_map(case.labels, case.image) if case.labels else everywhere
    except InputError as error:
        return str(error)
    problem = _problem(image, labels, dataset, modality)
    return problem or replace(_facts(case, image, labels, modality), frames=len(frames))


def _problem(image: Volume, labels: LabelMap, dataset: DataSet, modality: str | None) -> str | None:
    if not image.geometry.is_close(labels.geometry):
        away = image.geometry.apart(labels.geometry)
        return f"Image and labels lie on different grids ({image.geometry}; {labels.geometry}{away})."
    if image.array.min() == image.array.max():
        return f"All voxels of the image are {image.array.flat[0]:g}."
    numbers = np.unique(labels.array)
    if not numbers.any():
        return "The labels are empty."
    if dataset.strict and (unknown := sorted(set(numbers.tolist()) - {0, *dataset.labels})):
        return f"The labels have the number {unknown[0]}, which the data set does not name."
    return (hu_problem(image) if modality == "CT" else None) or modality_doubt(image)


def _facts(case: LabeledImage, image: Volume, labels: LabelMap, modality: str | None) -> CaseFacts:
    values, numbers = image.array, labels.array
    order = Reorientation.to(image.geometry, "RAS")
    low, high = (float(p) for p in np.percentile(values, [0.5, 99.5]))
    kind = modality or modality_of(image)
    return CaseFacts(
        case.name,
        case.subject,
        kind,
        tuple(float(s) for s in order.axes(image.spacing)),
        tuple(int(n) for n in order.axes(image.shape)),
        {int(n): _label_facts(values[numbers == n]) for n in np.unique(numbers) if n},
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
        low,
        high,
        _beyond(values, numbers, kind),
        digest(image),
    )


def digest(image: Volume) -> str:
    """Hash of the voxels."""
    return hashlib.sha256(np.ascontiguousarray(image.array).tobytes()).hexdigest()[:16]


def _label_facts(values: NDArray) -> LabelFacts:
    return LabelFacts(int(values.size), float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))


def _beyond(values: NDArray, labels: NDArray, modality: str | None) -> float:
    limit = AIR_HU if modality == "CT" else DARK * float(np.percentile(values, 99))
    outside = (labels == 0) & (values > limit)
    return np.count_nonzero(outside) / np.count_nonzero(labels)


def _common_modality(facts: Sequence[CaseFacts], dataset: DataSet) -> str:
    guesses = Counter(case.modality for case in facts if case.modality)
    if not facts or guesses:
        return guesses.most_common(1)[0][0] if guesses else "MR"
    raise InputError(f"The values of the images in {dataset.path} are neither HU nor MR for certain; give --modality.")


def _alike(facts: Sequence[CaseFacts], modality: str) -> tuple[list[CaseFacts], list[Problem]]:
    """The cases of the common modality, and the others as problems."""
    family = modality_family(modality)
    other = [c for c in facts if c.modality and modality_family(c.modality) != family]
    problems = [Problem(c.name, f"The image looks like {c.modality}, but the others are {modality}.") for c in other]
    return [case for case in facts if case not in other], problems


def _as_long(facts: Sequence[CaseFacts]) -> tuple[list[CaseFacts], list[Problem]]:
    """The cases with the commonest number of frames, and the others as problems."""
    usual = Counter(case.frames for case in facts).most_common(1)[0][0] if facts else 0
    other = [case for case in facts if case.frames != usual]
    problems = [Problem(c.name, f"The series has {c.frames} frames, but most have {usual}.") for c in other]
    return [case for case in facts if case.frames == usual], problems


def without_copies(facts: Sequence[Facts]) -> tuple[list[Facts], list[Problem]]:
    """Each image once: a copy could lie on both sides of a split."""
    first: dict[str, Facts] = {}
    problems = []
    for case in facts:
        known = first.setdefault(case.digest, case)
        if known is not case:
            other = " with other classes" if getattr(known, "targets", None) != getattr(case, "targets", None) else ""
            problems.append(Problem(case.name, f"The image is a copy of that of the case {known.name}{other}."))
    return list(first.values()), problems
