"""The plan of a training of a classifier: every choice, made from the figures of the images, with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from MedGenLib.classification.grid import CHANNELS, PICTURE
from MedGenLib.errors import InputError
from MedGenLib.packages.typed import setting
from MedGenLib.trainer.class_inspection import FEWEST_PEOPLE, ClassInspection
from MedGenLib.trainer.datasets import CLASSIFIER, ClassifiedImage, DataSet
from MedGenLib.trainer.plan import BasePlan, about
from MedGenLib.training.splits import hold_out

LARGEST = {"cpu": {2: 128, 3: 48}, "cuda": {2: 320, 3: 128}}
"""Voxels of a side, by device and axes of the image."""
LEAST, STRIDE = 32, 16
"""Fewest voxels of a side, which the strided layers need, and what sides are multiples of."""
NETWORKS = {
    "cpu": {"width": 16, "growth": 8, "blocks": [2, 4, 4]},
    "cuda": {"width": 64, "growth": 32, "blocks": [6, 12, 24, 16]},
}
BATCH = {"cpu": 8, "cuda": 32}
CACHED = 2
"""Bytes of a prepared voxel."""


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan(BasePlan):
    """All choices of a training run of a classifier, as in plan.json, beside those of `BasePlan`.

    Attributes
    ----------
    uncertain: what uncertain findings are.
    classes: what the model finds; several: more than one of them, or none, may apply to an image.
    numbers: number of each class among those of the data set.
    modality: "picture" for images without a unit and a plane of their own, such as radiographs.
    shape, spacing_mm, whole: grid of the network, see `MedGenLib.packages.settings.ClassificationSettings`.
    network: arguments of `MedGenLib.networks.ImageClassifier`.
    validation: subjects by which the weights are chosen and the probabilities are calibrated.
    """

    stated: ClassVar[tuple[str, ...]] = (*BasePlan.stated, "recipe", "uncertain")
    stages: ClassVar[tuple[str, ...]] = (CLASSIFIER,)

    task: Literal["classify"] = "classify"
    recipe: Literal["image-classifier"] = CLASSIFIER
    uncertain: Literal["ignore", "ones", "zeros"] = "ignore"
    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    several: bool
    shape: tuple[int, int, int] = setting(low=1)
    spacing_mm: float = setting(above=0)
    whole: bool
    network: Mapping[str, Any]
    batch: int = setting(low=1)
    learning_rate: float = setting(1e-3, above=0)
    validation: tuple[str, ...]
    field_of_view_mm: tuple[tuple[float, float, float], tuple[float, float, float]]

    def check(self) -> None:
        super().check()
        if small := [n for n in self.shape if 1 < n < LEAST]:
            raise InputError(f"The shape has a side of {small[0]} voxels; give at least {LEAST}, or 1 for a slice.")

    @property
    def codec(self) -> str:
        return "hounsfield" if self.modality == "CT" else "relative"

    def config(self, cases: Sequence[ClassifiedImage], cache: Path) -> dict[str, Any]:
        """The configuration of the recipe; ``cache`` is the folder of the prepared images."""
        kept = [case for case in cases if case.subject not in self.held_out]
        return {
            "seed": self.seed,
            "folder": str(cache.parent),
            "data": {
                "cases": [[c.name, c.subject, str(c.image), [c.targets[n] for n in self.numbers]] for c in kept],
                "cache": str(cache),
                "validation": list(self.validation),
                "held_out": list(self.held_out),
                "modality": self.modality,
                "codec": self.codec,
                "shape": list(self.shape),
                "spacing_mm": self.spacing_mm,
                "whole": self.whole,
            },
            CLASSIFIER: {"classes": len(self.classes), "several": self.several, "network": dict(self.network)},
            "optimisation": {
                CLASSIFIER: self.optimization(
                    CLASSIFIER, self.learning_rate, ema=0.98, validate_every=max(1, self.steps[CLASSIFIER] // 10)
                )
            },
            "package": self._package(kept),
        }

    def _package(self, cases: Sequence[ClassifiedImage]) -> dict[str, Any]:
        """The fixed parts of the manifest."""
        low, high = self.field_of_view_mm
        policy = f" --uncertain {self.uncertain}" if self.uncertain != "ignore" else ""
        medgen = {
            "task": "classify",
            "pipeline": "classification",
            "input": {"kind": "image", "modality": self.modality},
            "output": {"labels": {str(n): {"name": name} for n, name in enumerate(self.classes, start=1)}},
            "spacing_mm": {
                "min": 0.01 if self.whole else round(self.spacing_mm / 4, 4),
                "max": 1000.0 if self.whole else round(1.5 * self.spacing_mm, 4),
                "native": self.spacing_mm,
            },
            "field_of_view_mm": {"min": list(low), "max": list(high)},
            "preprocessing": {
                "name": self.codec,
                "shape": list(self.shape),
                "whole": self.whole,
                "several": self.several,
            },
            "statistics": {},
        }
        kind = "Findings in" if self.several else "Class of"
        images = "pictures" if self.modality == PICTURE else f"{self.modality} images"
        description = f"{kind} {images}: {', '.join(self.classes)}"
        dims = sum(n > 1 for n in self.shape)
        options, ends = f" --recipe {CLASSIFIER}{policy}", (self.modality,) * 2
        package = self.package("Classification", description, ends, dims, cases, options, medgen)
        shares = {"type": "probabilities", "format": "classes", "num_channels": len(self.classes)}
        package["metadata"]["network_data_format"]["outputs"]["pred"] = shares
        return package


def make_classifier_plan(
    dataset: DataSet,
    inspection: ClassInspection,
    name: str | None = None,
    license: str | None = None,
    device: str = "cpu",
    uncertain: str | None = None,
) -> ClassifierPlan:
    """The plan for a data set; the number of steps is added by `with_budget`.

    Raises InputError for a name that no package can have.
    """
    facts, kind = inspection.facts, "cuda" if device.startswith("cuda") else "cpu"
    cases = [f.case for f in facts]
    numbers = [dataset.classes.index(c) for c in inspection.people]
    shape, spacing, whole, why_shape = _grid(inspection, kind)
    validation, held_out, why_split = _sides(cases, numbers)
    extents = np.array([np.multiply(f.shape, f.spacing) for f in facts])
    low, high = (extents.min(axis=0), extents.max(axis=0)) if not whole else (np.ones(3), np.full(3, 1e5))
    dropped = f"; too few people for {', '.join(inspection.dropped)}" if inspection.dropped else ""
    channels = CHANNELS["hounsfield" if inspection.modality == "CT" else "relative"]
    voxels = len(facts) * channels * int(np.prod(shape))
    reasons = {
        "modality": "stated by the data set or the user" if dataset.modality else "from the files and their values",
        "classes": f"people: {', '.join(f'{c} {n}' for c, n in inspection.people.items())}{dropped}",
        "several": "an image has several classes or none" if dataset.several else "each image has one class",
        "shape": why_shape,
        "network": "DenseNet of MONAI, with group normalization",
        "batch": "people are drawn at random and no class more often than it is, so that probabilities stay true",
        "cache_mib": "space on the disk for the prepared images",
        "validation": "chooses the weights and calibrates the probabilities; " + why_split,
        "held_out": "measures the model, and is used for nothing else; " + why_split,
        **({"uncertain": "what uncertain findings count as"} if dataset.layout == "CheXpert" else {}),
    }
    return ClassifierPlan(
        **about(dataset, inspection, name, license),
        uncertain=uncertain or "ignore",
        classes=tuple(inspection.people),
        numbers=tuple(numbers),
        several=dataset.several,
        shape=shape,
        spacing_mm=spacing,
        whole=whole,
        network=NETWORKS[kind],
        batch=min(BATCH[kind], len(facts)),
        validation=validation,
        held_out=held_out,
        field_of_view_mm=(tuple(map(float, np.floor(0.8 * low * 10) / 10)), tuple(map(float, np.ceil(1.2 * high)))),
        cache_mib=round(voxels * CACHED / 2**20, 1),
        reasons=reasons,
    )


def _grid(inspection: ClassInspection, device: str) -> tuple[tuple[int, int, int], float, bool, str]:
    """Shape, voxel side, whether images fill the grid, and why."""
    facts = inspection.facts
    thin = facts[0].thin
    largest = LARGEST[device][3 - sum(thin)]
    if any(thin):
        usual = int(np.median([max(f.shape) for f in facts]))
        side = int(np.clip(-(-usual // STRIDE) * STRIDE, LEAST, largest))
        why = f"whole slices, scaled to it without change of form; they have about {usual} pixels a side"
        return tuple(1 if one else side for one in thin), 1.0, True, why
    extent = np.percentile([np.multiply(f.shape, f.spacing) for f in facts], 95, axis=0)
    native = float(np.median([np.prod(f.spacing) ** (1 / 3) for f in facts]))
    spacing = float(f"{max(native, extent.max() / largest):.3g}")
    shape = tuple(int(np.clip(-(-side // spacing // STRIDE) * STRIDE, LEAST, largest)) for side in extent)
    why = f"nearly all images fit into it at {spacing:g} mm (their own voxels: {native:.3g} mm); the size in mm counts"
    return shape, spacing, False, why


def _sides(cases: Sequence[ClassifiedImage], numbers: Sequence[int]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """People for validation and for the measurement: as the data set states them, else a fifth of each class."""
    stated = {side: {c.subject for c in cases if c.split == side} for side in ("validation", "test")}
    held_out, validation = stated["test"] or stated["validation"], stated["validation"] if stated["test"] else set()
    drawn = [side for side, people in (("test", held_out), ("validation", validation)) if not people]
    groups = _groups([c for c in cases if c.subject not in held_out | validation], numbers)
    for people in groups.values():
        left = set(people)
        for side in drawn if len(people) >= FEWEST_PEOPLE else ():  # others are for the training
            chosen = set(hold_out(left, max(1, round(len(people) / 5))))
            (held_out if side == "test" else validation).update(chosen)
            left -= chosen
    if not (held_out and validation and {c.subject for c in cases} - held_out - validation):
        raise InputError(
            f"The splits leave no people for the training, the calibration or the measurement; give {FEWEST_PEOPLE} or "
            "more people of each class beside those of the test, or no splits."
        )
    words = {2: "a fifth of the people of each class, at random", 1: "in part as the data set states, else at random"}
    return tuple(sorted(validation)), tuple(sorted(held_out)), words.get(len(drawn), "as the data set states")


def _groups(cases: Iterable[ClassifiedImage], numbers: Sequence[int]) -> dict[int | None, set[str]]:
    """People by the rarest class that they have; None for those without any."""
    people: dict[int, set[str]] = {n: {c.subject for c in cases if c.targets[n] == 1} for n in numbers}
    groups: dict[int | None, set[str]] = defaultdict(set)
    for person in {c.subject for c in cases}:
        own = [n for n in numbers if person in people[n]]
        groups[min(own, key=lambda n: (len(people[n]), n), default=None)].add(person)
    return groups
