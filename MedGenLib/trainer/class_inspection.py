"""Inspection of images with classes: what keeps a case from being used, and the figures that a plan needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from MedGenLib.classification.grid import LEAST_PIXELS, PICTURE, thin_axes
from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import guess_modality, hu_problem, modality_doubt, modality_family
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import by_axis
from MedGenLib.io.pictures import PICTURES, SINGLE, read_image
from MedGenLib.progress import ProgressCallback
from MedGenLib.trainer.datasets import ClassifiedImage, DataSet, Problem
from MedGenLib.trainer.inspection import digest, inspected, without_copies

FEWEST_PEOPLE = 3
"""People of a class: to train, to calibrate and to measure."""
PLANES = ("sagittal", "coronal", "axial")
"""Planes of slices across the RAS axes."""


@dataclass(frozen=True)
class ClassFacts:
    """Figures of one case: voxels and their sides (mm) along the RAS axes, modality, hash of the voxels."""

    case: ClassifiedImage
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    thin: tuple[bool, ...]
    modality: str
    digest: str

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def targets(self) -> tuple[int | None, ...]:
        return self.case.targets


@dataclass(frozen=True)
class ClassInspection:
    """The usable cases with their figures, class -> people, classes left out, and the problems of other cases."""

    modality: str
    people: Mapping[str, int]
    dropped: tuple[str, ...]
    facts: tuple[ClassFacts, ...]
    problems: tuple[Problem, ...]


def inspect_classes(
    dataset: DataSet, modality: str | None = None, progress: ProgressCallback | None = None
) -> ClassInspection:
    """Read every image of a data set with classes.

    Raises InputError if no case can be used, or fewer than two classes have enough people.
    """
    facts, problems = inspected(dataset, lambda case: _inspect(case, modality), progress)
    for check in (_alike, without_copies, _on_one_side):
        facts, more = check(facts)
        problems += more
    people, few = _people(dataset, facts)
    if not dataset.several:
        rare = [f for f in facts if dataset.classes[f.targets.index(1)] in few]
        sentence = f"A class needs images of {FEWEST_PEOPLE} people, but the class of this one has fewer."
        problems += [Problem(f.name, sentence) for f in rare]
        facts = [f for f in facts if dataset.classes[f.targets.index(1)] not in few]
    if not facts or len(people) < (1 if dataset.several else 2):
        first = f"; the first case left out, {problems[0].case}: {problems[0].sentence}" if problems else ""
        raise InputError(
            f"Too few cases of {dataset.path} can be used: each class needs {FEWEST_PEOPLE} people, and two classes "
            f"have to remain{first}"
        )
    found = {f.modality for f in facts}
    common = found.pop() if len(found) == 1 else "MR"  # such as T1w and T2w
    return ClassInspection(common, people, tuple(few), tuple(facts), tuple(problems))


def _inspect(case: ClassifiedImage, modality: str | None) -> ClassFacts | str:
    """The figures of a case, or the sentence why it cannot be used."""
    try:
        image = read_image(case.image, modality)
    except InputError as error:
        return str(error)
    low, high = float(image.array.min()), float(image.array.max())
    if low == high:
        return f"All voxels are {low:g}."
    if any(1 < n < LEAST_PIXELS for n in image.shape):
        return f"The image has only {by_axis(image.shape)} voxels."
    is_picture = case.image.name.lower().endswith((*PICTURES, *SINGLE)) and image.modality is None
    kind = PICTURE if is_picture else image.modality or guess_modality(image) or "MR"
    if kind == "CT" and (problem := hu_problem(image) or modality_doubt(image)):
        return problem
    order = Reorientation.to(image.geometry, "RAS")
    shape, spacing = tuple(map(int, order.axes(image.shape))), tuple(map(float, order.axes(image.spacing)))
    return ClassFacts(case, shape, spacing, thin_axes(image), kind, digest(image))


def _alike(facts: Sequence[ClassFacts]) -> tuple[list[ClassFacts], list[Problem]]:
    """The cases of the commonest modality and plane, and the others as problems."""
    kinds = [_kind(f) for f in facts]
    usual = Counter(kinds).most_common(1)[0][0] if kinds else ""
    problems = [
        Problem(f.name, f"The image is a {kind}, but most are {usual}s.")
        for f, kind in zip(facts, kinds, strict=True)
        if kind != usual
    ]
    return [f for f, kind in zip(facts, kinds, strict=True) if kind == usual], problems


def _kind(facts: ClassFacts) -> str:
    """Such as "picture", "CT volume" or "sagittal MR slice"."""
    if facts.modality == PICTURE:
        return PICTURE
    family = modality_family(facts.modality)
    planes = [plane for plane, thin in zip(PLANES, facts.thin, strict=True) if thin]
    return f"{planes[0]} {family} slice" if planes else f"{family} volume"


def _on_one_side(facts: Sequence[ClassFacts]) -> tuple[list[ClassFacts], list[Problem]]:
    """People that the data set states on two sides are kept on the one that is farther from the training."""
    order = (None, "train", "validation", "test")
    side: dict[str, str | None] = {}
    for f in facts:
        side[f.case.subject] = max(side.get(f.case.subject), f.case.split, key=order.index)
    problems = [
        Problem(f.name, f"The person {f.case.subject} is in {side[f.case.subject]}, too, and counts only there.")
        for f in facts
        if f.case.split != side[f.case.subject]
    ]
    return [f for f in facts if f.case.split == side[f.case.subject]], problems


def _people(dataset: DataSet, facts: Sequence[ClassFacts]) -> tuple[dict[str, int], list[str]]:
    """People of each class with enough of them, and the other classes; of several, enough people have to lack it."""
    people, few = {}, []
    for number, name in enumerate(dataset.classes):
        have, lack = ({f.case.subject for f in facts if f.targets[number] == value} for value in (1, 0))
        if min(len(have), len(lack) if dataset.several else len(have)) < FEWEST_PEOPLE:
            few.append(name)
        else:
            people[name] = len(have)
    return people, few
