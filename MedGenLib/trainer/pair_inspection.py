"""Inspection of images to translate: what keeps a case from being used, and the figures that a plan needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import hu_problem, modality_doubt, modality_family, modality_of
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom.headers import read_tags
from MedGenLib.io.files import read_volume
from MedGenLib.pipelines.working_grid import usable_axes
from MedGenLib.progress import ProgressCallback
from MedGenLib.trainer.datasets import DataSet, ImagePair, Problem
from MedGenLib.trainer.inspection import digest, inspected

SIDES = ("source", "target")
LEAST_OVERLAP = 0.3
"""Share of the source's field of view that the target covers, below which a pair is refused."""
NEGATIVE = 0.05
"""Largest depth below 0 of an MR, relative to its 99.5th percentile."""


@dataclass(frozen=True)
class PairFacts:
    """Figures of one case; spacing (mm) and shape along the RAS axes, of the source where there is one.

    Attributes
    ----------
    planes: planes in which the image has slices: 0 axial, 1 coronal, 2 sagittal.
    modalities: side -> modality, as stated or guessed, None if unknown.
    digests: side -> hash of the voxels.
    moved: the target lies on another grid than the source.
    """

    name: str
    subject: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    planes: tuple[int, ...]
    modalities: Mapping[str, str | None]
    digests: Mapping[str, str]
    moved: bool

    @property
    def extent(self) -> tuple[float, ...]:
        """Size in mm along the RAS axes."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    @property
    def in_plane(self) -> float:
        """Geometric mean of the voxel sides within the slices, in mm."""
        across = 2 - self.planes[0] if len(self.planes) == 1 else None
        sides = [mm for axis, mm in enumerate(self.spacing) if axis != across]
        return float(np.prod(sides) ** (1 / len(sides)))


@dataclass(frozen=True)
class PairInspection:
    """The usable cases with their figures, and the problems of the others."""

    source_modality: str
    modality: str
    facts: tuple[PairFacts, ...]
    problems: tuple[Problem, ...]

    def subjects(self, side: str) -> list[str]:
        """People with an image on a side."""
        return sorted({case.subject for case in self.facts if side in case.digests})


def inspect_pairs(
    dataset: DataSet,
    source_modality: str | None = None,
    modality: str | None = None,
    progress: ProgressCallback | None = None,
) -> PairInspection:
    """Read every image of a data set for translation.

    Parameters
    ----------
    source_modality, modality: of the sources and the targets, if the data set does not state them rightly.

    Raises
    ------
    InputError: a modality is unknown, or no case can be used.
    """
    stated = {"source": source_modality or dataset.source_modality, "target": modality or dataset.modality}
    facts, problems = inspected(dataset, lambda case: _inspect(case, stated), progress)
    common = {side: stated[side] or _common(facts, side, dataset) for side in SIDES}
    for check in (_alike, _without_copies):
        facts, more = check(facts, common)
        problems += more
    for side in SIDES:
        if not any(side in case.digests for case in facts):
            first = f"; the first one, {problems[0].case}: {problems[0].sentence}" if problems else "."
            raise InputError(f"No {side} of {dataset.path} can be used{first}")
    return PairInspection(common["source"], common["target"], tuple(facts), tuple(problems))


def _inspect(case: ImagePair, stated: Mapping[str, str | None]) -> PairFacts | str:
    """The figures of a case, or the sentence why it cannot be used."""
    paths = {side: getattr(case, side) for side in SIDES if getattr(case, side)}
    try:
        images = {side: read_volume(path, modality=stated[side]) for side, path in paths.items()}
        axes = usable_axes(next(iter(images.values())))
    except InputError as error:
        return str(error)
    for side, image in images.items():
        if sentence := _problem(image, side):
            return sentence
    if len(images) == 2 and (sentence := _apart(paths, images)):
        return sentence
    first = next(iter(images.values()))
    order = Reorientation.to(first.geometry, "RAS")
    return PairFacts(
        case.name,
        case.subject,
        tuple(float(s) for s in order.axes(first.spacing)),
        tuple(int(n) for n in order.axes(first.shape)),
        tuple(sorted(2 - axis for axis in range(3) if order.order[axis] in axes)),
        {side: image.modality or modality_of(image) for side, image in images.items()},
        {side: digest(image) for side, image in images.items()},
        len(images) == 2 and not images["source"].geometry.is_close(images["target"].geometry),
    )


def _problem(image: Volume, side: str) -> str | None:
    low, high = float(image.array.min()), float(image.array.max())
    if low == high:
        return f"All voxels of the {side} are {low:g}."
    kind = modality_of(image)
    if kind == "CT":
        return hu_problem(image) or modality_doubt(image)
    least, most = np.percentile(image.array, (0.5, 99.5))
    if kind and least < -NEGATIVE * max(most, 1e-6):
        return f"The {side} is {kind} with values down to {least:.4g}, but MR starts at 0; give it unscaled."
    return modality_doubt(image)


def _apart(paths: Mapping[str, Path], images: Mapping[str, Volume]) -> str | None:
    """Why a pair shows different places, if it does."""
    frames = {side: _frame(path) for side, path in paths.items()}
    if None not in frames.values() and frames["source"] != frames["target"]:
        return "Source and target have different DICOM frames of reference; register them and export the result."
    source, target = images["source"], images["target"]
    if source.geometry.is_close(target.geometry):
        return None
    covered = resample_to(LabelMap(np.ones(target.shape, np.uint8), target.affine), source).array.mean()
    if covered >= LEAST_OVERLAP:
        return None
    part = f"overlap in {covered:.0%} of the source only" if covered else "do not overlap in space"
    return f"Source and target {part}; register them first."


def _frame(path: Path) -> str | None:
    """Frame of reference of a DICOM series."""
    if not path.is_dir():
        return None
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        header = read_tags(file, ["FrameOfReferenceUID"])
        if header is not None and header.get("FrameOfReferenceUID"):
            return str(header.FrameOfReferenceUID)
    return None


def _common(facts: Sequence[PairFacts], side: str, dataset: DataSet) -> str:
    guesses = Counter(case.modalities[side] for case in facts if case.modalities.get(side))
    if guesses or not facts:
        return guesses.most_common(1)[0][0] if guesses else "MR"
    option = "--source-modality" if side == "source" else "--modality"
    raise InputError(f"The values of the {side}s in {dataset.path} are neither HU nor MR for certain; give {option}.")


def _alike(facts: Sequence[PairFacts], common: Mapping[str, str]) -> tuple[list[PairFacts], list[Problem]]:
    """The cases of the common modalities, and the others as problems."""
    kept, problems = [], []
    for case in facts:
        other = [
            s for s, kind in case.modalities.items() if kind and modality_family(kind) != modality_family(common[s])
        ]
        if other:
            found = f"The {other[0]} looks like {case.modalities[other[0]]}, but the others are {common[other[0]]}."
            problems.append(Problem(case.name, found))
        else:
            kept.append(case)
    return kept, problems


def _without_copies(facts: Sequence[PairFacts], common: Mapping[str, str]) -> tuple[list[PairFacts], list[Problem]]:
    """Each image once: a copy could lie on both sides of a split, and a source that is its target teaches nothing."""
    first: dict[str, str] = {}
    kept, problems = [], []
    for case in facts:
        known = next((first[digest] for digest in case.digests.values() if digest in first), None)
        if known is None and len(set(case.digests.values())) == len(case.digests):
            first |= dict.fromkeys(case.digests.values(), case.name)
            kept.append(case)
        else:
            of = "its target" if known is None else f"one of the case {known}"
            problems.append(Problem(case.name, f"An image is a copy of {of}."))
    return kept, problems
